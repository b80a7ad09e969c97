"""Probabilities of the training images as targets: distillation (Hinton et al. 2015, arXiv:1503.02531).

They come from networks that did not learn the image, `out_of_fold.parquet` of `train/cv.py`, so that a wrong
label is contradicted by what all other faces taught; or from an ensemble that did, `train/seeds.py --teach`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fer_zoo.data import DataError
from fer_zoo.labels import EXPRESSIONS
from train.dataset import Arrays
from train.files import write_atomic


def write_probabilities(file: Path, rows: np.ndarray, faces: Arrays, probs: np.ndarray, **columns) -> None:
    """Writes what networks make of training images.

    Args:
        file: Parquet.
        rows: int64 (N,), their places in the training split.
        faces: The images themselves.
        probs: float (N, 7), 0 to 1.
        columns: Further ones, (N,) each.
    """
    table = {"image": rows, "sha256": faces.hashes, **columns, "label": faces.labels}
    table |= dict(zip(EXPRESSIONS, probs.astype(np.float64).T, strict=True))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(table), buffer)
    write_atomic(file, buffer.getvalue().to_pybytes())


def read_probabilities(files: Sequence[Path], train: Arrays) -> np.ndarray:
    """The mean of several files for every training image, float32 (N, 7).

    Raises:
        DataError: A file cannot be read, or is not about exactly these images.
    """
    total = np.zeros((len(train), len(EXPRESSIONS)), np.float32)
    for file in files:
        try:
            table = pq.read_table(file).sort_by("image")
            hashes = table["sha256"].to_numpy()
            probs = np.stack([table[name].to_numpy() for name in EXPRESSIONS], 1)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{file}: holds no probabilities of training images ({error})") from error
        if not np.array_equal(hashes, train.hashes):
            raise DataError(f"{file}: is not about these {len(train):,} training images")
        total += probs.astype(np.float32) / len(files)
    return total


def taught(train: Arrays, probs: np.ndarray, share: float) -> Arrays:
    """The same faces, each target a `share` of the teacher's probabilities (N, 7), the rest its label."""
    labels = np.eye(len(EXPRESSIONS), dtype=np.float32)[train.labels]
    return Arrays(train.images, train.labels, (1 - share) * labels + share * probs)
