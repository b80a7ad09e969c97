"""Labels a dataset of any size: every face of every picture, with its box and probabilities, as parquet.

    accelerate launch train/label.py --data owner/photos --model fer_cbam --out runs/photos
    accelerate launch train/label.py --data owner/photos --streaming --out runs/photos     # no download first
    accelerate launch train/label.py --data path/to/faces --faces whole --out runs/faces

The processes share the work by parts, a file each. Row n of all parts, in the order of their names, is row n
of the source; a picture that cannot be read keeps its row, with what is wrong with it. Killed and started
again, finished parts stay and the others are made.
"""

import glob
import hashlib
import math
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from accelerate import Accelerator, InitProcessGroupKwargs
from datasets import Dataset, Features, Image, IterableDataset, Value, load_dataset
from PIL.Image import Image as Picture
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fer_zoo import Recognizer
from fer_zoo.data import DataError
from fer_zoo.errors import reason
from fer_zoo.faces import DETECTORS
from fer_zoo.files import visible_files
from fer_zoo.images import ImageError, image_suffixes, load_image
from fer_zoo.loading import default_model
from train.cli import create_parser, run
from train.files import weights_sha256
from train.hardware import take_all_cores
from train.run_dir import keep_config, locked

# A batch of pictures is closed early when it holds so many pixels, which bounds memory.
BATCH_PIXELS = 50_000_000

# Rows of a part, of sources that can be cut anywhere; what a kill costs is less than one part a process.
PART_ROWS = 4096

# Columns of encoded pictures that are not marked as such.
BYTES = Value("binary")
ENCODED = (BYTES, Value("large_binary"), {"bytes": BYTES}, {"bytes": BYTES, "path": Value("string")})

# Endings of files that may hold pictures, too.
CONTAINERS = {".parquet", ".arrow", ".zip", ".tar", ".tgz", ".gz"}

# Of streams, which can be cut only where their files or row groups end.
MAX_PARTS = 1024


@dataclass(frozen=True)
class Source:
    """Pictures to label, cut into parts.

    Attributes:
        rows: Of the one column `image`, not decoded.
        parts: How many.
        size: What is known of the rows without reading them, to tell two sources apart.
    """

    rows: Dataset | IterableDataset
    parts: int
    size: str

    def part(self, index: int) -> Dataset | IterableDataset:
        """The rows of a part."""
        return self.rows.shard(num_shards=self.parts, index=index, contiguous=True)

    def count(self, parts: Iterable[int]) -> int | None:
        """Rows of some parts, or None where only reading them would tell."""
        return sum(len(self.part(i)) for i in parts) if isinstance(self.rows, Dataset) else None


def open_source(
    name: str, out: Path, *, config: str | None, split: str | None, column: str | None, streaming: bool
) -> Source:
    """Opens a dataset on the Hub, a folder of pictures or parquet files, or one parquet file.

    Args:
        name: A dataset id or a path.
        out: Where the labels go; what lies there is no source.
        config: Of a dataset on the Hub that has several.
        split: May be None where there is but one.
        column: Of the pictures; may be None where one column alone holds pictures or bytes.
        streaming: Read while labelling, without a copy on this machine's disk.

    Raises:
        DataError: It cannot be opened, has no such split or column, or is a folder of pictures and others.
    """
    path = Path(name)
    if os.path.isdir(path) and (rows := _pictures(path, out)):
        if config or split or column:
            raise DataError(f"'{name}' is a folder of pictures: it takes no --config, --split or --column")
        return Source(rows, math.ceil(len(rows) / PART_ROWS), f"{len(rows)} rows, {_listing(rows, path)}")
    if os.path.isfile(path):
        load = partial(load_dataset, "parquet", data_files=glob.escape(name))
    else:
        load = partial(load_dataset, name, config)
    try:
        splits = load(streaming=streaming)
    except Exception as error:  # of many kinds, and each means the same to the reader
        raise DataError(
            f"'{name}' is no dataset on the Hub, folder or parquet file of pictures ({reason(error)})"
        ) from error
    rows = splits[_choose("split", split, list(splits), list(splits), name)]
    features = rows.features or Features()
    images = [key for key, kind in features.items() if isinstance(kind, Image) or kind in ENCODED]
    column = _choose("column", column, images, list(features), name)
    rows = rows.select_columns(column).cast_column(column, Image(decode=False))
    rows = rows if column == "image" else rows.rename_column(column, "image")
    if isinstance(rows, IterableDataset):
        rows = rows.reshard()
        return Source(rows, max(1, min(rows.num_shards, MAX_PARTS)), f"{rows.num_shards} pieces")
    return Source(rows, max(1, math.ceil(len(rows) / PART_ROWS)), f"{len(rows)} rows")


