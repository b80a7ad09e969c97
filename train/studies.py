"""Gathers the course paper's side studies: its best network by variants of its recipe.

    python train/studies.py runs/fer_cbam-paper-{30,l2,weights}-0 --data SOURCE

Each run's learning curve and what its best epoch reads on clean validation go into
model_cards/results/studies.json, from which `train/report.py` judges the paper's claims. Nothing is read from
test. The paper's own 20 epochs need no run of their own here: at a constant learning rate they are the first
20 of 30.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.metrics import scores
from train.cli import add_data_arguments, create_parser, load_data, run
from train.curves import read_history
from train.dataset import Fer2013
from train.engine import predict
from train.evaluate import RESULTS_DIR
from train.files import write_atomic
from train.networks import create_network

FILE = RESULTS_DIR / "studies.json"
FIGURES = ("accuracy", "accuracy_ci95", "macro_f1", "recall", "nll")


def study(run_dir: Path, data: Fer2013) -> dict:
    """One run.

    Args:
        run_dir: Of a finished run of `train/fit.py`.
        data: What its best epoch is scored on.

    Returns:
        JSON-able: the run's `config` and `result`, the `history` of its epochs, and `validation_clean`, the
        figures of its best epoch.

    Raises:
        ValueError: The run is not finished, or learnt other data.
    """
    if not (run_dir / "result.json").exists():
        raise ValueError(f"{run_dir} is not a finished run: it has no result.json")
    config, result = (json.loads((run_dir / f"{name}.json").read_text()) for name in ("config", "result"))
    if config["data"] != data.fingerprint:
        raise ValueError(f"{run_dir} learnt other data than --data names")
    model = create_network(config["model"], input_size=config["input_size"])
    model.load_state_dict(load_file(run_dir / "model.safetensors"))
    clean = data["validation"][data.clean("validation")]
    figures = scores(
        predict(model.eval(), torch.from_numpy(clean.images).unsqueeze(1)), torch.from_numpy(clean.labels)
    )
    return {
        "config": config,
        "result": result,
        "history": read_history(run_dir),
        "validation_clean": {"n": figures["n"]} | {key: figures[key] for key in FIGURES},
    }


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="the directories of finished runs")
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, default=FILE, help="the JSON file (default: %(default)s)")
    args = parser.parse_args()
    data = load_data(args, strict=args.out.resolve() == FILE.resolve())
    studies = {}
    for run_dir in args.runs:
        found = study(run_dir, data)
        name, figures = found["config"]["recipe_name"], found["validation_clean"]
        studies[name] = found
        print(
            f"{name}: {figures['accuracy']:.2f} % on clean validation, macro-F1 {figures['macro_f1']:.2f} %"
        )
    write_atomic(args.out, json.dumps(studies, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
