"""FER2013 from wherever it lies (Hub, parquet, Kaggle's CSV, image folders), always as one `DatasetDict`.

The official split is kept under three names: `train` (Training, 28,709 images), `validation` (PublicTest,
3,589) and `test` (PrivateTest, 3,589). Classes are matched by name, so a source's own order never matters.
"""

from __future__ import annotations

import io
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image

from .errors import reason
from .files import visible_files
from .labels import EXPRESSIONS

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

SIZE = (48, 48)

# Images per class in the order of EXPRESSIONS, as counted in fer2013.csv.
COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}

# What sources call the splits and the classes, in lower case.
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "publictest"), "validation"),
    **dict.fromkeys(("test", "privatetest"), "test"),
}
_ALIASES = {
    "anger": "angry",
    "disgusted": "disgust",
    "fearful": "fear",
    "happiness": "happy",
    "sadness": "sad",
    "surprised": "surprise",
}

_CSV_FILES = ("fer2013.csv", "icml_face_data.csv")
_CSV_COLUMNS = ("emotion", "pixels", "Usage")
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".webp"}
_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")

# Images are held as PGM, this header and the bare pixels: lossless, and faster than PNG to write and to read.
_PGM_HEADER = b"P5 %d %d 255\n" % SIZE
_LOSSY_NOTE = "Decoded from JPEG or WebP: the pixels are close to those of fer2013.csv, not equal to them."


class DataError(ValueError):
    """A source is not FER2013; the message says in one sentence what is wrong with it."""


@dataclass
class _Rows:
    """One split as its source holds it, only the labels are already indices of EXPRESSIONS."""

    images: list[bytes | Path] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    extra: datasets.Dataset | None = None


def load_fer2013(source: str | Path, *, check_counts: bool = True) -> datasets.DatasetDict:
    """Read FER2013 from any of the forms in which it is passed around.

    Args:
        source: A dataset id on the Hub (`owner/name`), a folder with parquet files named after their split,
            Kaggle's `fer2013.csv` or `icml_face_data.csv` or a folder that holds one, or a folder of image
            folders: either `test/angry/PublicTest_1.jpg`, where the file name tells the split, or
            `test/angry/im0.png`, where each class of PublicTest is followed by that of PrivateTest.
        check_counts: Whether every class of every split must have exactly the published number of images.
            Without it, a test folder of `im0.png` files is divided in the published proportion of each class.

    Returns:
        The splits `train`, `validation` and `test`, held in memory, with the columns `image` (48x48, PIL mode
        `L`), `label` (`ClassLabel` with the names of EXPRESSIONS) and any others of a parquet or Hub source.

    Raises:
        DataError: The source is missing or is not FER2013.
        ImportError: The package `datasets` is not installed.
    """
    try:
        from datasets import DatasetDict
    except ImportError as error:
        raise ImportError('Reading FER2013 needs "datasets": pip install "fer-zoo[train]"') from error

    path = Path(source)
    if path.is_dir():
        splits = _read_folder(path)
    elif path.is_file():
        splits = _read_csv(path)
    elif isinstance(source, str) and _HUB_ID.fullmatch(source):
        splits = _read_hub(source)
    else:
        raise DataError(f"{source}: there is no such file or folder")

    missing = [split for split in COUNTS if split not in splits]
    if missing:
        raise DataError(f"{source}: has no images for {_listed(missing)}, only for {_listed(splits)}")
    dataset = DatasetDict({split: _build(splits[split], split, source) for split in COUNTS})
    if check_counts and (wrong := wrong_counts(dataset)):
        raise DataError(f"{source}: {wrong}")
    return dataset


