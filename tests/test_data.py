"""FER2013 from every form in which it is passed around: the same images, labels, splits and fingerprint."""

from __future__ import annotations

import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from drawn_fer2013 import (
    as_datasets,
    draw,
    encode,
    write_csv,
    write_named_folder,
    write_numbered_folder,
    write_parquet,
)
from PIL import Image

from fer_zoo.data import COUNTS, DataError, is_lossy, load_fer2013, to_arrays
from fer_zoo.identity import pixel_hashes
from fer_zoo.labels import EXPRESSIONS
from train.dataset import Fer2013

REAL = Path(__file__).parents[2] / "shared" / "fer2013"
OTHER_NAMES = {
    "angry": "Anger",
    "disgust": "disgusted",
    "fear": "fearful",
    "happy": "happiness",
    "sad": "sadness",
    "surprise": "surprised",
}


@pytest.fixture(scope="module")
def drawn():
    return draw()


@pytest.fixture
def hub(monkeypatch, drawn):
    """The Hub, holding one dataset; any other id fails as it does for the real one."""

    def load_dataset(name):
        if name != "someone/fer2013":
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        return as_datasets(drawn)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)


def small(source):
    return load_fer2013(source, check_counts=False)


def rows(dataset, split):
    """What a split holds, whatever the order of its rows."""
    images, labels = to_arrays(dataset[split])
    return sorted(zip(pixel_hashes(images), labels, strict=True))


def same_content(dataset, drawn):
    return all(
        rows(dataset, split) == sorted(zip(pixel_hashes(images), labels, strict=True))
        for split, (images, labels) in drawn.items()
    )


def write_shuffled_splits(folder, drawn):
    """Image folders for all three splits, with numbers as names and classes of other names."""
    for split, folder_name in {"train": "Training", "validation": "val", "test": "PrivateTest"}.items():
        for i, (image, label) in enumerate(zip(*drawn[split], strict=True)):
            name = OTHER_NAMES.get(EXPRESSIONS[label], EXPRESSIONS[label])
            file = folder / folder_name / name / f"{i}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(image, "BMP"))
    return folder


def inside(folder, write, *args):
    folder.mkdir()
    write(folder / "unpacked", *args)
    return folder


LOSSLESS = {
    "parquet": lambda p, d: write_parquet(p / "fer", d),
    "parquet, classes in another order": lambda p, d: write_parquet(p / "fer", d, EXPRESSIONS[::-1]),
    "fer2013.csv": lambda p, d: write_csv(p / "fer2013.csv", d),
    "icml_face_data.csv": lambda p, d: write_csv(
        p / "icml_face_data.csv", d, ("emotion", " Usage", " pixels")
    ),
    "folder with a csv": lambda p, d: write_csv(p / "fer2013.csv", d).parent,
    "named folder": lambda p, d: write_named_folder(p / "fer", d, classes=OTHER_NAMES),
    "numbered folder": lambda p, d: write_numbered_folder(p / "fer", d),
    "numbered folder, one level down": lambda p, d: inside(p / "fer", write_numbered_folder, d, OTHER_NAMES),
    "three folders": lambda p, d: write_shuffled_splits(p / "fer", d),
}


@pytest.mark.parametrize("form", LOSSLESS)
def test_every_lossless_form_gives_the_same_dataset(form, tmp_path, drawn):
    dataset = small(LOSSLESS[form](tmp_path, drawn))

    assert list(dataset) == ["train", "validation", "test"]
    assert dataset["train"].features["label"].names == list(EXPRESSIONS)
    image = dataset["test"][0]["image"]
    assert isinstance(image, Image.Image) and image.mode == "L" and image.size == (48, 48)
    assert same_content(dataset, drawn)
    assert (
        Fer2013.of(dataset).fingerprint
        == Fer2013.of(small(write_csv(tmp_path / "reference.csv", drawn))).fingerprint
    )
    assert not is_lossy(dataset)


def test_hub(hub, drawn):
    dataset = small("someone/fer2013")
    assert same_content(dataset, drawn)


