"""Trains one model on train and chooses its epoch on clean validation.

    accelerate launch train/fit.py --model fer_cbam --data SOURCE
    accelerate launch train/fit.py --model fer_cbam --pretrained --images FOLDER

With --images it learns the classes of any folder of faces, one folder a class. Started again with the same
arguments, an interrupted run goes on where it stopped.
"""

import argparse
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
from accelerate.utils import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.labels import EXPRESSIONS
from train.cli import add_data_arguments, add_training_arguments, create_parser, load_data, recipe_of, run
from train.dataset import Arrays, load_image_folder
from train.engine import Split, fit
from train.hardware import create_accelerator
from train.networks import check_name, create_network


def parse_args() -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument("--model", default="fer_cbam", help="any name of timm's (default: %(default)s)")
    add_data_arguments(parser)
    parser.add_argument(
        "--images", type=Path, help="in place of FER2013: a folder of faces, a folder a class"
    )
    add_training_arguments(parser)
    parser.add_argument("--out", type=Path, help="the run's directory (default: runs/MODEL-RECIPE-SEED)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    recipe = recipe_of(args)
    check_name(args.model)
    out = args.out or Path("runs") / f"{args.model}-{Path(args.recipe).stem}-{recipe.seed}"
    accelerator = create_accelerator(recipe, args.tracker, out)
    with accelerator.main_process_first():
        train, validation, labels, source = _faces(args)
    set_seed(recipe.seed)
    result = fit(
        create_network(
            args.model,
            pretrained=args.pretrained,
            labels=labels,
            input_size=args.input_size,
            drop_rate=recipe.drop_rate,
        ),
        Split(train.images, train.labels, accelerator.device),
        Split(validation.images, validation.labels, accelerator.device),
        recipe,
        accelerator,
        out,
        config={
            "model": args.model,
            "pretrained": args.pretrained,
            "input_size": args.input_size,
            "label_names": labels,
            "data": source,
            "git": git_revision(),
        },
    )
    best, images = result["best"], result["validation_images"]
    accelerator.print(
        f"{args.model}: {best['val_accuracy']:.2f} % of {images:,} clean validation images, "
        f"epoch {best['epoch']} of {result['epochs']}, {result['train_seconds'] / 60:.1f} minutes"
    )


def _faces(args: argparse.Namespace) -> tuple[Arrays, Arrays, tuple[str, ...], str]:
    """Train, clean validation, the names of the classes, and what names this data."""
    if args.images:
        train, validation, labels = load_image_folder(args.images, args.input_size or 48)
        return (
            train,
            validation[~np.isin(validation.hashes, train.hashes)],
            labels,
            _digest(train, validation),
        )
    data = load_data(args, strict=False)
    return data["train"], data["validation"][data.clean("validation")], EXPRESSIONS, data.fingerprint


def _digest(*splits: Arrays) -> str:
    rows = [
        f"{label} {pixels}"
        for split in splits
        for label, pixels in zip(split.labels, split.hashes, strict=True)
    ]
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def git_revision() -> str | None:
    """The commit of this checkout, or None outside one."""
    root = Path(__file__).resolve().parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


if __name__ == "__main__":
    run(main)
