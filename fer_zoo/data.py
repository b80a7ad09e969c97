"""FER2013 from wherever it lies: Hub, parquet, Kaggle's CSV or Kaggle's image folders, always the same `DatasetDict`.

The official split is kept under three names: `train` (Training, 28,709 images), `validation` (PublicTest, 3,589) and
`test` (PrivateTest, 3,589). Labels are matched by name, so a source's own order of classes never matters.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fer_zoo.labels import EXPRESSIONS

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

SIZE = 48

# Images a class, in the order of EXPRESSIONS (Goodfellow et al. 2013, counted in fer2013.csv).
COUNTS = {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
}

# What sources call the splits and the classes, in lower case.
_SPLITS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "publictest": "validation",
    "test": "test",
    "privatetest": "test",
}
_LABELS = {name: index for index, name in enumerate(EXPRESSIONS)} | {
    alias: EXPRESSIONS.index(name)
    for alias, name in {
        "anger": "angry",
        "disgusted": "disgust",
        "fearful": "fear",
        "happiness": "happy",
        "sadness": "sad",
        "surprised": "surprise",
    }.items()
}

_CSV_NAMES = ("fer2013.csv", "icml_face_data.csv")
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".tif", ".tiff", ".webp"}
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Decoding such a header takes Pillow no time, and writing it costs nothing: the pixels follow as they are.
_PGM_HEADER = b"P5 %d %d 255\n" % (SIZE, SIZE)
_LOSSY_FORMATS = {"JPEG", "MPO", "WEBP"}
_LOSSY_NOTE = (
    "Decoded from lossy files (JPEG or WebP): the pixels are near those of fer2013.csv, not equal to them."
)


class DataError(ValueError):
    """A source that is not FER2013; the message says in one sentence what is wrong with it."""


@dataclass
class _Rows:
    """One split as its source holds it: encoded images, names of classes, further columns."""

    images: list[bytes] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    origins: list[str] | None = None  # file names, for messages
    extra: dict[str, pa.ChunkedArray] = field(default_factory=dict)
    extra_features: dict[str, Any] = field(default_factory=dict)


def load_fer2013(source: str | Path, *, check_counts: bool = True) -> datasets.DatasetDict:
    """Read FER2013 from any of the forms in which it is passed around.

    Args:
        source: A dataset id on the Hub (`owner/name`); a folder with parquet files named after their split; Kaggle's
            `fer2013.csv` or `icml_face_data.csv`, or a folder that holds one; or a folder of image folders, either
            `test/angry/PublicTest_1.jpg`, where the file name tells the split, or `test/angry/im0.png`, whose test
            folder holds PublicTest followed by PrivateTest.
        check_counts: Whether every split and class must have exactly the published number of images. Without it a
            test folder of the `im0.png` kind is divided in the published proportion of each class.

    Returns:
        The splits `train`, `validation` and `test` with columns `image` (48x48, PIL mode `L`) and `label`
        (`ClassLabel` with the names of EXPRESSIONS), and whatever further columns the source has; rows in the order
        of the source. Images are held decoded, in memory.

    Raises:
        DataError: The source is missing, or is not FER2013.
        ImportError: The package `datasets` is not installed.
    """
    datasets = _datasets()
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
        raise DataError(f"{source}: no images of {_listed(missing)}, only of {_listed(splits)}")
    dataset = datasets.DatasetDict({split: _build(splits[split], split, str(source)) for split in COUNTS})
    if check_counts:
        _check_counts(dataset, str(source))
    return dataset


def to_arrays(split: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Decode one split.

    Returns:
        Images, uint8 (N, 48, 48), and labels, int64 (N,).
    """
    import cv2

    table = split.select_columns(["image", "label"]).with_format("arrow")[:]
    images = np.empty((len(table), SIZE, SIZE), np.uint8)
    for i, encoded in enumerate(_image_bytes(table["image"])):
        images[i] = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_GRAYSCALE)
    return images, table["label"].to_numpy().astype(np.int64)


def pixel_hashes(images: np.ndarray) -> np.ndarray:
    """Hash every image by its pixels alone.

    Args:
        images: uint8 (N, H, W).

    Returns:
        Strings (N,), 64 hexadecimal digits each; two are equal if and only if the pixels are.
    """
    if images.dtype != np.uint8 or images.ndim != 3:
        raise ValueError(f"images must be uint8 (N, H, W), not {images.dtype} {images.shape}")
    return np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images], dtype="<U64")