def test_hub_dataset_made_from_the_csv(monkeypatch, tmp_path, drawn):
    single = datasets.Dataset.from_csv(
        str(write_csv(tmp_path / "fer2013.csv", drawn)), cache_dir=str(tmp_path / "cache")
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name: datasets.DatasetDict(train=single))
    assert same_content(small("someone/fer2013"), drawn)


def test_classes_are_matched_by_other_names_too(tmp_path, drawn):
    plain = as_datasets(drawn, names=EXPRESSIONS)
    (tmp_path / "fer").mkdir()
    to_other = {"happy": "happiness", "angry": "anger", "sad": "sadness", "fear": "Fearful"}
    for split, part in plain.items():
        names = [to_other.get(EXPRESSIONS[label], EXPRESSIONS[label]) for label in part["label"]]
        part.remove_columns("label").add_column("label", names).to_parquet(
            tmp_path / "fer" / f"{split}.parquet"
        )
    assert same_content(small(tmp_path / "fer"), drawn)


def test_rows_and_further_columns_keep_their_order(tmp_path, drawn):
    dataset = small(write_parquet(tmp_path / "fer", drawn))
    assert dataset["train"].column_names == ["image", "label", "row", "ferplus"]
    assert list(dataset["train"]["row"]) == list(range(len(drawn["train"][0])))
    np.testing.assert_array_equal(to_arrays(dataset["train"])[0], drawn["train"][0])


def test_arrays(tmp_path, drawn):
    split = small(write_csv(tmp_path / "fer2013.csv", drawn))["validation"]
    images, labels = to_arrays(split)
    assert images.dtype == np.uint8 and images.shape == (14, 48, 48)
    assert labels.dtype == np.int64 and labels.shape == (14,)
    np.testing.assert_array_equal(images, np.stack([np.asarray(image) for image in split["image"]]))

    chosen = [5, 0, 7]
    np.testing.assert_array_equal(to_arrays(split.select(chosen))[0], images[chosen])


def test_arrays_of_another_dataset_must_be_48x48():
    other = datasets.Dataset.from_dict(
        {"image": [Image.new("L", (96, 96))], "label": [0]},
        features=datasets.Features(image=datasets.Image(), label=datasets.Value("int64")),
    )
    with pytest.raises(DataError, match="image 0 is no readable image of 48x48 pixels"):
        to_arrays(other)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_folders_are_flagged(kind, tmp_path, drawn):
    dataset = small(write_named_folder(tmp_path / "fer", drawn, kind))
    assert is_lossy(dataset)
    assert is_lossy(dataset.filter(lambda label: label == 3, input_columns="label", keep_in_memory=True))
    assert (
        Fer2013.of(dataset).fingerprint
        != Fer2013.of(small(write_csv(tmp_path / "fer2013.csv", drawn))).fingerprint
    )
    assert [len(split) for split in dataset.values()] == [14, 14, 14]


def test_lossy_parquet_is_flagged(monkeypatch, drawn):
    monkeypatch.setattr(datasets, "load_dataset", lambda name: as_datasets(drawn, kind="JPEG"))
    assert is_lossy(small("someone/fer2013"))


def test_hidden_files_are_passed_over(tmp_path, drawn):
    """Those that macOS and Jupyter leave behind."""
    folder = write_named_folder(tmp_path / "fer", drawn)
    for hidden in (".ipynb_checkpoints/", "train/.ipynb_checkpoints/", "train/angry/"):
        (folder / hidden).mkdir(exist_ok=True)
        (folder / hidden / "._im0.png").write_bytes(b"no picture")
    (folder / "._more.parquet").write_bytes(b"no table")
    (folder / ".old").mkdir()
    (folder / ".old" / "fer2013.csv").write_text("no table")
    assert same_content(small(folder), drawn)


def test_public_test_comes_first_in_a_numbered_test_folder(tmp_path, drawn):
    folder = write_numbered_folder(tmp_path / "fer", drawn)
    published = COUNTS["validation"][1], COUNTS["test"][1]
    for i in range(sum(published)):
        (folder / "test" / "disgust" / f"im{i}.png").write_bytes(encode(np.full((48, 48), i, np.uint8)))
    dataset = small(folder)
    for split, first, count in (("validation", 0, published[0]), ("test", *published)):
        images, labels = to_arrays(dataset[split])
        assert images[labels == 1, 0, 0].tolist() == list(range(first, first + count))


