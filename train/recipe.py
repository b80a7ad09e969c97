"""A recipe: all about a training that is not the model, the data or the fold. TOML, typed, strict."""

import dataclasses
import difflib
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

from timm.optim import get_optimizer_info, list_optimizers

RECIPES_DIR = Path(__file__).resolve().parent / "recipes"
SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("auto", "bf16", "fp32")
ALIASES = {"learning_rate": "lr", "dropout": "drop_rate", "stochastic_depth": "drop_path_rate"}


class RecipeError(ValueError):
    """A recipe that cannot be read; the message is one sentence for the user."""


@dataclass(frozen=True)
class Recipe:
    """Defaults are the plainest choice; a recipe file names what it relies on, but for erasing's scale.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step, over all processes.
        optimizer: A name of timm's optimizer factory.
        lr: Highest learning rate.
        weight_decay: As the optimizer takes it.
        schedule: What the learning rate does after the warm-up: "constant", or "cosine" or "linear" to zero.
        warmup_epochs: Epochs over which the learning rate rises linearly from a hundredth.
        progressive: Share of the epochs, the first ones, whose images have two thirds of the height and width
            and take half the time (progressive learning, arXiv:2104.00298); below 1.
        drop_rate: The model's dropout, in place of its own default.
        drop_path_rate: The model's stochastic depth, in place of its own default.
        teacher_share: Share of each target that a teacher's probabilities make up, where there is a teacher;
            a recipe with another share than 0.5 is for trainings with one.
        label_smoothing: Share of each label that is spread over all classes.
        class_weights: Weigh each image by the inverse frequency of its class; the mean weight is one.
        mixup: Alpha of mixup (arXiv:1710.09412), 0 for none.
        cutmix: Alpha of CutMix (arXiv:1905.04899), 0 for none; with both, each batch draws one of them.
        flip: Chance of a horizontal flip.
        degrees: Largest rotation, either way.
        crop_scale: Least and largest area of the random resized crop, as a share of the image; beyond 1 the
            border is continued outwards.
        crop_ratio: Least and largest aspect of that crop.
        shift: Largest further shift of the crop, either way, as a share of the image.
        jitter: Largest change of contrast, either way, as a share of it, and of brightness, as a share of
            half the range.
        blur: Largest standard deviation of the Gaussian blur that every third image is given, in pixels
            of the image as it is trained on; at most 2, as the blur reaches 5 pixels far.
        noise: Largest standard deviation of the Gaussian noise that every third image is given, as a share of
            the range.
        erasing: Chance that a gray rectangle covers a part of the image (arXiv:1708.04896).
        erasing_scale: Least and largest area of that rectangle, as a share of the image.
        forget_rate: Share of the images of a batch, those of the highest loss, that are not learnt from, as
            their labels may be wrong; it grows to that over ten epochs. A pair of networks tell each other
            (co-teaching, arXiv:1804.06872); a network alone tells itself.
        sam: How far around the weights each step looks for the highest loss, whose gradient it then takes
            (arXiv:2010.01412), in twice the time; 0 for not at all.
        ema: Decay of the moving average of the weights that is then what is scored and kept, 0 for none.
        late_average: Share of the epochs, the last ones, in which the mean of all steps' weights since their
            start is scored in place of the moving average, 0 for none; after arXiv:1803.05407, but
            BatchNorm's running figures are averaged, too. An earlier epoch may still be the best.
        precision: "bf16" (autocast), "fp32", or "auto", the faster of the two on the device that trains.
        seed: Of the weights, the order of images, the augmentation and the dropout.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_epochs: int = 0
    progressive: float = 0.0
    drop_rate: float | None = None
    drop_path_rate: float | None = None
    teacher_share: float = 0.5
    label_smoothing: float = 0.0
    class_weights: bool = False
    mixup: float = 0.0
    cutmix: float = 0.0
    flip: float = 0.5
    degrees: float = 10.0
    crop_scale: tuple[float, float] = (0.8, 1.0)
    crop_ratio: tuple[float, float] = (0.9, 1.1)
    shift: float = 0.0
    jitter: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erasing: float = 0.0
    erasing_scale: tuple[float, float] = (0.02, 0.2)
    forget_rate: float = 0.0
    sam: float = 0.0
    ema: float = 0.0
    late_average: float = 0.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size"):
            if getattr(self, key) < 1:
                raise RecipeError(f"{key} must be at least 1, not {getattr(self, key)}")
        shares = (
            "drop_rate",
            "drop_path_rate",
            "teacher_share",
            "label_smoothing",
            "flip",
            "jitter",
            "noise",
            "shift",
        )
        for key in (*shares, "erasing", "ema", "late_average"):
            if not 0 <= (getattr(self, key) or 0) <= 1:
                raise RecipeError(f"{key} must be from 0 to 1, not {getattr(self, key)}")
        for key in ("progressive", "forget_rate"):
            if not 0 <= getattr(self, key) < 1:
                raise RecipeError(f"{key} must be at least 0 and below 1, not {getattr(self, key)}")
        if self.forget_rate and self.class_weights:
            raise RecipeError("with class_weights forget_rate would leave out rare classes: one must be off")
        if self.ema and self.late_average:
            raise RecipeError("ema and late_average are two averages of the weights: one must be 0")
        for key in ("weight_decay", "mixup", "cutmix", "degrees", "blur", "sam", "warmup_epochs", "seed"):
            if getattr(self, key) < 0:
                raise RecipeError(f"{key} must not be negative, and is {getattr(self, key)}")
        if self.blur > 2:
            raise RecipeError(f"blur must be at most 2, not {self.blur}")
        for key in ("crop_scale", "crop_ratio", "erasing_scale"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise RecipeError(f"{key} must be a least and a largest number above 0, not {[low, high]}")
        known = [name for name in list_optimizers() if not get_optimizer_info(name).second_order]
        if self.optimizer.removeprefix("lookahead_") not in known:
            near = ", ".join(difflib.get_close_matches(self.optimizer, known)) or "adam, adamw, sgd, ..."
            raise RecipeError(f"optimizer must be one of timm's ({near}), not {self.optimizer!r}")
        if self.lr <= 0:
            raise RecipeError(f"lr must be above 0, not {self.lr}")
        if self.warmup_epochs >= self.epochs > 1 or self.warmup_epochs > self.epochs:
            raise RecipeError(f"warmup_epochs must be fewer than the {self.epochs} epochs")
        for key, known in (("schedule", SCHEDULES), ("precision", PRECISIONS)):
            if getattr(self, key) not in known:
                raise RecipeError(f"{key} must be one of {', '.join(known)}, not {getattr(self, key)!r}")

    @property
    def small_epochs(self) -> int:
        """How many epochs, the first ones, see smaller images."""
        return int(self.progressive * self.epochs)

    def size_in(self, epoch: int, full: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the training images in an epoch, counted from 0.

        About two thirds of the `full` size in small epochs: a multiple of eight, as networks halve it.
        """
        if epoch >= self.small_epochs:
            return full
        height, width = (min(side, max(8, round(side / 12) * 8)) for side in full)
        return height, width


