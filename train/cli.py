"""What the scripts share at the command line: the data and model arguments, and one sentence for an error."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fer_zoo.data import DataError, load_fer2013, wrong_counts
from train.dataset import PACK, Fer2013, read_pack
from train.hardware import choose_precision, exact_fp32, keep_freed_memory
from train.recipe import PRECISIONS, Recipe, RecipeError, load_recipe

DEFAULT_DATA = Path("data/fer2013")
KAGGLE = "challenges-in-representation-learning-facial-expression-recognition-challenge or msambare/fer2013"


def create_parser(description: str) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--data`, which `load_data` reads."""
    parser.add_argument(
        "--data",
        default=os.environ.get("FER2013"),
        help="FER2013: a Hub dataset id, a folder or a Kaggle CSV (default: $FER2013, else data/fer2013)",
    )


def source_of(args: argparse.Namespace) -> str | Path:
    """What `load_fer2013` is to read.

    Raises:
        DataError: It is not named, and does not lie where it is looked for.
    """
    if not args.data and not DEFAULT_DATA.exists():
        raise DataError(
            f"where is FER2013? Put fer2013.csv or the image folders into {DEFAULT_DATA}, a folder (Kaggle's "
            f"{KAGGLE}), set $FER2013, or give --data a path or the id of a dataset on the Hub"
        )
    return args.data or DEFAULT_DATA


def load_data(args: argparse.Namespace, strict: bool = True) -> Fer2013:
    """FER2013 as the arguments name it.

    Args:
        args: With `data`.
        strict: Refuse data of other class counts than the published ones, and lossy copies, whose figures
            would not be FER2013's; else say of the counts and go on.

    Raises:
        DataError: It is missing or is not FER2013.
    """
    source = source_of(args)
    if str(source).endswith(PACK):
        data = read_pack(Path(source))
    else:
        dataset = load_fer2013(source, check_counts=strict)
        if not strict and (wrong := wrong_counts(dataset)):
            print(f"note: {source}: {wrong}", file=sys.stderr)
        data = Fer2013.of(dataset)
    if strict and data.lossy:
        raise DataError(
            f"{source} is a lossy copy, such as JPEG: the zoo's figures are of FER2013's own pixels"
        )
    return data


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `fit.py` and `cv.py` share; `recipe_of` reads those that stand in place of the recipe's."""
    parser.add_argument("--recipe", default="paper", help="a name in train/recipes or a .toml file")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--batch-size", type=int, help="in place of the recipe's, over all processes")
    parser.add_argument("--seed", type=int, help="in place of the recipe's")
    parser.add_argument("--precision", choices=PRECISIONS, help="in place of the recipe's, on all machines")
    parser.add_argument("--pretrained", action="store_true", help="start from the model's weights")
    parser.add_argument(
        "--input-size", type=_size, help="enlarge the images to this height and width (default: 48)"
    )
    parser.add_argument(
        "--tracker", help="log to tensorboard, wandb, trackio or another that Accelerate knows"
    )


def _size(text: str) -> int:
    if (size := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {size}")
    return size


def recipe_of(args: argparse.Namespace) -> Recipe:
    """The recipe as the arguments name it, in the precision that is faster here.

    Raises:
        RecipeError: It cannot be read, or is one with a teacher, and none is given.
    """
    keys = ("epochs", "batch_size", "seed", "precision")
    recipe = load_recipe(args.recipe, **{key: getattr(args, key) for key in keys})
    if recipe.teacher_share not in (0, Recipe.teacher_share) and not getattr(args, "teacher", None):
        raise RecipeError(f"the recipe {args.recipe} wants a teacher: train/fit.py --teacher gives it one")
    return choose_precision(recipe)


def run(main: Callable[[], int | None]) -> None:
    """Runs a script's main; a user's error becomes one sentence and exit code 2, Ctrl-C exit code 130, and so
    does SIGTERM, with which a cluster ends a job."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    keep_freed_memory()
    exact_fp32()
    try:
        sys.exit(main())
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: a training or search goes on where it was by the same command", file=sys.stderr)
        sys.exit(130)