def test_fingerprint_sees_every_change(drawn, tmp_path):
    def of(changed):
        return Fer2013.of(small(write_csv(tmp_path / "fer2013.csv", changed))).fingerprint

    images, labels = drawn["test"]
    pixel = images.copy()
    pixel[3, 20, 20] ^= 1
    changes = [
        drawn | {"test": (pixel, labels)},
        drawn | {"test": (images, labels[::-1])},
        drawn | {"train": drawn["test"], "test": drawn["train"]},
    ]
    assert of(drawn) == of({split: (part[0][::-1], part[1][::-1]) for split, part in drawn.items()})
    assert len({of(drawn), *map(of, changes)}) == 4


def test_what_stands_in_train_too_is_not_clean(drawn, tmp_path):
    train = drawn["train"][0]
    data = Fer2013.of(small(write_csv(tmp_path / "fer2013.csv", drawn)))
    assert data.clean("test").tolist() == [False] + [True] * 13
    assert len(set(pixel_hashes(train))) == len(train)
    with pytest.raises(ValueError, match=r"images must be uint8 \(N, H, W\), not float64 \(2, 48, 48\)"):
        pixel_hashes(np.zeros((2, 48, 48)))


# Every way of being no FER2013, and what the one sentence has to say.


def rename(folder, old, new):
    (folder / old).rename(folder / new)
    return folder


