"""What the scripts share at the command line: the data argument, and one sentence for an error."""

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from fer_zoo.data import load_fer2013

if TYPE_CHECKING:
    import datasets


def create_parser(description: str) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring as it is written."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--data` and `--other-counts`, which `load_data` reads."""
    parser.add_argument("--data", required=True, help="FER2013: a Hub dataset id, a folder or a Kaggle CSV")
    parser.add_argument(
        "--other-counts", action="store_true", help="accept data of other class counts than FER2013's"
    )


def load_data(args: argparse.Namespace) -> "datasets.DatasetDict":
    """FER2013 as the arguments name it."""
    return load_fer2013(args.data, check_counts=not args.other_counts)


def run(main: Callable[[], int | None]) -> None:
    """Runs a script's main; a user's error becomes one sentence and exit code 2, Ctrl-C exit code 130."""
    try:
        sys.exit(main())
    except (ImportError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on after the last finished epoch", file=sys.stderr)
        sys.exit(130)
