"""A recipe: all about a training that is not the model, the data or the fold. TOML, typed, strict."""

import dataclasses
import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path

RECIPES_DIR = Path(__file__).resolve().parent / "recipes"


class RecipeError(ValueError):
    """A recipe that cannot be read; the message is one sentence for the user."""


@dataclass(frozen=True)
class Recipe:
    """Defaults are the plainest choice; a recipe file names every value that it relies on.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images a step, over all processes.
        optimizer: A name of timm's optimizer factory.
        lr: Learning rate, constant.
        weight_decay: As the optimizer takes it.
        drop_rate: The model's dropout, in place of its own default.
        flip: Chance of a horizontal flip.
        degrees: Largest rotation, either way.
        crop_scale: Least and largest area of the random resized crop, as a share of the image.
        crop_ratio: Least and largest aspect of that crop.
        precision: "bf16" (autocast) or "fp32".
        seed: Of the weights, the order of images, the augmentation and the dropout.
    """

    epochs: int = 20
    batch_size: int = 128
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    drop_rate: float | None = None
    flip: float = 0.5
    degrees: float = 10.0
    crop_scale: tuple[float, float] = (0.8, 1.0)
    crop_ratio: tuple[float, float] = (0.9, 1.1)
    precision: str = "bf16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise RecipeError("epochs and batch_size must be at least 1")
        if self.precision not in ("bf16", "fp32"):
            raise RecipeError(f'precision must be "bf16" or "fp32", not {self.precision!r}')


def load_recipe(name: str, **overrides: object) -> Recipe:
    """Reads `train/recipes/<name>.toml`, or the file that `name` is; `overrides` that are not None win.

    Raises:
        RecipeError: No such recipe, no valid TOML, an unknown key, or a value of the wrong type.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES_DIR / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in RECIPES_DIR.glob("*.toml")))
        raise RecipeError(f"no recipe {name!r}: give one of {known}, or the path of a .toml file") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from None
    values |= {key: value for key, value in overrides.items() if value is not None}
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    for key, value in values.items():
        if key not in fields:
            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(fields)}"
            raise RecipeError(f"{path.name} has an unknown key {key!r}: {hint}")
        values[key] = _typed(key, value, fields[key].default)
    return Recipe(**values)


def _typed(key: str, value: object, default: object) -> object:
    """`value` in the type of the field's default; whole numbers pass for fractions."""
    kind = float if default is None else type(default)
    if kind is tuple and isinstance(value, list | tuple) and len(value) == len(default):
        return tuple(_typed(key, part, 0.0) for part in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted = (
            f"{len(default)} numbers"
            if kind is tuple
            else {int: "a whole number", float: "a number"}.get(kind, "a text")
        )
        raise RecipeError(f"{key} must be {wanted}, not {value!r}")
    return value
