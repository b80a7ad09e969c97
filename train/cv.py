"""Cross-validates models on FER2013's training split, in folds that do not leak.

    accelerate launch train/cv.py
    accelerate launch train/cv.py --model fer_cnn fer_kernel_cnn --data SOURCE --folds 3
    accelerate launch train/cv.py --parallel folds     # each process takes whole folds

All models share the folds: stratified by label, equal images kept together. Each fold's epoch is chosen on
clean validation, and the fold itself is scored once. Started again with the same arguments, interrupted folds
go on where they stopped. The folder --out then holds, for each model, a run directory a fold and
out_of_fold.parquet, and for all of them summary.json and curves.png.
"""

import argparse
import os
import sys
from functools import partialmethod
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from accelerate.utils import parse_flag_from_env
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.folds import FoldError, leak_free_folds
from train.cli import add_data_arguments, add_training_arguments, create_parser, load_data, recipe_of, run
from train.curves import draw_curves
from train.dataset import Fer2013
from train.files import write_json
from train.fit import train_model
from train.hardware import create_accelerator, out_of_memory
from train.networks import check_name
from train.predict import predict
from train.recipe import Recipe, settings_of
from train.run_dir import RESULT, RunError, changed, finished
from train.summary import curves_of, summarize, table
from train.teacher import write_probabilities, write_table

PREDICTIONS = "out_of_fold.parquet"


