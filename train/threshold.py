"""Finds how confident each packaged model must be before its answer is called sure.

    python train/threshold.py --data SOURCE

The threshold is the smallest confidence from which on at least 85 % of the answers on clean validation are
right: by FER2013's labels, or by the majority of FER+'s votes for weights that learnt those. It is written
with its coverage, the share of images that reach it; null where no threshold does.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.metrics import precision_recall_curve
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo import Recognizer
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.thresholds import FILE
from train.cli import add_data_arguments, create_parser, load_data, run
from train.evaluate import add_weights_arguments, learnt, out_of, packaged
from train.ferplus import clean_validation
from train.files import sha256, write_json

PRECISION = 0.85


def threshold(confidence: np.ndarray, right: np.ndarray, precision: float = PRECISION) -> dict:
    """The smallest confidence whose answers are right often enough.

    Args:
        confidence: float (N,), 0 to 1.
        right: bool (N,).
        precision: The share of answers at or above the threshold that must be right.

    Returns:
        JSON-able: `n`, `threshold`, and over the answers that reach it `precision` and `coverage`, in
        percent; these three are None where no threshold does it.
    """
    none = {"n": len(right), "threshold": None, "precision": None, "coverage": None}
    if not right.any():  # scikit-learn warns of that
        return none
    reached, _, thresholds = precision_recall_curve(right, confidence)
    good = reached[:-1] >= precision  # the curve's last point belongs to no threshold
    if not good.any():
        return none
    first = int(good.argmax())
    return {
        "n": len(right),
        "threshold": float(thresholds[first]),
        "precision": 100 * float(reached[first]),
        "coverage": 100 * float((confidence >= thresholds[first]).mean()),
    }


def main() -> None:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    add_weights_arguments(parser)
    args = parser.parse_args()
    out = out_of(args, FILE)
    data = load_data(args, strict=out.resolve() == FILE)
    paths = packaged(args.weights)
    clean_by = {labels: clean_validation(data, labels) for labels in sorted(set(map(learnt, paths)))}
    images_by = {labels: list(map(Image.fromarray, clean.images)) for labels, clean in clean_by.items()}
    models = {}
    for path in tqdm(paths, unit="model", disable=None):
        labels = learnt(path)
        # read as the Space reads them, whatever the recogniser does to the logits
        faces = [face for (face,) in Recognizer(path, faces="whole")(images_by[labels])]
        seen = clean_by[labels].labels
        right = np.array([f.label == EXPRESSIONS[label] for f, label in zip(faces, seen, strict=True)])
        found = threshold(np.array([face.confidence for face in faces]), right)
        models[path.stem] = {"sha256": sha256(path), "labels": labels} | found
        rounded = {key: value and round(value, 3) for key, value in found.items()}
        tqdm.write(f"{path.stem} {rounded}")
    results = {
        "command": "python train/threshold.py",
        "split": "validation_clean",
        "data": data.fingerprint,
        "wanted_precision": 100 * PRECISION,
        "models": models,
    }
    write_json(out, results)


if __name__ == "__main__":
    run(main)
