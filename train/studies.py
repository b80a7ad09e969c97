"""Gathers the course paper's side studies: a network trained by variants of the paper's recipe.

    python train/studies.py runs/fer_cbam-paper{,-30,-l2,-weights}-0 --data SOURCE

Each run's learning curve and what its best epoch reads on clean validation go into
model_cards/results/studies.json, beside the networks that are there already; from it `train/report.py` judges
the paper's claims. Nothing is read from test.
"""

import json
import sys
from pathlib import Path

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.metrics import scores
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Fer2013
from train.ferplus import clean_validation
from train.files import RESULTS_DIR, write_json
from train.networks import network_of
from train.predict import predict
from train.recipe import load_recipe
from train.run_dir import check_learnt, finished, read_history

FILE = RESULTS_DIR / "studies.json"
MODELS = ("fer_cnn", "fer_cbam")  # the paper's baseline, and its best, of which it speaks
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
        RunError: The run is not finished, or learnt other data.
    """
    config, result = finished(run_dir)
    check_learnt(run_dir, config, data.fingerprint)
    clean = clean_validation(data, "fer2013")
    logits = predict(network_of(run_dir), torch.from_numpy(clean.images).unsqueeze(1))
    figures = scores(logits, torch.from_numpy(clean.labels))
    return {
        "config": config,
        "result": result,
        "history": read_history(run_dir),
        "validation_clean": {key: figures[key] for key in FIGURES},
    }


def check(model: str, studies: list[dict]) -> None:
    """Refuses what cannot be published as the side studies of one network.

    Raises:
        ValueError: It is none of `MODELS`, or they are not one whole run of each recipe, all of one seed and
            precision.
    """
    if model not in MODELS:
        raise ValueError(f"the side studies are of {' and '.join(MODELS)}, not of {model}")
    names = sorted(study["config"]["recipe_name"] for study in studies)
    if names != sorted(RECIPES):
        raise ValueError(
            f"the studies of {model} are one run of each of {', '.join(RECIPES)}, not {', '.join(names)}"
        )
    for config in (study["config"] for study in studies):
        name, wanted = config["recipe_name"], load_recipe(config["recipe_name"])
        if config["labels"] != "fer2013":
            raise ValueError(f"the run of {name} did not learn the labels of FER2013")
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
    args.out.parent.mkdir(parents=True, exist_ok=True)
    data = load_data(args, strict=published)
    found: dict[str, list[dict]] = {}
    for run_dir in tqdm(args.runs, unit="run"):
        row = study(run_dir, data)
        found.setdefault(row["config"]["model"], []).append(row)
    if published:
        for model, rows in found.items():
            check(model, rows)
    studies = json.loads(args.out.read_text()) if args.out.exists() else {}
    for model, rows in found.items():
        studies[model] = {row["config"]["recipe_name"]: row for row in rows}
        for name, row in studies[model].items():
            figures = row["validation_clean"]
            print(
                f"{model}, {name}: {figures['accuracy']:.2f} % on clean validation, "
                f"macro-F1 {figures['macro_f1']:.2f} %"
            )
    write_json(args.out, studies)


if __name__ == "__main__":
    run(main)
