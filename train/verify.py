"""Scores every packaged weight file again and compares it with its results file.

    python train/verify.py --data SOURCE

Figures may differ by two images, since sums are ordered differently from machine to machine.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.data import DataError
from fer_zoo.models import WEIGHTS_DIR
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Fer2013
from train.evaluate import evaluate, packaged
from train.files import RESULTS_DIR, sha256

TOLERANCE_IMAGES = 2


def differences(path: Path, data: Fer2013) -> list[str]:
    """Everything in which the weight file at `path` differs from its results file; empty where they agree."""
    file = RESULTS_DIR / f"{path.stem}.json"
    if not file.exists():
        return ["it has no results file"]
    results = json.loads(file.read_text())
    found = []
    if results["sha256"] != sha256(path):
        found.append("its sha256 is not the one of its results file")
    if results["data"]["fingerprint"] != data.fingerprint:
        found.append("its figures come from other data")
    # what else would be read of test is another file, which train/evaluate.py logs
    for split in ("validation",) if found else ("validation", "test"):
        if split not in results["splits"]:
            found.append(f"{split} was never scored")
            continue
        try:
            scored = evaluate(path, data, split)
        except DataError as error:
            return [*found, str(error)]
        for name, figures in scored.items():
            stored = results["splits"][name]["accuracy"]
            if abs(figures["accuracy"] - stored) > 100 * TOLERANCE_IMAGES / figures["n"] + 1e-9:
                found.append(
                    f"{name} accuracy is {figures['accuracy']:.2f}, its results file says {stored:.2f}"
                )
            else:
                print(f"{path.stem} {name:>24}: {figures['accuracy']:.2f} %, as in its results file")
    return found


def main() -> int:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    data = load_data(parser.parse_args())
    paths = packaged(WEIGHTS_DIR)
    failed = [f"{path.stem}: {text}" for path in paths for text in differences(path, data)]
    print("\n".join(failed) or f"all {len(paths)} weight files give the figures of their results files")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
