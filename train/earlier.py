"""Keeps what is known of trainings whose weight file has been replaced, from the history of this repository.

    python train/earlier.py --run fer_cbam-strong-mix --file fer_cbam.fer2013 --commit 1f7fc40f05

That results file, as it was at that commit, gives the run's record in model_cards/results/earlier_runs.json:
what it cost, and what its weights read.
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import create_parser, run
from train.evaluate import judged, labels_of
from train.ferplus import judging
from train.files import RESULTS_DIR, write_json

FILE = RESULTS_DIR / "earlier_runs.json"
SPLITS = ("validation_clean", "test", "test_clean")


def accuracy(results: dict) -> dict[str, float]:
    """What a results file says of those of `SPLITS` that were read, in percent, against the labels learnt."""
    learnt = labels_of(results["run"])
    return {
        split: judged(results, split)["accuracy"]
        for split in SPLITS
        if judging(split, learnt) in results["splits"]
    }


def record(file: str, commit: str) -> dict:
    """The run behind a results file.

    Args:
        file: The weights' name, such as "fer_cbam.fer2013".
        commit: Where the file was so.

    Raises:
        ValueError: There is no such file at such a commit, in what this clone has of the history.
    """
    place = f"{commit}:{(RESULTS_DIR / f'{file}.json').relative_to(RESULTS_DIR.parent.parent)}"
    try:
        shown = subprocess.run(
            ["git", "-C", RESULTS_DIR, "show", place], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"git shows no {place}: give a commit of this clone's history that has the file"
        ) from error
    results = json.loads(shown.stdout)
    result = results["run"]["result"]
    return {
        "epochs": result["epochs"],
        "train_images": result["train_images"],
        "train_seconds": result["train_seconds"],
        "hardware": results["run"]["config"]["hardware"],
        "accuracy": accuracy(results),
        "file": file,
        "commit": commit,
    }


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--run", required=True, metavar="NETWORK-RECIPE", help="what the record is called")
    parser.add_argument("--file", required=True, help="the weights' name")
    parser.add_argument("--commit", required=True, help="where their results file is that of the run")
    args = parser.parse_args()
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    write_json(FILE, kept | {args.run: record(args.file, args.commit)})


if __name__ == "__main__":
    run(main)
