"""Datasets that `train/label.py` labels: every row once, in order, whatever happens on the way."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Repo, running_hub
from launch import ENV, ROOT, run, run_here, run_two
from PIL import Image

from fer_zoo import Recognizer
from train import label

MODEL = ROOT / "fer_zoo" / "weights" / "fer_cnn.paper.safetensors"


def labelled(out: Path) -> list[dict]:
    """All rows, in the order of the parts."""
    return pa.concat_tables(pq.read_table(file) for file in sorted(out.glob("part-*.parquet"))).to_pylist()


def command(source: Path | str, out: Path, *more: object) -> tuple:
    return ("train/label.py", "--data", source, "--out", out, "--model", MODEL, *more)


def faces(count: int) -> list[bytes]:
    """Pictures of noise, each another."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (48, 48), np.uint8) for _ in range(count)]


def write_parquet(file: Path, count: int, row_group: int, broken: tuple[int, ...] = ()) -> Path:
    """Pictures as PNG in a parquet file; the broken ones are text, the last of them is null."""
    images = []
    for i, pixels in enumerate(faces(count)):
        buffer = pa.BufferOutputStream()
        Image.fromarray(pixels).save(buffer, "PNG")
        content = b"no picture" if i in broken else buffer.getvalue().to_pybytes()
        images.append(None if broken and i == broken[-1] else content)
    table = pa.table({"image": pa.array(images, pa.binary()), "row": range(count)})
    pq.write_table(table, file, row_group_size=row_group)
    return file


@pytest.fixture(scope="module")
def parquet(tmp_path_factory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("rows") / "rows.parquet", 90, 20, broken=(7, 41))


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """Probabilities of all pictures, read one after the other."""
    recognizer = Recognizer(MODEL, faces="whole")
    return np.array([list(recognizer(pixels)[0].probs.values()) for pixels in faces(90)])


def check_rows(rows: list[dict], expected: np.ndarray) -> None:
    assert len(rows) == len(expected)
    for i, (row, probs) in enumerate(zip(rows, expected, strict=True)):
        if i in (7, 41):
            assert row["faces"] == []
            assert row["error"] == (
                "The image is not an image that can be read, such as JPEG, PNG or WebP."
                if i == 7
                else "There is no picture in this row."
            )
            continue
        (face,) = row["faces"]
        assert row["error"] is None and face["box"] == [0, 0, 48, 48]
        assert list(face["probs"].values()) == pytest.approx(probs, abs=1e-5)
        assert face["label"] == max(face["probs"], key=face["probs"].get)
        assert face["confidence"] == max(face["probs"].values())
        assert face["unsure"] is False  # a file has no known threshold


