"""Trains one model on train and chooses its epoch on clean validation.

    accelerate launch train/fit.py --model fer_cbam --data SOURCE
    accelerate launch train/fit.py --model fer_cbam --pretrained --images FOLDER

With --images it learns the classes of any folder of faces, one folder a class; with --labels ferplus what
the annotators of FER+ saw, in shares; with --teacher besides the labels what other networks made of the
training images. Started again with the same arguments, an interrupted run goes on where it stopped.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.data import DataError
from fer_zoo.identity import fingerprint
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import sort_classifier
from train.cli import add_data_arguments, add_training_arguments, create_parser, load_data, recipe_of, run
from train.dataset import Arrays, load_image_folder
from train.engine import Split, fit
from train.ferplus import clean_validation, learn_votes
from train.files import sha256, tensors_sha256
from train.hardware import create_accelerator, out_of_memory
from train.lineage import run_name
from train.live_teacher import LiveTeacher
from train.networks import check_name, check_size, create_network
from train.recipe import Recipe
from train.run_dir import WEIGHTS, RunError, finished, read_weights
from train.teacher import read_probabilities, taught


def parse_args() -> argparse.Namespace:
    parser = create_parser(__doc__)
    parser.add_argument("--model", default="fer_cbam", help="any name of timm's (default: %(default)s)")
    add_data_arguments(parser)
    parser.add_argument(
        "--images", type=Path, help="in place of FER2013: a folder of faces, a folder a class"
    )
    parser.add_argument(
        "--labels", choices=("fer2013", "ferplus"), default="fer2013", help="whose (default: %(default)s)"
    )
    parser.add_argument(
        "--teacher",
        nargs="+",
        metavar="FILE|NAME",
        help="parquet of probabilities, of train/cv.py or train/teacher.py; or networks, as fer_net.fer2013 "
        "or a file of weights, which judge each image as it is augmented",
    )
    add_training_arguments(parser)
    parser.add_argument(
        "--start",
        type=Path,
        metavar="RUN",
        help="the directory of a finished run whose weights to start from",
    )
    parser.add_argument("--out", type=Path, help="the run's directory (default: runs/MODEL-RECIPE-SEED)")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    recipe = recipe_of(args)
    if args.pretrained and args.start:
        raise ValueError("--pretrained and --start are two weights to start from: give one of them")
    check_name(args.model)
    out = args.out or Path("runs") / run_name(args.model, Path(args.recipe).stem, recipe.seed)
    files, networks = _teachers(args.teacher or ())
    teacher = LiveTeacher(networks) if networks else None
    accelerator = create_accelerator(recipe, args.tracker, out)
    with accelerator.main_process_first():
        train, validation, labels, config = _faces(args, recipe, files)
    if teacher:
        config["teacher"] = teacher.digests
    if args.images:
        accelerator.print(f"classes: {', '.join(labels)}", flush=True)
    _, result = train_model(
        args.model,
        train,
        validation,
        recipe,
        accelerator,
        out,
        pretrained=args.pretrained,
        input_size=args.input_size,
        labels=labels,
        start=args.start,
        teacher=teacher,
        config=config | {"recipe_name": Path(args.recipe).stem},
    )
    best, images = result["best"], result["validation_images"]
    accelerator.print(
        f"{args.model}: {best['val_accuracy']:.2f} % of {images:,} clean validation images, "
        f"epoch {best['epoch']} of {result['epochs']}, {result['train_seconds'] / 60:.1f} minutes"
    )


def train_model(
    name: str,
    train: Arrays,
    validation: Arrays,
    recipe: Recipe,
    accelerator: Accelerator,
    out: Path,
    *,
    pretrained: bool = False,
    input_size: int | None = None,
    labels: tuple[str, ...] = EXPRESSIONS,
    fold: int = 0,
    start: Path | None = None,
    teacher: LiveTeacher | None = None,
    config: dict,
) -> tuple[nn.Module, dict]:
    """Makes a network and trains it, or goes on with it, as `train.engine.fit` says.

    Args:
        name: Any of timm's names.
        train: What to learn from.
        validation: What the epoch is chosen on.
        recipe: The recipe.
        accelerator: From `create_accelerator`.
        out: The run's directory.
        pretrained: Start from the network's published weights.
        input_size: Height and width to enlarge the images to.
        labels: The classes.
        fold: Counted from 1; 0 for none.
        start: The directory of a finished run whose weights to start from.
        teacher: Asked in every step.
        config: What else determines the run, such as the data's fingerprint.

    Returns:
        The network with the weights of the best epoch, and the run's result.

    Raises:
        RunError: `start` is no finished run of such a network, the recipe is not for such a teacher, the
            memory is full, or `fit` cannot go on.
        ModelError: The network takes other images than its teacher.
    """
    if "." in name and not pretrained:
        note = f"note: the weights of {name} are not used: --pretrained starts from them"
        accelerator.print(note, file=sys.stderr)
    set_seed(1000 * recipe.seed + fold)  # no fold starts as one of another seed does
    model = create_network(
        name,
        pretrained=pretrained,
        labels=labels,
        input_size=input_size,
        drop_rate=recipe.drop_rate,
        drop_path_rate=recipe.drop_path_rate,
    )
    if recipe.small_epochs:  # of the full size the network was tried when it was made
        smallest = recipe.size_in(0, tuple(model.pretrained_cfg["input_size"][1:]))
        check_size(name, model, smallest, "choose a recipe that is not progressive")
    if teacher:
        teacher.check(model.pretrained_cfg)
        if recipe.small_epochs:
            raise RunError("a network teaches at one size of image: choose a recipe that is not progressive")
    if start:
        start_from(start, model, labels)
        config = config | {"start": sha256(start / WEIGHTS)}
    if pretrained:
        head = model.pretrained_cfg["classifier"]  # one name or several; it may have started anew
        body = (value for key, value in model.state_dict().items() if not key.startswith(head))
        config = config | {"weights": tensors_sha256(body)}
    config = config | {
        "model": name,
        "pretrained": pretrained,
        "input_size": input_size,
        "label_names": labels,
        "git": git_revision(),
    }
    with out_of_memory(recipe.batch_size):
        splits = [Split(arrays, accelerator.device) for arrays in (train, validation)]
        return model, fit(model, *splits, recipe, accelerator, out, config, fold, teacher)


def start_from(run_dir: Path, model: nn.Module, labels: tuple[str, ...]) -> None:
    """Gives a network of as many labels the weights of a finished run; others than the run's start anew.

    Raises:
        RunError: It is no finished run, or one of another network.
    """
    config, _ = finished(run_dir)
    classes = len(config["label_names"])
    try:
        model.load_state_dict(read_weights(run_dir))
    except RuntimeError as error:
        raise RunError(
            f"{run_dir} is a run of {config['model']} on {classes} classes: its weights do not fit"
        ) from error
    sort_classifier(model, tuple(config["label_names"]), labels)


def _faces(
    args: argparse.Namespace, recipe: Recipe, files: Sequence[Path]
) -> tuple[Arrays, Arrays, tuple[str, ...], dict]:
    """Train, clean validation, the names of the classes, and what names all this in a run's config."""
    if args.images:
        if args.teacher or args.labels != "fer2013":
            raise DataError("--images brings labels of its own: --teacher and --labels go with FER2013 only")
        if args.data != os.environ.get("FER2013"):
            raise ValueError("--images and --data are two sources of faces: give one of them")
        train, validation, labels = load_image_folder(args.images, args.input_size or 48)
        hashes = {"train": (train.labels, train.hashes), "validation": (validation.labels, validation.hashes)}
        clean = validation[~np.isin(validation.hashes, train.hashes)]
        if not len(clean):
            raise DataError(f"{args.images}: every validation image stands in train, too")
        return train, clean, labels, {"data": fingerprint(hashes)}
    if args.teacher and args.labels != "fer2013":
        raise DataError("--teacher goes with the labels of FER2013 only")
    data = load_data(args, strict=False)
    config = {"data": data.fingerprint, "labels": args.labels}
    if args.labels == "ferplus":
        learnt = learn_votes(data)
        votes = (torch.from_numpy(data.votes[split]) for split in ("train", "validation"))
        return *learnt, EXPRESSIONS, config | {"votes": tensors_sha256(votes)}
    train, validation = data["train"], clean_validation(data, args.labels)
    if files:
        train = taught(train, read_probabilities(files, train), recipe.teacher_share)
        config["teacher"] = [sha256(file) for file in files]
    return train, validation, EXPRESSIONS, config


def _teachers(given: Sequence[str]) -> tuple[list[Path], list[str]]:
    """--teacher as files of probabilities and as networks, of which one is empty.

    Raises:
        ValueError: Neither is.
    """
    files = [Path(name) for name in given if name.endswith(".parquet")]
    networks = [name for name in given if not name.endswith(".parquet")]
    if files and networks:
        raise ValueError("--teacher takes either parquet files or networks")
    return files, networks


def git_revision() -> str | None:
    """The commit of this checkout, -dirty where files differ from it; None outside one or without git."""
    root = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except OSError:  # there is no git
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    run(main)