def seen_in(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Tell which images stand in another set, pixel for pixel.

    Args:
        images: uint8 (N, H, W).
        reference: uint8 (M, H, W).

    Returns:
        bool (N,). The clean part of a split is `~seen_in(split, train)`.
    """
    return np.isin(pixel_hashes(images), pixel_hashes(reference))


def fingerprint(dataset: datasets.DatasetDict) -> str:
    """Name a dataset by its content: sha256 over the sorted (split, label, pixel hash) of all images.

    Every lossless source of FER2013 gives the same one, whatever its order of rows.
    """
    rows = []
    for name, split in dataset.items():
        images, labels = to_arrays(split)
        rows += [
            f"{name} {label} {pixels}" for label, pixels in zip(labels, pixel_hashes(images), strict=True)
        ]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def is_lossy(dataset: datasets.DatasetDict) -> bool:
    """Tell whether `load_fer2013` decoded any image from a lossy file; such pixels are not those of fer2013.csv."""
    return any(_LOSSY_NOTE in split.info.description for split in dataset.values())


def _datasets():
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            'Reading FER2013 needs the package datasets: pip install "fer-zoo[train]"'
        ) from error
    return datasets


def _read_hub(name: str) -> dict[str, _Rows]:
    try:
        loaded = _datasets().load_dataset(name)
    except Exception as error:  # whatever the Hub's client raises, the answer to the user is the same
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{name}: neither a file or folder here nor a dataset that the Hub could give ({reason})"
        ) from error
    return _from_datasets(loaded, name)


def _read_folder(folder: Path) -> dict[str, _Rows]:
    parquet = sorted(folder.rglob("*.parquet"))
    if parquet:
        return _read_parquet(parquet, folder)
    for name in _CSV_NAMES:
        for file in sorted(folder.rglob(name)):
            return _read_csv(file)
    for root in (folder, *sorted(child for child in folder.iterdir() if child.is_dir())):
        parts = {_SPLITS.get(child.name.lower()): child for child in root.iterdir() if child.is_dir()}
        if {"train", "test"} <= parts.keys():
            return _read_image_folders(parts)
    raise DataError(
        f"{folder}: holds neither parquet files, nor {' or '.join(_CSV_NAMES)}, nor the folders train and test"
    )


def _read_parquet(files: list[Path], folder: Path) -> dict[str, _Rows]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shards = defaultdict(list)
    for file in files:
        names = (file.stem.partition("-")[0], file.parent.name)
        split = next((_SPLITS[name.lower()] for name in names if name.lower() in _SPLITS), None)
        if split is None:
            raise DataError(
                f"{file}: the name tells no split; train-*.parquet, validation-*, test-* are expected"
            )
        shards[split].append(file)
    datasets = _datasets()
    try:
        loaded = {
            split: datasets.Dataset(datasets.table.InMemoryTable(pa.concat_tables(map(pq.read_table, parts))))
            for split, parts in shards.items()
        }
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder}: its parquet files cannot be read ({_first_line(error)})") from error
    return _from_datasets(loaded, str(folder))


def _from_datasets(loaded: dict[str, datasets.Dataset], source: str) -> dict[str, _Rows]:
    """Take over splits that come as image and label columns, or as the columns of Kaggle's CSV."""
    import pyarrow as pa

    splits = {}
    for name, part in loaded.items():
        table = part.with_format("arrow")[:]
        if {"emotion", "pixels", "usage"} <= {column.strip().lower() for column in table.column_names}:
            return _from_pixels(pa.concat_tables(p.with_format("arrow")[:] for p in loaded.values()), source)
        if not {"image", "label"} <= set(table.column_names):
            raise DataError(
                f"{source}: has the columns {_listed(table.column_names)}; image and label are expected"
            )
        if name.lower() not in _SPLITS:
            raise DataError(
                f"{source}: has the splits {_listed(loaded)}; train, validation and test are expected"
            )
        extra = table.drop_columns(["image", "label"])
        splits[_SPLITS[name.lower()]] = _Rows(
            images=_image_bytes(table["image"]),
            labels=_class_names(part, table["label"], source),
            extra=dict(zip(extra.column_names, extra.columns, strict=True)),
            extra_features={column: part.features[column] for column in extra.column_names},
        )
    return splits


def _class_names(part: datasets.Dataset, labels: pa.ChunkedArray, source: str) -> list[str]:
    values = labels.to_pylist()
    names = getattr(part.features["label"], "names", None)
    if names is not None:
        if not all(isinstance(value, int) and 0 <= value < len(names) for value in values):
            raise DataError(f"{source}: some labels are missing or have no name among {_listed(names)}")
        return [names[value] for value in values]
    if not all(isinstance(value, str) for value in values):
        raise DataError(
            f"{source}: the column label has numbers without names; a ClassLabel or names are expected"
        )
    return values


def _image_bytes(column: pa.ChunkedArray) -> list[bytes]:
    """Encoded images of an `Image` column, whose rows carry either bytes or the path of a file."""
    return [
        row["bytes"] if row["bytes"] is not None else Path(row["path"]).read_bytes()
        for row in column.to_pylist()
    ]


def _read_csv(file: Path) -> dict[str, _Rows]:
    import pyarrow as pa
    from pyarrow import csv

    if file.suffix.lower() != ".csv":
        raise DataError(f"{file}: is no CSV file; give a folder, fer2013.csv or a dataset id on the Hub")
    try:
        table = csv.read_csv(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as CSV ({_first_line(error)})") from error
    return _from_pixels(table, str(file))


def _from_pixels(table: pa.Table, source: str) -> dict[str, _Rows]:
    """Read the columns of Kaggle's CSV: emotion (0 to 6), pixels ("70 80 ..."), Usage; icml_face_data has spaces."""
    table = table.rename_columns([name.strip().lower() for name in table.column_names])
    if not {"emotion", "pixels", "usage"} <= set(table.column_names):
        raise DataError(
            f"{source}: has the columns {_listed(table.column_names)}; emotion, pixels and Usage are expected"
        )
    splits = defaultdict(_Rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how fromstring reports text that is no number
        for batch in table.select(["emotion", "pixels", "usage"]).to_batches():
            for emotion, pixels, usage in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                row = sum(len(rows.images) for rows in splits.values())
                split = _SPLITS.get(str(usage).strip().lower())
                if split is None:
                    raise DataError(
                        f"{source}: row {row} has Usage {usage!r}; Training, PublicTest or PrivateTest is expected"
                    )
                if emotion not in range(len(EXPRESSIONS)):
                    raise DataError(f"{source}: row {row} has emotion {emotion!r}; 0 to 6 are expected")
                splits[split].images.append(_PGM_HEADER + _parse_pixels(pixels, f"{source}: row {row}"))
                splits[split].labels.append(EXPRESSIONS[emotion])
    return splits


def _parse_pixels(text: str, where: str) -> bytes:
    try:
        values = np.fromstring(text, np.int64, sep=" ")
    except (DeprecationWarning, ValueError, TypeError):
        raise DataError(f"{where} has pixels that are no numbers") from None
    if values.size != SIZE * SIZE:
        raise DataError(f"{where} has {values.size} pixels; {SIZE * SIZE} (48x48) are expected")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where} has pixels outside 0 to 255")
    return values.astype(np.uint8).tobytes()


def _read_image_folders(folders: dict[str, Path]) -> dict[str, _Rows]:
    raise NotImplementedError


def _build(rows: _Rows, split: str, source: str) -> datasets.Dataset:
    """Decode once, strictly, and hold the pixels as they are."""
    import pyarrow as pa

    datasets = _datasets()
    lossy = False
    images = []
    for i, encoded in enumerate(rows.images):
        where = f"{source}: {split} image {i}" if rows.origins is None else rows.origins[i]
        try:
            with Image.open(io.BytesIO(encoded)) as image:
                lossy |= image.format in _LOSSY_FORMATS
                gray = image.convert("L")
        except (OSError, SyntaxError) as error:
            raise DataError(f"{where} cannot be read as an image ({_first_line(error)})") from error
        if gray.size != (SIZE, SIZE):
            raise DataError(f"{where} is {gray.width}x{gray.height}; FER2013's images are 48x48")
        images.append(_PGM_HEADER + gray.tobytes())
    features = {
        "image": datasets.Image(),
        "label": datasets.ClassLabel(names=list(EXPRESSIONS)),
        **rows.extra_features,
    }
    return datasets.Dataset.from_dict(
        {
            "image": pa.array(images, pa.binary()),
            "label": pa.array(_label_indices(rows.labels, source), pa.int64()),
            **rows.extra,
        },
        features=datasets.Features(features),
        info=datasets.DatasetInfo(
            description=_LOSSY_NOTE if lossy else "", features=datasets.Features(features)
        ),
        split=split,
    )


def _label_indices(names: list[str], source: str) -> list[int]:
    indices = [_LABELS.get(name.strip().lower()) for name in names]
    if None in indices:
        unknown = sorted({name for name, index in zip(names, indices, strict=True) if index is None})
        raise DataError(f"{source}: unknown class {_listed(unknown)}; FER2013 has {_listed(EXPRESSIONS)}")
    return indices


def _check_counts(dataset: datasets.DatasetDict, source: str) -> None:
    wrong = []
    for split, published in COUNTS.items():
        counts = np.bincount(dataset[split].data["label"].to_numpy(), minlength=len(EXPRESSIONS))
        wrong += [
            f"{split} {name} has {count} images instead of {expected}"
            for name, count, expected in zip(EXPRESSIONS, counts, published, strict=True)
            if count != expected
        ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise DataError(
            f"{source}: these are not the published counts of FER2013: {', '.join(wrong[:3])}{more}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "nothing"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
