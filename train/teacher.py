"""Writes what finished runs make of the training images, as a teacher for `train/fit.py`.

    python train/teacher.py runs/fer_{resnet,cbam}-strong-mix-0 --out teacher.parquet --data SOURCE

The targets of distillation (Hinton et al. 2015, arXiv:1503.02531): the mean of the runs' probabilities, each
image and its mirror image averaged. These networks learnt the images; `out_of_fold.parquet` of `train/cv.py`
is a teacher whose networks did not, so that a wrong label is contradicted by what all other faces taught.
Nothing but train is read.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo.data import DataError
from fer_zoo.files import atomic
from fer_zoo.labels import EXPRESSIONS
from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import Arrays
from train.networks import network_of
from train.predict import predict
from train.run_dir import check_learnt, finished


def write_probabilities(
    file: Path, rows: np.ndarray, faces: Arrays, probs: np.ndarray, **columns: np.ndarray
) -> None:
    """Writes what networks make of training images.

    Args:
        file: Parquet.
        rows: int64 (N,), their places in the training split.
        faces: The images themselves.
        probs: float (N, 7), 0 to 1.
        columns: Further ones, (N,) each.
    """
    table: dict[str, object] = {"image": rows, "sha256": faces.hashes, **columns, "label": faces.labels}
    table |= dict(zip(EXPRESSIONS, probs.astype(np.float64).T, strict=True))
    write_table(file, pa.table(table))


def write_table(file: Path, table: pa.Table) -> None:
    """Writes parquet, whole or not at all."""
    with atomic(file) as partial:
        pq.write_table(table, partial)


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


def probabilities(run_dir: Path, images: torch.Tensor) -> torch.Tensor:
    """A run's probabilities, float32 (2, N, 7), of images as they are and mirrored.

    Args:
        run_dir: Its directory.
        images: uint8 (N, 1, 48, 48).
    """
    model = network_of(run_dir).half().float()  # rounded as weight files are
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, images = model.to(device, memory_format=torch.channels_last), images.to(device)
    return torch.stack([predict(model, x).softmax(1).cpu() for x in (images, images.flip(3))])


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="directories of finished runs")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the teacher's parquet")
    add_data_arguments(parser)
    args = parser.parse_args()
    if args.out.suffix != ".parquet":
        raise ValueError(f"--out must end in .parquet, not be {args.out}")
    args.out.parent.mkdir(parents=True, exist_ok=True)  # before all are read
    configs = [finished(folder)[0] for folder in args.runs]  # before the data are read
    data = load_data(args, strict=False)
    for folder, config in zip(args.runs, configs, strict=True):
        check_learnt(folder, config, data.fingerprint)
    train = data["train"]
    images = torch.from_numpy(train.images).unsqueeze(1)
    total = sum(probabilities(folder, images) for folder in tqdm(args.runs, unit="run"))
    probs = (total.mean(0) / len(args.runs)).numpy()
    write_probabilities(args.out, np.arange(len(train)), train, probs)
    agreed = 100 * (probs.argmax(1) == train.labels).mean()
    print(f"written: {args.out}; the teacher agrees with {agreed:.2f} % of the {len(train):,} labels")


if __name__ == "__main__":
    run(main)