def put(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def csv_with(**changes):
    return lambda folder, drawn: write_csv(folder / "fer2013.csv", drawn, **changes)


def image_replaced(name, content):
    return lambda folder, drawn: put(
        write_named_folder(folder / "fer", drawn) / "train" / name, content
    ).parents[2]


def parquet_with(change):
    def write(folder, drawn):
        (folder / "fer").mkdir()
        for split, part in as_datasets(drawn).items():
            change(part).to_parquet(folder / "fer" / f"{split}.parquet")
        return folder / "fer"

    return write


def column_replaced(name, value, feature=None):
    return parquet_with(
        lambda part: part.remove_columns(name).add_column(name, [value] * len(part), feature=feature)
    )


PIXELS = "does not have 2304 pixels (48x48) from 0 to 255"
CONTEMPT = datasets.ClassLabel(names=["contempt", *EXPRESSIONS[1:]])
BAD = {
    "missing": ("there is no such file or folder", lambda p, d: p / "nothing" / "here"),
    "empty": (
        "holds no parquet files, no fer2013.csv or icml_face_data.csv, no train and test",
        lambda p, d: p,
    ),
    "empty csv": ("cannot be read as a CSV file", lambda p, d: put(p / "fer2013.csv", b"")),
    "picture": ("cannot be read as a CSV file", lambda p, d: put(p / "face.png", encode(d["train"][0][0]))),
    "other csv": (
        "has the columns a, b; it needs emotion, pixels, Usage",
        lambda p, d: put(p / "fer2013.csv", b"a,b\n1,2\n"),
    ),
    "usage": ("row 0 is neither Training nor PublicTest nor PrivateTest", csv_with(Usage="Holdout")),
    "emotion": ("row 0 has emotion 7, not a number from 0 to 6", csv_with(emotion="7")),
    "few pixels": (f"row 0 {PIXELS}", csv_with(pixels="1 2 3")),
    "bright pixels": (f"row 0 {PIXELS}", csv_with(pixels=" ".join(["256"] * 2304))),
    "no numbers": (f"row 0 {PIXELS}", csv_with(pixels=" ".join(["1"] * 2304) + " x")),
    "no test": (
        "has no images for test, only for train, validation",
        lambda p, d: write_csv(p / "fer2013.csv", {split: d[split] for split in ("train", "validation")}),
    ),
    "class folder": (
        "unknown class 'contempt'; FER2013 has angry, disgust",
        lambda p, d: rename(write_named_folder(p / "fer", d), "train/sad", "train/contempt"),
    ),
    "file names": (
        "the file names do not tell PublicTest from PrivateTest",
        lambda p, d: rename(write_numbered_folder(p / "fer", d), "test/sad/im0.png", "test/sad/portrait.png"),
    ),
    "text as image": (
        "Training_0.png cannot be read as an image",
        image_replaced("angry/Training_0.png", b"no image"),
    ),
    "truncated image": (
        "Training_1.png cannot be read as an image",
        image_replaced("disgust/Training_1.png", encode(draw()["train"][0][0])[:900]),
    ),
    "image size": (
        "Training_2.png is 96x64 pixels; FER2013's images are 48x48",
        image_replaced("fear/Training_2.png", encode(np.zeros((64, 96), np.uint8))),
    ),
    "broken parquet": (
        "the parquet files cannot be read",
        lambda p, d: put(p / "fer/train.parquet", b"no parquet").parent,
    ),
    "parquet name": (
        "faces.parquet: is not named after a split",
        lambda p, d: put(p / "fer/faces.parquet", b"").parent,
    ),
    "columns": (
        "has the columns image, row, ferplus; it needs image and label",
        parquet_with(lambda part: part.remove_columns("label")),
    ),
    "labels without names": (
        "the column label holds numbers without the names of their classes",
        parquet_with(lambda part: part.cast_column("label", datasets.Value("int64"))),
    ),
    "no label": (
        "some images have no label",
        column_replaced("label", None, datasets.ClassLabel(names=EXPRESSIONS)),
    ),
    "no images": ("the column image holds no images", column_replaced("image", 0.5)),
    "null image": (
        "train image 0 cannot be read as an image",
        column_replaced("image", None, datasets.Image()),
    ),
    "class name": (
        "unknown class 'contempt'",
        parquet_with(lambda part: part.cast_column("label", CONTEMPT)),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_fer2013_is_refused_in_one_sentence(case, tmp_path, drawn):
    sentence, write = BAD[case]
    source = write(tmp_path, drawn)
    with pytest.raises(DataError) as raised:
        small(source)
    message = str(raised.value)
    assert sentence in message
    assert message.startswith(str(tmp_path)) and "\n" not in message


def test_wrong_counts_are_refused(tmp_path, drawn):
    with pytest.raises(DataError) as raised:
        load_fer2013(write_csv(tmp_path / "fer2013.csv", drawn))
    assert str(raised.value).endswith(
        "these are not FER2013's published counts: train angry has 2 images instead of 3995, train disgust "
        "has 2 images instead of 436, train fear has 2 images instead of 4097 (and 18 more)"
    )


def test_hub_dataset_that_is_not_there(hub):
    with pytest.raises(
        DataError, match="nobody/nothing: no such file or folder, nor could it be had from the Hub"
    ):
        load_fer2013("nobody/nothing")


def test_hub_dataset_with_other_splits(monkeypatch, drawn):
    other = as_datasets(drawn)
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda name: datasets.DatasetDict(train=other["train"], everything=other["test"]),
    )
    with pytest.raises(DataError, match="has the splits train, everything; it needs train, validation, test"):
        small("someone/fer2013")


def test_without_datasets_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(
        ImportError, match=r'^Reading FER2013 needs "datasets": pip install "fer-zoo\[train\]"$'
    ):
        load_fer2013(".")


@pytest.mark.skipif(not REAL.is_dir(), reason="the real FER2013 is not at ../shared/fer2013")
def test_real_fer2013():
    dataset = load_fer2013(REAL)
    assert {split: len(part) for split, part in dataset.items()} == {
        "train": 28709,
        "validation": 3589,
        "test": 3589,
    }
    data = Fer2013.of(dataset)
    assert data.fingerprint == "5f706d6b605161503cb202e2b74daf7ad6f530fb3384e1bd613409642622872e"
    seen = {split: int((~data.clean(split)).sum()) for split in ("validation", "test")}
    assert seen == {"validation": 280, "test": 288}