def load_recipe(name: str, /, **overrides: object) -> Recipe:
    """Reads `train/recipes/<name>.toml`, or the file that `name` is; `overrides` that are not None win.

    A file may name another as its `base`, a recipe's name or a path from where the file lies, and that a
    further one: it then says only what differs.

    Raises:
        RecipeError: No such recipe, no valid TOML, an unknown key, or a value of the wrong type or range.
    """
    path, values = _read(name)
    read = [path]
    while base := values.pop("base", None):
        lower, below = _read(base, read[-1].parent)
        if lower in read:
            raise RecipeError(f"{path.name} is based on itself, by way of {lower.name}")
        read.append(lower)
        values = below | values
    values |= {key: value for key, value in overrides.items() if value is not None}
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    for key, value in values.items():
        if key not in fields:
            near = [
                ALIASES.get(name, name) for name in difflib.get_close_matches(key, [*fields, *ALIASES], 1)
            ]
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(fields)}"
            raise RecipeError(f"{path.name} has an unknown key {key!r}: {hint}")
        values[key] = _typed(key, value, fields[key].default)
    if overrides.get("epochs"):  # a run that is cut short has its warm-up cut short
        values["warmup_epochs"] = min(values.get("warmup_epochs", 0), max(overrides["epochs"] - 1, 0))
    return Recipe(**values)


def settings_of(record: dict) -> dict:
    """The settings that a run's record holds; one of before a setting was known has its default."""
    return json.loads(json.dumps(dataclasses.asdict(Recipe()))) | record


def without_seed(record: dict) -> dict:
    """`settings_of` that record, but what differs between runs of several seeds."""
    return settings_of(record) | {"seed": None}


def _read(name: object, folder: Path = Path()) -> tuple[Path, dict]:
    """A recipe file's path and content; `folder` is where a relative path starts."""
    path = (folder / str(name)).resolve() if str(name).endswith(".toml") else RECIPES_DIR / f"{name}.toml"
    try:
        return path, tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in RECIPES_DIR.glob("*.toml")))
        raise RecipeError(f"no recipe {name!r}: give one of {known}, or the path of a .toml file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None


def _typed(key: str, value: object, default: object) -> object:
    """`value` in the type of the field's default; whole numbers pass for fractions."""
    kind = float if default is None else type(default)
    if kind is tuple and isinstance(value, list | tuple) and len(value) == len(default):
        return tuple(_typed(key, part, 0.0) for part in value)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        wanted = f"{len(default)} numbers" if kind is tuple else names[kind]
        raise RecipeError(f"{key} must be {wanted}, not {value!r}")
    if kind is float and not math.isfinite(value):
        raise RecipeError(f"{key} must be finite, not {value}")
    return value