def to_arrays(split: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Decode one split.

    Returns:
        Images, uint8 (N, 48, 48), and labels, int64 (N,).

    Raises:
        DataError: An image cannot be decoded or is not 48x48.
    """
    table = split.select_columns(["image", "label"]).with_format("arrow")[:]
    images = np.empty((len(table), *SIZE), np.uint8)
    for i, row in enumerate(table["image"].to_pylist()):
        image = cv2.imdecode(np.frombuffer(row["bytes"], np.uint8), cv2.IMREAD_GRAYSCALE)
        if image is None or image.shape != SIZE:
            raise DataError(f"image {i} is no readable image of 48x48 pixels")
        images[i] = image
    return images, table["label"].to_numpy().astype(np.int64)


def is_lossy(dataset: datasets.DatasetDict) -> bool:
    """Tell whether `load_fer2013` read any lossy file, so that the pixels are not FER2013's own."""
    return any(_LOSSY_NOTE in split.info.description for split in dataset.values())


def wrong_counts(dataset: datasets.DatasetDict) -> str:
    """Compare the classes of every split with the published numbers of images.

    Returns:
        One sentence on what differs, or nothing.
    """
    wrong = [
        f"{split} {name} has {count} images instead of {expected}"
        for split in COUNTS
        for name, count, expected in zip(
            EXPRESSIONS, np.bincount(dataset[split]["label"][:], minlength=7), COUNTS[split], strict=True
        )
        if count != expected
    ]
    more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
    return f"these are not FER2013's published counts: {', '.join(wrong[:3])}{more}" if wrong else ""


def _read_hub(name: str) -> dict[str, _Rows]:
    from datasets import load_dataset

    try:
        splits = load_dataset(name)
    except Exception as error:  # of many kinds, and each means the same to the reader
        message = f"{name}: no such file or folder, nor could it be had from the Hub ({reason(error)})"
        raise DataError(message) from error
    return _from_tables(splits, name)


def _read_folder(folder: Path) -> dict[str, _Rows]:
    if parquet := visible_files(folder, {".parquet"}):
        return _read_parquet(folder, parquet)
    csv_files = visible_files(folder, {".csv"})
    if tables := [file for name in _CSV_FILES for file in csv_files if file.name == name]:
        return _read_csv(tables[0])
    for root in (folder, *_visible_folders(folder)):
        parts = {_SPLITS.get(child.name.lower()): child for child in _visible_folders(root)}
        if {"train", "test"} <= parts.keys():
            return _read_image_folders(parts)
    raise DataError(
        f"{folder}: holds no parquet files, no {' or '.join(_CSV_FILES)}, no train and test folders"
    )


def _read_parquet(folder: Path, files: list[Path]) -> dict[str, _Rows]:
    from datasets import Dataset
    from pyarrow import ArrowException, parquet

    shards = defaultdict(list)
    for file in files:
        # train-00000-of-00001.parquet, or train/0000.parquet as the Hub converts datasets
        named = [_SPLITS.get(name.lower()) for name in (re.split(r"[-_.]", file.name)[0], file.parent.name)]
        split = named[0] or named[1]
        if split is None:
            raise DataError(f"{file}: is not named after a split, as train-00000-of-00001.parquet is")
        shards[split].append(file)
    try:
        splits = {split: Dataset(parquet.read_table(f, partitioning=None)) for split, f in shards.items()}
    except (ArrowException, OSError) as error:
        raise DataError(f"{folder}: the parquet files cannot be read ({reason(error)})") from error
    return _from_tables(splits, str(folder))


def _from_tables(splits: dict[str, datasets.Dataset], source: str) -> dict[str, _Rows]:
    """Take over splits with the columns image and label, or one with the columns of Kaggle's CSV."""
    from datasets import Image as ImageFeature
    from pyarrow import ArrowException

    rows = {}
    for name, split in splits.items():
        if "pixels" in map(str.strip, split.column_names):
            return _from_csv_columns(split.with_format("arrow")[:], source)
        if not {"image", "label"} <= set(split.column_names):
            found = _listed(split.column_names)
            raise DataError(f"{source}: has the columns {found}; it needs image and label")
        if name.lower() not in _SPLITS:
            raise DataError(f"{source}: has the splits {_listed(splits)}; it needs train, validation, test")
        try:
            images = split.cast_column("image", ImageFeature(decode=False))["image"]
        except (ArrowException, TypeError) as error:
            raise DataError(f"{source}: the column image holds no images") from error
        rows[_SPLITS[name.lower()]] = _Rows(
            images=[_encoded(row) for row in images],
            labels=_indices(split, source),
            extra=split.remove_columns(["image", "label"]),
        )
    return rows


def _encoded(row: dict | None) -> bytes | Path:
    """An image not yet decoded: `datasets` keeps its bytes, or the path of the file that has them."""
    if row and row["bytes"] is None and row["path"]:
        return Path(row["path"])
    return (row and row["bytes"]) or b""


def _indices(split: datasets.Dataset, source: str) -> list[int]:
    """Bring a column of labels, whatever its own order of classes, to indices of EXPRESSIONS."""
    feature, values = split.features["label"], split["label"][:]
    try:
        names = feature.int2str(values) if hasattr(feature, "int2str") else values
    except (TypeError, ValueError) as error:
        raise DataError(f"{source}: some images have no label") from error
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{source}: the column label holds numbers without the names of their classes")
    return [_index(name, source) for name in names]


def _index(name: str, source: str | Path) -> int:
    plain = name.strip().lower()
    plain = _ALIASES.get(plain, plain)
    if plain not in EXPRESSIONS:
        raise DataError(f"{source}: unknown class {name!r}; FER2013 has {_listed(EXPRESSIONS)}")
    return EXPRESSIONS.index(plain)


def _read_csv(file: Path) -> dict[str, _Rows]:
    from pyarrow import ArrowException, csv

    try:
        return _from_csv_columns(csv.read_csv(file), str(file))
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a CSV file ({reason(error)})") from error


def _from_csv_columns(table: pa.Table, source: str) -> dict[str, _Rows]:
    table = table.rename_columns([name.strip() for name in table.column_names])
    if not set(_CSV_COLUMNS) <= set(table.column_names):
        found = _listed(table.column_names)
        raise DataError(f"{source}: has the columns {found}; it needs {_listed(_CSV_COLUMNS)}")
    batches = ([column.to_pylist() for column in b.columns] for b in table.select(_CSV_COLUMNS).to_batches())
    rows = chain.from_iterable(zip(*batch, strict=True) for batch in batches)
    splits = defaultdict(_Rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # this is how fromstring reports what is no number
        for i, (emotion, pixels, usage) in enumerate(rows):
            split = _SPLITS.get(str(usage).strip().lower())
            if split is None:
                raise DataError(f"{source}: row {i} is neither Training nor PublicTest nor PrivateTest")
            if emotion not in range(len(EXPRESSIONS)):
                raise DataError(f"{source}: row {i} has emotion {emotion!r}, not a number from 0 to 6")
            try:
                image = bytes(np.fromstring(pixels, np.int64, sep=" ").tolist())
            except (DeprecationWarning, TypeError, ValueError):
                image = b""
            if len(image) != SIZE[0] * SIZE[1]:
                raise DataError(f"{source}: row {i} does not have 2304 pixels (48x48) from 0 to 255")
            splits[split].images.append(_PGM_HEADER + image)
            splits[split].labels.append(emotion)
    return splits


def _visible_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*/")) if not path.name.startswith(".")]


def _read_image_folders(parts: dict[str, Path]) -> dict[str, _Rows]:
    splits = defaultdict(_Rows)
    for part in filter(parts.get, COUNTS):
        for class_folder in _visible_folders(parts[part]):
            label = _index(class_folder.name, parts[part])
            files = visible_files(class_folder, _IMAGE_SUFFIXES)
            files.sort(key=lambda file: (int(re.sub(r"\D", "", file.stem) or 0), file.name))
            prefixes = {file: file.stem.partition("_")[0].lower() for file in files}
            if set(prefixes.values()) <= {"training", "publictest", "privatetest"}:
                names = [_SPLITS[prefixes[file]] for file in files]
            elif part != "test" or "validation" in parts:
                names = [part] * len(files)
            elif all(re.fullmatch(r"im\d+", file.stem) for file in files):
                public, private = COUNTS["validation"][label], COUNTS["test"][label]
                first = round(len(files) * public / (public + private))
                names = ["validation"] * first + ["test"] * (len(files) - first)
            else:
                raise DataError(f"{class_folder}: the file names do not tell PublicTest from PrivateTest")
            for file, name in zip(files, names, strict=True):
                splits[name].images.append(file)
                splits[name].labels.append(label)
    return splits


def _build(rows: _Rows, split: str, source: str | Path) -> datasets.Dataset:
    from datasets import ClassLabel, Dataset, Features, concatenate_datasets
    from datasets import Image as ImageFeature
    from pyarrow import array, binary

    images, lossy = [], False
    for i, encoded in enumerate(rows.images):
        is_file = isinstance(encoded, Path)
        where = encoded if is_file else f"{source}: {split} image {i}"
        try:
            with Image.open(encoded if is_file else io.BytesIO(encoded)) as image:
                size = image.size
                gray = image.convert("L") if size == SIZE else None
                lossy |= image.format in ("JPEG", "WEBP")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{where} cannot be read as an image") from error
        if gray is None:
            raise DataError(f"{where} is {size[0]}x{size[1]} pixels; FER2013's images are 48x48")
        images.append(_PGM_HEADER + gray.tobytes())
    dataset = Dataset.from_dict(
        {"image": array(images, binary()), "label": rows.labels},
        features=Features(image=ImageFeature(), label=ClassLabel(names=list(EXPRESSIONS))),
    )
    if rows.extra is not None and rows.extra.column_names:
        dataset = concatenate_datasets([dataset, rows.extra], axis=1)
    dataset.info.description = _LOSSY_NOTE if lossy else ""
    return dataset


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
