"""Trains one model on train and chooses its epoch on clean validation.

    accelerate launch train/fit.py --model fer_cbam --data SOURCE

Started again with the same arguments, an interrupted run goes on where it stopped.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import timm
from accelerate.utils import set_seed

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import fer_zoo
from fer_zoo.data import fingerprint, seen_in, to_arrays
from train.cli import add_data_arguments, create_parser, load_data, run
from train.engine import RunError, Split, create_accelerator, fit
from train.recipe import load_recipe


def parse_args() -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument(
        "--model", default="fer_cbam", help="a registered architecture (default: %(default)s)"
    )
    add_data_arguments(parser)
    parser.add_argument("--recipe", default="paper", help="a name in train/recipes or a .toml file")
    parser.add_argument("--epochs", type=int, help="in place of the recipe's")
    parser.add_argument("--seed", type=int, help="in place of the recipe's")
    parser.add_argument("--out", type=Path, help="the run's directory (default: runs/MODEL-RECIPE-SEED)")
    parser.add_argument(
        "--compile", action="store_true", help="fuse CBAM by torch.compile (a CPU needs a C++ compiler)"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    recipe = load_recipe(args.recipe, epochs=args.epochs, seed=args.seed)
    accelerator = create_accelerator(recipe)
    zoo = timm.list_models("fer_*")
    if args.model not in zoo:
        raise RunError(f"no model {args.model!r}: the zoo has {', '.join(zoo)}")

    with accelerator.main_process_first():
        data = load_data(args)
    train_images, train_labels = to_arrays(data["train"])
    images, labels = to_arrays(data["validation"])
    clean = ~seen_in(images, train_images)

    set_seed(recipe.seed)
    drop_rate = {} if recipe.drop_rate is None else {"drop_rate": recipe.drop_rate}
    result = fit(
        fer_zoo.create_model(args.model, **drop_rate),
        Split(train_images, train_labels, accelerator.device),
        Split(images[clean], labels[clean], accelerator.device),
        recipe,
        accelerator,
        args.out or Path("runs") / f"{args.model}-{Path(args.recipe).stem}-{recipe.seed}",
        config={"model": args.model, "data": fingerprint(data), "git": git_revision()},
        compile_attention=args.compile,
    )
    best, images = result["best"], result["validation_images"]
    accelerator.print(
        f"{args.model}: {best['val_accuracy']:.2f} % of {images:,} clean validation images, "
        f"epoch {best['epoch']} of {result['epochs']}, {result['train_seconds'] / 60:.1f} minutes"
    )


def git_revision() -> str | None:
    """The commit of this checkout, or None outside one."""
    root = Path(__file__).resolve().parent
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


if __name__ == "__main__":
    run(main)
