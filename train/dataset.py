"""What the scripts train on, as arrays: FER2013 by its official split, or any folder of faces."""

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open

from fer_zoo.data import DataError, is_lossy, to_arrays
from fer_zoo.faces import square_face
from fer_zoo.folds import leak_free_folds
from fer_zoo.identity import fingerprint, pixel_hashes
from fer_zoo.images import ImageError, image_files, load_image

if TYPE_CHECKING:
    import datasets

# One fold of these is held out where a folder brings no validation split.
HOLD_OUT = 6

# What the folders of splits are called.
SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev"},
    "test": {"test", "testing", "eval", "evaluation"},
}

# Files of `train/pack.py`: their suffix, and faces side by side (WebP allows 16,383 pixels).
PACK, COLUMNS = ".pack", 340


@dataclass(frozen=True)
class Arrays:
    """Faces and their labels.

    Attributes:
        images: uint8 (N, H, W).
        labels: int64 (N,).
        targets: float32 (N, classes), probabilities that are learnt in the labels' place; None for none.
    """

    images: np.ndarray
    labels: np.ndarray
    targets: np.ndarray | None = None

    def __getitem__(self, rows: np.ndarray) -> "Arrays":
        targets = None if self.targets is None else self.targets[rows]
        return Arrays(self.images[rows], self.labels[rows], targets)

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def hashes(self) -> np.ndarray:
        """Of the pixels, (N,)."""
        return pixel_hashes(self.images)


@dataclass(frozen=True)
class Fer2013:
    """FER2013 in memory.

    Attributes:
        splits: `train`, `validation` and `test`.
        fingerprint: Of all images and labels.
        lossy: Whether the pixels went through JPEG.
        votes: By split, uint8 (N, 10), the votes of FER+ in its own order of columns, none for an image
            without; empty where the source has no votes.
    """

    splits: dict[str, Arrays]
    fingerprint: str
    lossy: bool
    votes: dict[str, np.ndarray]

    @classmethod
    def of(cls, dataset: "datasets.DatasetDict") -> "Fer2013":
        """What `fer_zoo.data.load_fer2013` returned.

        Raises:
            DataError: Its column ferplus holds something else than ten votes an image.
        """
        splits = {name: Arrays(*to_arrays(split)) for name, split in dataset.items()}
        hashed = {name: (split.labels, split.hashes) for name, split in splits.items()}
        votes = {
            name: _votes(name, split["ferplus"])
            for name, split in dataset.items()
            if "ferplus" in split.column_names
        }
        return cls(splits, fingerprint(hashed), is_lossy(dataset), votes)

    def __getitem__(self, split: str) -> Arrays:
        return self.splits[split]

    def clean(self, split: str) -> np.ndarray:
        """Which images of a split do not stand in train, bool (N,)."""
        return ~np.isin(self[split].hashes, self["train"].hashes)

    def parts(self, split: str) -> dict[str, np.ndarray]:
        """What figures are given of: a split whole and, as `<split>_clean`, clean; bool (N,) each."""
        clean = self.clean(split)
        return {split: np.ones_like(clean), f"{split}_clean": clean}


def _votes(split: str, rows: list[list[int] | None]) -> np.ndarray:
    try:
        votes = np.array([row or [0] * 10 for row in rows], np.uint8).reshape(len(rows), -1)
        if votes.shape[1] == 10:
            return votes
    except (TypeError, ValueError, OverflowError):  # rows of several lengths, no numbers, none below 256
        pass
    raise DataError(
        f"the column ferplus of {split} must hold the ten counts of FER+'s votes, or null, in every row: "
        "model_cards/dataset.md says how to add it"
    )


