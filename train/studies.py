"""Gathers the course paper's side studies: its best network by variants of its recipe.

    python train/studies.py runs/fer_cbam-paper{,-30,-l2,-weights}-0 --data SOURCE

Each run's learning curve and what its best epoch reads on clean validation go into
model_cards/results/studies.json, from which `train/report.py` judges the paper's claims. Nothing is read from
test.
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.metrics import scores
from train.cli import add_data_arguments, create_parser, load_data, run
from train.curves import read_history
from train.dataset import Fer2013
from train.engine import predict
from train.evaluate import RESULTS_DIR
from train.ferplus import clean_validation
from train.files import write_atomic
from train.networks import create_network
from train.recipe import load_recipe
from train.run_dir import finished, read_weights

FILE = RESULTS_DIR / "studies.json"
MODEL = "fer_cbam"
RECIPES = ("paper", "paper-30", "paper-l2", "paper-weights")
FIGURES = ("n", "accuracy", "accuracy_ci95", "macro_f1", "recall", "nll")


def study(run_dir: Path, data: Fer2013) -> dict:
    """One run.

    Args:
        run_dir: Of a finished run of `train/fit.py`.
        data: What its best epoch is scored on.

    Returns:
        JSON-able: the run's `config` and `result`, the `history` of its epochs, and `validation_clean`, the
        figures of its best epoch.

    Raises:
        RunError: The run is not finished.
        ValueError: It learnt other data.
    """
    config, result = finished(run_dir)
    if config["data"] != data.fingerprint:
        raise ValueError(f"{run_dir} learnt other data than --data names")
    model = create_network(config["model"], input_size=config["input_size"])
    model.load_state_dict(read_weights(run_dir))
    clean = clean_validation(data, "fer2013")
    logits = predict(model, torch.from_numpy(clean.images).unsqueeze(1))
    figures = scores(logits, torch.from_numpy(clean.labels))
    return {
        "config": config,
        "result": result,
        "history": read_history(run_dir),
        "validation_clean": {key: figures[key] for key in FIGURES},
    }


def check(studies: list[dict]) -> None:
    """Refuses what cannot be published as the side studies.

    Raises:
        ValueError: They are not one whole run of each recipe, all of one network, seed and precision.
    """
    names = sorted(study["config"]["recipe_name"] for study in studies)
    if names != sorted(RECIPES):
        raise ValueError(f"the studies are one run of each of {', '.join(RECIPES)}, not {', '.join(names)}")
    for config in (study["config"] for study in studies):
        name, wanted = config["recipe_name"], load_recipe(config["recipe_name"])
        if (config["model"], config["fold"], config["labels"]) != (MODEL, 0, "fer2013"):
            raise ValueError(f"the run of {name} is not one of {MODEL} on FER2013's training split")
        if (config["recipe"]["epochs"], config["recipe"]["seed"]) != (wanted.epochs, wanted.seed):
            raise ValueError(f"the run of {name} is not of its {wanted.epochs} epochs and seed {wanted.seed}")
    precisions = {study["config"]["recipe"]["precision"] for study in studies}
    if len(precisions) > 1:
        raise ValueError(f"the runs are of different precisions: {', '.join(sorted(precisions))}")


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="the directories of finished runs")
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file (default: %(default)s)")
    args = parser.parse_args()
    published = args.out.resolve() == FILE.resolve()
    data = load_data(args, strict=published)
    found = [study(run_dir, data) for run_dir in args.runs]
    if published:
        check(found)
    studies = {row["config"]["recipe_name"]: row for row in found}
    write_atomic(args.out, json.dumps(studies, indent=2) + "\n")
    for name, row in studies.items():
        figures = row["validation_clean"]
        print(
            f"{name}: {figures['accuracy']:.2f} % on clean validation, macro-F1 {figures['macro_f1']:.2f} %"
        )


if __name__ == "__main__":
    run(main)