def _pictures(folder: Path, out: Path) -> Dataset | None:
    """The picture files of a folder; None where there is none.

    `datasets` would take words such as test in their names for splits, and knows fewer formats.
    """
    found = visible_files(folder, image_suffixes() | CONTAINERS)
    files = [os.path.abspath(file) for file in found if file.suffix.lower() not in CONTAINERS]
    if not files:
        return None
    for file in files:
        if file != (name := file.encode(errors="backslashreplace").decode()):
            raise DataError(f"{name} has a name that is not UTF-8, as parquet wants it: rename it")
    for other in found:
        if other.suffix.lower() in CONTAINERS and out.resolve() not in other.resolve().parents:
            raise DataError(
                f"'{folder}' holds pictures, and {other.name}: give the folder of the ones or others"
            )
    return Dataset.from_dict({"image": files}).cast_column("image", Image(decode=False))


def _listing(rows: Dataset, folder: Path) -> str:
    """The sha256 of the files' names and lengths: with one file more and one less, rows move."""
    files = [row["path"] for row in rows["image"]]
    lines = [f"{os.path.relpath(file, folder)} {os.path.getsize(file)}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _choose(kind: str, wanted: str | None, likely: list[str], there: list[str], name: str) -> str:
    if wanted is None and len(likely) == 1:
        return likely[0]
    if wanted in there:
        return wanted
    problem = f"no {kind} {wanted}" if wanted else f"not one {kind} of pictures"
    raise DataError(f"'{name}' has {problem}: choose by --{kind} among {', '.join(there) or 'none'}")


class Labeler:
    """Turns pictures into rows of parquet.

    Args:
        recognizer: What finds and reads the faces.
        batch_size: Pictures that go through it at once.

    Attributes:
        schema: `path` (where the source has one), `faces` (largest first: `box` in pixels of the upright
            picture, `score` of the detector, `label`, its probability `confidence`, whether that makes it
            `unsure`, and all `probs`), and `error`, null for a picture that was read.
    """

    def __init__(self, recognizer: Recognizer, batch_size: int) -> None:
        self.recognizer = recognizer
        self.batch_size = batch_size
        face = {
            "box": pa.list_(pa.float32(), 4),
            "score": pa.float32(),
            "label": pa.string(),
            "confidence": pa.float32(),
            "unsure": pa.bool_(),
            "probs": pa.struct(dict.fromkeys(recognizer.labels, pa.float32())),
        }
        faces = pa.list_(pa.struct(face))
        self.schema = pa.schema({"path": pa.string(), "faces": faces, "error": pa.string()})

    def write(self, rows: Iterable[dict[str, Any]], file: Path, bar: tqdm) -> None:
        """Labels a part into a file that is whole or absent."""
        unfinished = file.with_name(file.name + ".tmp")  # after a kill the next run takes its place
        with pq.ParquetWriter(unfinished, self.schema) as writer:
            for batch in self._batches(rows):
                writer.write_table(pa.Table.from_pylist(self._label(batch), self.schema))
                bar.update(len(batch))
        os.replace(unfinished, file)

    def _batches(self, rows: Iterable[dict[str, Any]]) -> Iterator[list[tuple[str | None, Picture | str]]]:
        """Path, and either the picture or what is wrong with it."""
        batch, pixels = [], 0
        for row in rows:
            image = row["image"] or {"bytes": None, "path": None}
            try:
                picture = load_image(_content(**image))
            except ImageError as error:
                picture = str(error)
            batch.append((image["path"], picture))
            pixels += 0 if isinstance(picture, str) else picture.width * picture.height
            if len(batch) == self.batch_size or pixels > BATCH_PIXELS:
                yield batch
                batch, pixels = [], 0
        if batch:
            yield batch

    def _label(self, batch: list[tuple[str | None, Picture | str]]) -> list[dict[str, Any]]:
        read = iter(self.recognizer([picture for _, picture in batch if not isinstance(picture, str)]))
        return [
            {"path": path, "faces": [], "error": picture}
            if isinstance(picture, str)
            else {"path": path, "faces": [face.to_dict() for face in next(read)], "error": None}
            for path, picture in batch
        ]


def _content(bytes: bytes | None, path: str | None) -> bytes | str:
    """What `load_image` is to read."""
    if bytes:
        return bytes
    if not path:
        raise ImageError("There is no picture in this row.")
    if "://" not in path:
        return path
    with fsspec.open(path, "rb") as file:  # in an archive or on the Hub; a lost connection ends the run
        return file.read()


def label_parts(source: Source, files: list[Path], labeler: Labeler, accelerator: Accelerator) -> None:
    """Writes the files that are missing, a part each, shared by all processes, and waits for them."""
    rank, world = accelerator.process_index, accelerator.num_processes
    mine = range(rank, source.parts, world)
    missing = [i for i in mine if not files[i].exists()]
    total, done = source.count(mine), source.count(i for i in mine if i not in missing)
    with tqdm(
        total=total, initial=done or 0, unit="picture", desc=f"1 of {world}" if world > 1 else None,
        disable=not accelerator.is_main_process,
    ) as bar:  # fmt: skip
        for i in missing:
            labeler.write(source.part(i), files[i], bar)
    accelerator.wait_for_everyone()


def summary(files: list[Path]) -> str:
    """One sentence on all that was labelled."""
    rows = errors = 0
    labels = Counter()
    for file in files:
        table = pq.read_table(file, columns=["faces", "error"])
        rows += len(table)
        errors += len(table) - table["error"].null_count
        labels.update(pc.struct_field(pc.list_flatten(table["faces"]), "label").to_pylist())
    faces = ", ".join(f"{count:,} {label}" for label, count in labels.most_common())
    unread = f"; {errors:,} pictures could not be read" if errors else ""
    return f"{rows:,} pictures, {labels.total():,} faces{': ' * bool(labels)}{faces}{unread}"


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("--data", required=True, help="a dataset's id on the Hub, a folder or a parquet file")
    parser.add_argument("--config", help="of a dataset on the Hub that has several")
    parser.add_argument("--split", help="needed where there are several")
    parser.add_argument("--column", help="of the pictures; needed where it is not clear")
    parser.add_argument("--streaming", action="store_true", help="read while labelling, keep no copy")
    parser.add_argument("--model", help="a name or a file (default: the best installed)")
    parser.add_argument("--faces", default="auto", choices=DETECTORS, help="detector (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures at once (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the parts")
    args = parser.parse_args()
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be 1 or more, not {args.batch_size}")

    # one process may download, or label its last part, for hours while the others wait
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(days=7))])
    take_all_cores(accelerator)
    choice = {key: getattr(args, key) for key in ("config", "split", "column", "streaming")}
    with accelerator.main_process_first():  # it downloads, the others find the copy
        source = open_source(args.data, args.out, **choice)
        model = args.model or default_model()
        device = None if model.endswith(".onnx") else accelerator.device
        recognizer = Recognizer(model, faces=args.faces, device=device)
    settings = choice | {
        "data": args.data,
        "size": source.size,
        "parts": source.parts,
        "model": model,
        "weights": weights_sha256(recognizer.model, model),
        "sure_from": recognizer.sure_from,
        "faces": type(recognizer.detector).__name__,
    }
    files = [args.out / f"part-{i:05d}-of-{source.parts:05d}.parquet" for i in range(source.parts)]
    if accelerator.num_processes > source.parts and accelerator.is_main_process:
        print(
            f"note: {source.parts} of {accelerator.num_processes} processes have work, one a part",
            file=sys.stderr,
        )
    with locked(args.out, accelerator):
        keep_config(args.out, settings, accelerator)
        label_parts(source, files, Labeler(recognizer, args.batch_size), accelerator)
    if accelerator.is_main_process:
        print(f"{args.out}: {summary(files)}")
    accelerator.end_training()


if __name__ == "__main__":
    run(main)