def parse_args() -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument(
        "--model", nargs="+", default=["fer_cbam"], help="names of timm's (default: fer_cbam)"
    )
    add_data_arguments(parser)
    add_training_arguments(parser)
    parser.add_argument("--folds", type=int, default=3, help="number of folds (default: %(default)s)")
    parser.add_argument("--fold", type=int, help="only this one, counted from 1, as in a cluster's job array")
    parser.add_argument("--out", type=Path, help="folder of the runs (default: runs/cv-RECIPE-SEED)")
    parser.add_argument(
        "--parallel", choices=("images", "folds"), default="images", help="what the processes share out"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    recipe = recipe_of(args)
    args.model = list(dict.fromkeys(args.model))
    for name in args.model:
        check_name(name)
        if args.pretrained and name.startswith("fer_"):
            raise FoldError(f"--pretrained would leak: the weights of {name} have learnt every fold's faces")
    if args.folds < 2:  # said before the data are read
        raise FoldError(f"cross-validation needs at least 2 folds, not {args.folds}")
    if args.fold is not None and not 1 <= args.fold <= args.folds:
        raise FoldError(f"--fold must be from 1 to {args.folds}, not {args.fold}")
    out = args.out or Path("runs") / f"cv-{Path(args.recipe).stem}-{recipe.seed}"
    rank, world = _take_apart() if args.parallel == "folds" else (0, 1)
    if world > 1:  # a bar a process, one below another
        tqdm.__init__ = partialmethod(tqdm.__init__, position=rank)
    accelerator = create_accelerator(recipe, args.tracker, out, alone=world == 1)
    with accelerator.main_process_first():
        data = load_data(args, strict=False)
    train = data["train"]
    folds = leak_free_folds(train.labels, train.hashes, args.folds, recipe.seed)

    chosen = [args.fold] if args.fold else range(1, args.folds + 1)
    jobs = [(name, fold) for name in args.model for fold in chosen]
    for name, fold in jobs[rank::world]:
        train_fold(name, fold, folds, data, recipe, accelerator, args, out / name / f"fold-{fold}")
    if not accelerator.is_main_process:
        return
    missing = [
        f"{name} fold {fold}"
        for name in args.model
        for fold in range(1, args.folds + 1)
        if not (out / name / f"fold-{fold}" / PREDICTIONS).exists()
    ]
    if missing:
        print(f"the summary waits for {', '.join(missing)}")
        return
    config = {"recipe": Path(args.recipe).stem, "folds": args.folds, "train_images": len(train)}
    finish(out, args.model, args.folds, config)


def train_fold(
    name: str,
    fold: int,
    folds: np.ndarray,
    data: Fer2013,
    recipe: Recipe,
    accelerator: Accelerator,
    args: argparse.Namespace,
    run_dir: Path,
) -> None:
    """Trains on all folds but one, and writes that one's probabilities beside the run."""
    held_out = folds == fold - 1
    train, validation = data["train"], data["validation"][data.clean("validation")]
    config = {"data": data.fingerprint, "folds": args.folds, "recipe_name": Path(args.recipe).stem}
    file = run_dir / PREDICTIONS
    if accelerator.is_main_process and not (run_dir / RESULT).exists():
        file.unlink(missing_ok=True)  # of a run that was removed
    model, _ = train_model(
        name,
        train[~held_out],
        validation,
        recipe,
        accelerator,
        run_dir,
        pretrained=args.pretrained,
        input_size=args.input_size,
        fold=fold,
        config=config,
    )
    if file.exists():
        return
    rows = np.flatnonzero(held_out)
    images = torch.from_numpy(train.images[rows]).unsqueeze(1).to(accelerator.device)
    with out_of_memory(recipe.batch_size):
        logits = predict(model.to(accelerator.device), images, accelerator).cpu()
    if accelerator.is_main_process:
        probs = logits.softmax(1).numpy()
        write_probabilities(file, rows, train[rows], probs, fold=np.full(len(rows), fold))
    accelerator.wait_for_everyone()


def finish(out: Path, models: list[str], folds: int, config: dict) -> None:
    """Joins the folds' predictions, and writes and prints what they amount to.

    Args:
        out: The folder of all runs.
        models: Those whose folds are finished; others of the same settings in there are summarised, too.
        folds: Their number.
        config: What goes into the summary beside the runs' own settings.

    Raises:
        RunError: A fold is of another run: of another seed, recipe, data, versions, precision or division.
    """
    runs = {name: _runs(out, name, folds) for name in models}
    first = runs[models[0]][0]
    run_config, _ = finished(first)
    for run_dir in (run_dir for parts in runs.values() for run_dir in parts):
        if found := _differences(run_config, run_dir):
            raise RunError(f"{run_dir} is another run than {first}: {'; '.join(found)}")
    for name in sorted(path.name for path in out.iterdir() if path.name not in runs):
        parts = _runs(out, name, folds)
        if all((part / PREDICTIONS).exists() and not _differences(run_config, part) for part in parts):
            runs[name] = parts
    predictions = {
        name: pa.concat_tables([pq.read_table(part / PREDICTIONS) for part in parts]).sort_by("image")
        for name, parts in runs.items()
    }
    division = predictions[models[0]].select(["image", "fold"])
    whole = division["image"].to_pylist() == list(range(config["train_images"]))
    unlike = [name for name in runs if not predictions[name].select(["image", "fold"]).equals(division)]
    if not whole or not set(unlike).isdisjoint(models):
        raise RunError(
            f"the folds of {', '.join(models)}, in {out}, are not of one division of the images: train all "
            "with the same version of scikit-learn"
        )
    for name in unlike:
        del runs[name], predictions[name]
    for name, joined in predictions.items():
        write_table(out / name / PREDICTIONS, joined)
    common = {key: run_config[key] for key in ("data", "input_size", "pretrained")}
    summary = config | {"settings": run_config["recipe"]} | common | {"models": summarize(runs, predictions)}
    write_json(out / "summary.json", summary)
    draw_curves(curves_of(summary), f"Cross-validation, recipe {summary['recipe']}", out / "curves.png")
    print(table(summary))
    print(f"written: {out / 'summary.json'}, {out / 'curves.png'}")


def _runs(out: Path, name: str, folds: int) -> list[Path]:
    return [out / name / f"fold-{fold}" for fold in range(1, folds + 1)]


def _differences(config: dict, run_dir: Path) -> list[str]:
    """In what the settings of a finished run differ from a config, but in network, its weights and fold."""
    ours, theirs = (each | {"recipe": settings_of(each["recipe"])} for each in (config, finished(run_dir)[0]))
    return [
        f"{key} is {there} in place of {here}"
        for key, here, there in changed(ours, theirs)
        if key not in ("model", "weights", "fold")
    ]


def _take_apart() -> tuple[int, int]:
    """Makes each launched process one of its own, on its own device; returns its rank and their number.

    Accelerate reads these variables when it starts, so this must happen before.
    """
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = os.environ.get("LOCAL_RANK")
    if world > 1:
        for variable in (
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "LOCAL_WORLD_SIZE",
            "MASTER_ADDR",
            "MASTER_PORT",
        ):
            os.environ.pop(variable, None)
        if torch.cuda.is_available() and local and not parse_flag_from_env("ACCELERATE_USE_CPU"):
            device = int(local) % torch.cuda.device_count()  # several processes may share one
            torch.cuda.set_device(device)
            os.environ["ACCELERATE_TORCH_DEVICE"] = f"cuda:{device}"
    return rank, world


if __name__ == "__main__":
    run(main)