def test_a_folder_of_photos(examples, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    for name in ("astronaut.jpg", "grace_hopper.jpg"):
        (folder / name).write_bytes((examples / name).read_bytes())
    (folder / "broken.jpg").write_bytes((examples / "astronaut.jpg").read_bytes()[:3000])
    done = run(*command(folder / ".." / "photos", out, "--faces", "mtcnn"))
    assert done.returncode == 0, done.stderr
    assert "3 pictures, 2 faces" in done.stdout and "1 pictures could not be read" in done.stdout

    rows = labelled(out)
    assert [Path(row["path"]).name for row in rows] == ["astronaut.jpg", "broken.jpg", "grace_hopper.jpg"]
    assert rows[1]["faces"] == [] and "cut short" in rows[1]["error"]
    recognizer = Recognizer(MODEL, faces="mtcnn")
    for row in (rows[0], rows[2]):
        (face,), (wanted,) = row["faces"], recognizer(row["path"])
        assert face["box"] == pytest.approx(wanted.box, abs=0.1)
        assert face["probs"] == pytest.approx(wanted.probs, abs=1e-5)
        assert face["label"] == wanted.label and face["score"] == pytest.approx(wanted.score)


def test_no_photo_of_a_folder_is_left_out(tmp_path):
    """Words that mean splits elsewhere, formats, and signs that mean patterns are but names here."""
    folder = tmp_path / "photos [1]"
    names = ["test/a.webp", "train_station.JPG", "val.tiff", "x/dev/b.png", "y.avif"]
    for name, pixels in zip(names, faces(len(names)), strict=True):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(file)
    (folder / ".cache").mkdir()
    for hidden in (".cache/c.png", "x/._b.png"):
        (folder / hidden).write_bytes(b"no picture")
    done = run_here(*command(folder, tmp_path / "out", "--faces", "whole"))
    assert done.returncode == 0, done.stderr
    rows = labelled(tmp_path / "out")
    assert [row["path"] for row in rows] == [str(folder / name) for name in names]
    assert all(row["error"] is None and len(row["faces"]) == 1 for row in rows)
    again = run_here(*command(folder, tmp_path / "out", "--faces", "whole", "--column", "image"))
    assert again.returncode == 2 and "takes no --config, --split or --column" in again.stderr
    assert run_here(*command(folder, folder / "out", "--faces", "whole")).returncode == 0
    assert run_here(*command(folder, folder / "out", "--faces", "whole")).returncode == 0, "nor is its own"
    (folder / "y.avif").rename(folder / "z.avif")  # the same number of rows, and others
    moved = run_here(*command(folder, folder / "out", "--faces", "whole"))
    assert moved.returncode == 2 and "holds another run: size is 5 rows" in moved.stderr
    (folder / "more.zip").touch()
    mixed = run_here(*command(folder, tmp_path / "out", "--faces", "whole"))
    assert mixed.returncode == 2 and "holds pictures, and more.zip" in mixed.stderr


@pytest.mark.parametrize("form", ["large", "struct"])
def test_columns_of_other_writers(form, tmp_path):
    buffer = pa.BufferOutputStream()
    Image.fromarray(faces(1)[0]).save(buffer, "PNG")
    content = buffer.getvalue().to_pybytes()
    column = pa.array([content], pa.large_binary()) if form == "large" else [{"bytes": content, "path": "a"}]
    file = tmp_path / "rows [1].parquet"
    pq.write_table(pa.table({"face": column, "row": [0]}), file)
    source = label.open_source(str(file), tmp_path, config=None, split=None, column=None, streaming=False)
    (row,) = source.part(0)
    assert row["image"] == {"bytes": content, "path": None if form == "large" else "a"}


def test_a_dataset_on_the_hub(parquet, expected, tmp_path):
    out = tmp_path / "out"
    launch = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", 1, "--num_machines", 1)
    launch += ("--mixed_precision", "no", "--dynamo_backend", "no")
    with running_hub() as hub:
        hub.repos["dataset", "me/photos"] = repo = Repo(private=False)
        repo.commit("main", {"train.parquet": parquet.read_bytes()})
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        done = run(*launch, *command("me/photos", out, "--faces", "whole", "--streaming"), **env)
        assert done.returncode == 0, done.stderr
        check_rows(labelled(out), expected)
        assert any("/resolve/" in line and " bytes=" in line for line in hub.log)  # without a whole copy


def test_pictures_in_an_archive_are_streamed(examples, tmp_path):
    folder, out = tmp_path / "photos", tmp_path / "out"
    folder.mkdir()
    with zipfile.ZipFile(folder / "photos.zip", "w") as file:
        file.write(examples / "astronaut.jpg", "astronaut.jpg")
    done = run(*command(folder, out, "--faces", "mtcnn", "--streaming"))
    assert done.returncode == 0, done.stderr
    (row,) = labelled(out)
    assert len(row["faces"]) == 1 and "astronaut.jpg" in row["path"]


@pytest.mark.parametrize("streaming", [True, False])
def test_bad_rows_keep_their_place_for_one_process_and_two(parquet, expected, tmp_path, streaming):
    more = ("--faces", "whole", "--batch-size", 8, *(["--streaming"] if streaming else []))
    for launch, out in ((run_here, tmp_path / "one"), (run_two, tmp_path / "two")):
        done = launch(*command(parquet, out, *more))
        assert done.returncode == 0, done.stderr
        assert "90 pictures, 88 faces" in done.stdout
        check_rows(labelled(out), expected)
        # 5 row groups are 5 parts of a stream
        assert len(list(out.glob("part-*"))) == (5 if streaming else 1)
    assert ("1 of 2 processes" in done.stderr) is not streaming


def test_killed_and_started_again_no_row_is_lost_or_doubled(tmp_path):
    source = write_parquet(tmp_path / "rows.parquet", 3000, 100)
    out = tmp_path / "out"
    args = [str(arg) for arg in command(source, out, "--faces", "whole", "--streaming")]
    process = subprocess.Popen([sys.executable, *args], cwd=ROOT, env=ENV, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("part-*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {file: file.stat().st_mtime_ns for file in out.glob("part-*.parquet")}
    assert 0 < len(before) < 30

    done = run_two(*args)
    assert done.returncode == 0, done.stderr
    rows = labelled(out)
    assert len(rows) == 3000 and not list(out.glob("*.tmp"))
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())
    probs = np.array([list(row["faces"][0]["probs"].values()) for row in rows])
    recognizer = Recognizer(MODEL, faces="whole")
    wanted = np.array([list(found[0].probs.values()) for found in recognizer(faces(3000))])
    assert probs == pytest.approx(wanted, abs=1e-5)

    other = run_here(*command(source, out, "--faces", "mtcnn", "--streaming"))
    assert other.returncode == 2 and "faces is WholePicture there and Mtcnn now" in other.stderr


@pytest.mark.parametrize(
    ("make", "more", "sentence"),
    [
        (None, (), "no dataset on the Hub, folder or parquet file"),
        ("text", (), "no dataset on the Hub, folder or parquet file"),
        ("columns", (), "choose by --column among a, b"),
        ("columns", ("--column", "c"), "has no column c: choose by --column among a, b"),
        ("columns", ("--split", "test"), "has no split test: choose by --split among train"),
        ("columns", ("--column", "a", "--batch-size", "0"), "--batch-size must be 1 or more"),
        ("columns", ("--column", "a", "--model", "fer_cmb"), "did you mean fer_cbam"),
        ("name", (), "caf\\udce9.jpg has a name that is not UTF-8"),
    ],
)
def test_a_wrong_source_is_one_sentence(tmp_path, make, more, sentence):
    source = tmp_path / "rows.parquet"
    if make == "text":
        source.write_text("no parquet")
    elif make == "columns":
        pq.write_table(pa.table({"a": [b""], "b": [b""]}), source)
    elif make == "name":
        source.mkdir()
        try:
            (source / os.fsdecode(b"caf\xe9.jpg")).touch()
        except OSError as error:
            pytest.skip(f"this disk takes no such name: {error}")
    done = run_here(*command(source, tmp_path / "out"), *more)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and sentence in last
