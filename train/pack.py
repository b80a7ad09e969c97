"""FER2013 in one small file, for machines that have neither the dataset nor the `datasets` package.

    python train/pack.py --data SOURCE --out data/fer2013.pack
    accelerate launch train/cv.py --data data/fer2013.pack

A pack is a safetensors file. Each split is one lossless WebP picture of all its faces, row by row, and the
labels and, where they are known, FER+'s votes; 58 MB in all. It holds images that are not ours to pass on.
"""

import io
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import add_data_arguments, create_parser, load_data, run
from train.dataset import COLUMNS, PACK, Fer2013
from train.files import write_atomic


def write_pack(data: Fer2013, file: Path) -> None:
    """Writes a pack of `data`."""
    tensors = {}
    for name, split in data.splits.items():
        n, height, width = split.images.shape
        rows = math.ceil(n / COLUMNS)
        tiles = np.zeros((rows * COLUMNS, height, width), np.uint8)
        tiles[:n] = split.images
        sheet = tiles.reshape(rows, COLUMNS, height, width).swapaxes(1, 2).reshape(rows * height, -1)
        picture = io.BytesIO()
        Image.fromarray(sheet).convert("RGB").save(picture, "WEBP", lossless=True)
        tensors[f"{name}.webp"] = torch.frombuffer(bytearray(picture.getvalue()), dtype=torch.uint8)
        tensors[f"{name}.labels"] = torch.from_numpy(split.labels)
        if name in data.votes:
            tensors[f"{name}.votes"] = torch.from_numpy(data.votes[name])
    metadata = {"fingerprint": data.fingerprint, "lossy": str(data.lossy)}
    write_atomic(file, save(tensors, metadata))


def main() -> None:
    parser = create_parser(__doc__)
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("data") / f"fer2013{PACK}", help="the file")
    args = parser.parse_args()
    write_pack(load_data(args), args.out)
    print(f"{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    run(main)
