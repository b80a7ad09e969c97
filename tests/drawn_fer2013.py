"""A small FER2013 drawn by the tests, and writers for every form in which FER2013 is passed around."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from fer_zoo.labels import EXPRESSIONS

USAGES = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
# FER+'s columns.
VOTES = {"neutral": 0, "happy": 1, "surprise": 2, "sad": 3, "angry": 4, "disgust": 5, "fear": 6}
Drawn = dict[str, tuple[np.ndarray, np.ndarray]]


def draw(per_class: int = 2, seed: int = 0, waves: bool = False) -> Drawn:
    """Noise faces, uint8 (N, 48, 48), and labels, int64 (N,), for each of the three splits.

    With `waves` each class has waves of its own length under the noise, so that it can be learnt. The first
    validation and the first test image stand in train too.
    """
    rng = np.random.default_rng(seed)
    labels = np.tile(np.arange(len(EXPRESSIONS)), per_class)
    drawn = {split: (rng.integers(0, 256, (len(labels), 48, 48), np.uint8), labels) for split in USAGES}
    if waves:
        pattern = np.sin(np.arange(48) * (labels[:, None] + 1) / 3)[:, :, None]
        for images, _ in drawn.values():
            images[:] = 128 + 60 * pattern + (images - 127.5) / 4
    for split in ("validation", "test"):
        drawn[split][0][0] = drawn["train"][0][0]
    return drawn


def votes(labels: np.ndarray) -> list[list[int] | None]:
    """Of ten annotators, two of whom see a neutral face in everything; none for the first image."""
    seen = [VOTES[EXPRESSIONS[label]] for label in labels]
    counts = [[2 * (i == VOTES["neutral"]) + 8 * (i == column) for i in range(10)] for column in seen]
    return [None, *counts[1:]]


def encode(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def write_csv(
    file: Path, drawn: Drawn, columns: tuple[str, ...] = ("emotion", "pixels", "Usage"), **changes: str
) -> Path:
    """Kaggle's fer2013.csv; `changes` replace values of the first row."""
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(columns)
        for split, (images, labels) in drawn.items():
            for image, label in zip(images, labels, strict=True):
                row = {"emotion": label, "pixels": " ".join(map(str, image.ravel())), "Usage": USAGES[split]}
                writer.writerow([(row | changes)[column.strip()] for column in columns])
                changes = {}
    return file


def as_datasets(
    drawn: Drawn, names: tuple[str, ...] = EXPRESSIONS, kind: str = "PNG"
) -> datasets.DatasetDict:
    """As a dataset on the Hub, its classes in an order of its own, with `row` and `ferplus` besides."""
    features = datasets.Features(
        image=datasets.Image(),
        label=datasets.ClassLabel(names=list(names)),
        row=datasets.Value("int32"),
        ferplus=datasets.List(datasets.Value("int8")),
    )
    order = {expression: names.index(expression) for expression in EXPRESSIONS if expression in names}
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {
                    "image": [{"bytes": encode(image, kind), "path": None} for image in images],
                    "label": [order[EXPRESSIONS[label]] for label in labels],
                    "row": range(len(labels)),
                    "ferplus": votes(labels),
                },
                features=features,
            )
            for split, (images, labels) in drawn.items()
        }
    )


def write_parquet(folder: Path, drawn: Drawn, names: tuple[str, ...] = EXPRESSIONS) -> Path:
    """A clone of a dataset repository: two shards of train, one of each other split."""
    (folder / "data").mkdir(parents=True)
    for split, part in as_datasets(drawn, names).items():
        shards = 2 if split == "train" else 1
        for i in range(shards):
            file = folder / "data" / f"{split}-{i:05}-of-{shards:05}.parquet"
            part.shard(shards, i, contiguous=True).to_parquet(file)
    return folder


def write_named_folder(folder: Path, drawn: Drawn, kind: str = "PNG", classes: dict | None = None) -> Path:
    """Image folders whose file names tell the split: `test/angry/PublicTest_7.png`."""
    for split, (images, labels) in drawn.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = (classes or {}).get(EXPRESSIONS[label], EXPRESSIONS[label])
            file = (
                folder
                / ("train" if split == "train" else "test")
                / name
                / f"{USAGES[split]}_{i}.{kind.lower()}"
            )
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(image, kind))
    return folder


def write_numbered_folder(folder: Path, drawn: Drawn, classes: dict | None = None) -> Path:
    """Image folders of `im0.png` files, each class of PublicTest followed by that of PrivateTest."""
    for split, (images, labels) in drawn.items():
        for image, label in zip(images, labels, strict=True):
            name = (classes or {}).get(EXPRESSIONS[label], EXPRESSIONS[label])
            parent = folder / ("train" if split == "train" else "test") / name
            parent.mkdir(parents=True, exist_ok=True)
            (parent / f"im{sum(1 for _ in parent.iterdir())}.png").write_bytes(encode(image))
    return folder