def read_pack(file: Path) -> Fer2013:
    """Reads what `train/pack.py` wrote.

    Raises:
        DataError: It is no pack.
    """
    try:
        with safe_open(file, "pt") as pack:
            metadata = pack.metadata()
            splits = {
                name: _read_split(pack.get_tensor(f"{name}.webp"), pack.get_tensor(f"{name}.labels"))
                for name in ("train", "validation", "test")
            }
            votes = {
                key.removesuffix(".votes"): pack.get_tensor(key).numpy()
                for key in pack.keys()  # noqa: SIM118, it is no dict
                if key.endswith(".votes")
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{file}: is no pack of FER2013 that can be read ({error})") from error
    return Fer2013(splits, metadata["fingerprint"], metadata["lossy"] == "True", votes)


def _read_split(picture: torch.Tensor, labels: torch.Tensor) -> Arrays:
    with Image.open(io.BytesIO(picture.numpy().tobytes())) as image:
        sheet = np.asarray(image.convert("L"))
    side = sheet.shape[1] // COLUMNS
    tiles = sheet.reshape(-1, side, COLUMNS, side).swapaxes(1, 2).reshape(-1, side, side)
    return Arrays(tiles[: len(labels)].copy(), labels.numpy())


def load_image_folder(folder: Path, size: int) -> tuple[Arrays, Arrays, tuple[str, ...]]:
    """A folder of faces with labels of its own.

    Either `folder/<class>/*.png`, of which a sixth is held out, stratified and with equal images kept
    together, or `folder/train/<class>/*.png` and, if there is one, `folder/validation/<class>/*.png`; other
    folders are left alone then. Every picture is one face, and is made gray and square.

    Args:
        folder: The folder.
        size: Height and width in pixels of what is returned.

    Returns:
        Train, validation, and the names of the classes.

    Raises:
        DataError: The folder is not of that form, or a picture cannot be read.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises where a name is too long
        raise DataError(f"{folder}: there is no such folder")
    splits = _split_folders(folder)
    classes = _by_folder(splits["train"])
    names = tuple(classes)
    if len(names) < 2:
        raise DataError(f"{splits['train']}: needs one folder a class, at least two of them")
    train = _read_faces(classes, names, size)
    if "validation" in splits:
        return train, _read_faces(_by_folder(splits["validation"]), names, size), names
    counts = np.bincount(train.labels, minlength=len(names))
    if counts.min() < HOLD_OUT:
        raise DataError(
            f"{folder}: {names[counts.argmin()]} has {counts.min()} images: at least {HOLD_OUT} are needed, "
            "or folders train and validation"
        )
    held_out = leak_free_folds(train.labels, train.hashes, HOLD_OUT) == 0
    return train[~held_out], train[held_out], names


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folder of each split; a folder whose classes are not in splits is its train."""
    pictures = _by_folder(folder)
    if not pictures:
        raise DataError(f"{folder}: holds no folders of images, one a class")
    found = {split: [name for name in pictures if name.lower() in names] for split, names in SPLITS.items()}
    named = [folder / name for names in found.values() for name in names]
    alone = len(named) == 1 < len(pictures)
    if not named or (alone and any(file.parent == named[0] for file in pictures[named[0].name])):
        return {"train": folder}  # a class, too, may be called test
    if not found["train"]:
        raise DataError(f"{folder}: has {', '.join(pictures)} and no train")
    for split, names in found.items():
        if len(names) > 1:
            raise DataError(f"{folder}: has {' and '.join(names)}: one folder of {split} is read")
    return {split: folder / names[0] for split, names in found.items() if names}


def _by_folder(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each folder that is directly in this one, in the order of their names."""
    found = {}
    for file in image_files(folder):
        top, *inside = file.relative_to(folder).parts
        if not inside:
            raise DataError(f"{folder}: needs one folder a class, and {top} is in none")
        found.setdefault(top, []).append(file)
    return found


def _read_faces(classes: dict[str, list[Path]], names: tuple[str, ...], size: int) -> Arrays:
    if unknown := classes.keys() - set(names):
        raise DataError(f"{classes[min(unknown)][0].parent}: train has no class of that name")
    images = np.stack([_face(file, size) for files in classes.values() for file in files])
    labels = np.repeat([names.index(name) for name in classes], [len(files) for files in classes.values()])
    return Arrays(images, labels)


def _face(file: Path, size: int) -> np.ndarray:
    try:
        image = square_face(load_image(file))
    except ImageError as error:
        raise DataError(str(error)) from error
    # as `fer_zoo.models.create_face_model` has it
    return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))
