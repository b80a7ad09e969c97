"""Audits FER2013: repeated images, overlaps between splits, equal images of unequal labels, FER+'s labels.

    python train/audit.py --data SOURCE

The table is printed, and stored as JSON beside the other results.
"""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.folds import leak_free_folds
from fer_zoo.labels import EXPRESSIONS
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Arrays, Fer2013
from train.ferplus import majority, need_votes
from train.files import RESULTS_DIR, write_json

FOLDS = 3  # as many as train/cv.py makes by default


def audit(data: Fer2013) -> dict:
    """What is to know of the data before any figure is quoted.

    Returns:
        JSON-able: `splits`, each with its images, images per class, `repeats` (images that repeat an earlier
        one of their split) and `conflicts` (images with an equal one of another label); `overlaps`, for each
        two splits the images of either that stand in the other; `leaking`, how many images of train have an
        equal one in another of three folds, where folds are only stratified and where they are ours;
        `ferplus`, for each split with votes how many images FER+ decides, and of how many of these FER2013's
        label is `agreed` to.
    """
    splits = {name: _split(arrays) for name, arrays in data.splits.items()}
    overlaps = []
    for one, other in combinations(data.splits, 2):
        a, b = data[one].hashes, data[other].hashes
        overlaps.append(
            {
                "splits": [one, other],
                "images": {one: int(np.isin(a, b).sum()), other: int(np.isin(b, a).sum())},
                "of_another_label": _disagreeing(data[one], data[other]),
            }
        )
    return {
        "data": {"fingerprint": data.fingerprint, "lossy": data.lossy},
        "splits": splits,
        "overlaps": overlaps,
        "leaking": _leaking(data["train"]),
        "ferplus": {name: _votes(votes, data[name].labels) for name, votes in data.votes.items()},
    }


def table(found: dict) -> str:
    """The audit for a terminal."""
    lines = [f"{'split':<12}{'images':>8}{'repeats':>9}{'conflicts':>11}   " + " ".join(EXPRESSIONS)]
    for name, split in found["splits"].items():
        counts = " ".join(f"{split['classes'][key]:>{len(key)}}" for key in EXPRESSIONS)
        figures = f"{split['images']:>8,}{split['repeats']:>9,}{split['conflicts']:>11,}"
        lines.append(f"{name:<12}{figures}   {counts}")
    for overlap in found["overlaps"]:
        (one, other), images = overlap["splits"], overlap["images"]
        lines.append(
            f"{images[other]:,} images of {other} stand in {one} too, pixel for pixel; "
            f"{overlap['of_another_label']:,} of them only with another label"
        )
    leaking = found["leaking"]
    lines.append(
        f"{FOLDS} folds of train: {leaking['stratified']:,} images have an equal one in another fold where "
        f"folds are only stratified, {leaking['leak_free']:,} where equal images are kept together"
    )
    for name, votes in found["ferplus"].items():
        lines.append(
            f"FER+ decides {votes['decided']:,} images of {name}, and agrees to the label of "
            f"{votes['agreed']:,} of them"
        )
    return "\n".join(lines)


def _split(arrays: Arrays) -> dict:
    counts = np.bincount(arrays.labels, minlength=len(EXPRESSIONS)).tolist()
    _, group, size = np.unique(arrays.hashes, return_inverse=True, return_counts=True)
    kinds = len(EXPRESSIONS)
    labels_of_group = np.bincount(np.unique(group * kinds + arrays.labels) // kinds, minlength=len(size))
    return {
        "images": len(arrays),
        "classes": dict(zip(EXPRESSIONS, counts, strict=True)),
        "repeats": int((size - 1).sum()),
        "conflicts": int((labels_of_group[group] > 1).sum()),
    }


def _votes(votes: np.ndarray, labels: np.ndarray) -> dict[str, int]:
    seen = majority(votes)
    return {"decided": int((seen >= 0).sum()), "agreed": int((seen == labels).sum())}


def _disagreeing(one: Arrays, other: Arrays) -> int:
    """Images of `other` that stand in `one`, but never with the same label."""
    labelled = np.char.add(one.hashes, one.labels.astype(str))
    same = np.isin(np.char.add(other.hashes, other.labels.astype(str)), labelled)
    return int((np.isin(other.hashes, one.hashes) & ~same).sum())


def _leaking(train: Arrays) -> dict[str, int]:
    """Images with an equal one in another of the folds, made in two ways."""
    from sklearn.model_selection import StratifiedKFold

    stratified = np.empty(len(train), np.int64)
    for fold, (_, held_out) in enumerate(
        StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(train.labels, train.labels)
    ):
        stratified[held_out] = fold
    ours = leak_free_folds(train.labels, train.hashes, FOLDS)
    return {"stratified": _across(train.hashes, stratified), "leak_free": _across(train.hashes, ours)}


def _across(hashes: np.ndarray, folds: np.ndarray) -> int:
    parts = [set(hashes[folds == fold]) for fold in np.unique(folds)]
    shared = set().union(*(a & b for a, b in combinations(parts, 2)))
    return int(np.isin(hashes, list(shared)).sum())


def main() -> None:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    published = RESULTS_DIR / "audit.json"
    parser.add_argument("--out", type=Path, default=published, help="the JSON file")
    args = parser.parse_args()
    publish = args.out.resolve() == published
    data = load_data(args, strict=publish)
    if publish:
        need_votes(data)
    found = audit(data)
    write_json(args.out, found)
    print(table(found))


if __name__ == "__main__":
    run(main)
