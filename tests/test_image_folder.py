"""A folder of faces with labels of its own: how it is read, and a network that learns it."""

import itertools
import json
import shutil

import pytest
import torch
from drawn_fer2013 import draw
from launch import run_here
from PIL import Image

from fer_zoo import Recognizer
from fer_zoo.data import DataError
from fer_zoo.preprocess import normalize, to_input
from train.dataset import load_image_folder
from train.package import package


@pytest.mark.parametrize("split", [False, True])
def test_a_zoo_model_learns_other_labels_from_a_folder(split, tmp_path):
    """From a folder of pictures of any size to a recogniser of its classes."""
    images, labels = draw(per_class=20, waves=True)["train"]
    folder = tmp_path / "faces"
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        if label < 3:
            part = ("validation" if i % 5 == 0 else "train") if split else ""
            file = folder / part / ("calm", "bored", "keen")[label] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).convert("RGB").resize((60, 72)).save(file)
    out = tmp_path / "run"
    args = ("--model", "fer_cnn", "--pretrained", "--images", folder, "--epochs", 4, "--batch-size", 16)
    done = run_here("train/fit.py", *args, "--out", out)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "result.json").read_text())["validation_images"] in (
        (12,) if split else (9, 10, 11)
    )

    recognizer = Recognizer(package(out, "mood", tmp_path), faces="whole")
    assert recognizer.labels == ("bored", "calm", "keen")
    (face,) = recognizer(Image.fromarray(images[0]))
    assert face.label in recognizer.labels and sum(face.probs.values()) == pytest.approx(1)


def test_pictures_of_any_shape_are_learnt_as_they_are_read(tmp_path):
    recognizer = Recognizer("fer_cnn", faces="whole")
    for part in ("train", "validation"):
        for label in "ab":
            file = tmp_path / part / label / "tall.png"
            file.parent.mkdir(parents=True)
            Image.effect_noise((40, 60), 90).convert("RGB").resize((100, 150)).save(file)
    learnt, _, _ = load_image_folder(tmp_path, 48)
    (face,) = recognizer(tmp_path / "train" / "a" / "tall.png")
    read = to_input([face.crop], recognizer.model)
    torch.testing.assert_close(
        normalize(torch.from_numpy(learnt.images[:1, None]), recognizer.model.pretrained_cfg), read
    )


def test_folders_that_hold_no_faces(tmp_path):
    for name, says in (
        ("none", "no such folder"),
        ("empty", "no folders of images"),
        ("flat", r"one folder a class, and a\.png is in none"),
    ):
        folder = tmp_path / name
        if name != "none":
            folder.mkdir()
        if name == "flat":
            Image.new("L", (48, 48)).save(folder / "a.png")
        with pytest.raises(DataError, match=says):
            load_image_folder(folder, 48)
    for label in "ab":
        (folder / label).mkdir()
        (folder / label / "bad.png").write_bytes(b"no picture")
    (folder / "a.png").unlink()
    with pytest.raises(DataError, match=r"bad\.png"):
        load_image_folder(folder, 48)
    for label in "ab":
        file = tmp_path / "late" / "validation" / label / "a.png"
        file.parent.mkdir(parents=True)
        Image.new("L", (48, 48)).save(file)
    with pytest.raises(DataError, match="has validation and no train"):
        load_image_folder(tmp_path / "late", 48)
    with pytest.raises(DataError, match="a has 1 images: at least 6 are needed"):
        load_image_folder(tmp_path / "late" / "validation", 48)
    (tmp_path / "late" / "validation" / "b").rename(tmp_path / "late" / "train")
    with pytest.raises(DataError, match=r"one folder a class, and a\.png is in none"):
        load_image_folder(tmp_path / "late", 48)
    (tmp_path / "late" / "train" / "b").mkdir()
    (tmp_path / "late" / "train" / "a.png").rename(tmp_path / "late" / "train" / "b" / "a.png")
    with pytest.raises(DataError, match="at least two of them"):
        load_image_folder(tmp_path / "late", 48)


def test_every_picture_of_a_class_is_learnt(tmp_path):
    """Whatever words are in its name or the class's."""
    names = ["b test/dev.png", "b test/train_station.webp", "b test/x/val.tiff", "train/1.png", "train/2.png"]
    for name, split in itertools.product(names, ["Train", "val", "test"]):
        file = tmp_path / split / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 48), 90).save(file)
    train, validation, classes = load_image_folder(tmp_path, 48)
    assert classes == ("b test", "train")
    assert train.labels.tolist() == validation.labels.tolist() == [0, 0, 0, 1, 1]
    shutil.copytree(tmp_path / "Train", tmp_path / "unlabelled")
    assert load_image_folder(tmp_path, 48)[2] == classes
    shutil.copytree(tmp_path / "Train", tmp_path / "dev")
    with pytest.raises(DataError, match="has dev and val: one folder of validation is read"):
        load_image_folder(tmp_path, 48)
    shutil.rmtree(tmp_path / "dev")
    if not (tmp_path / "train").exists():  # where a disk tells cases apart
        shutil.copytree(tmp_path / "Train", tmp_path / "train")
        with pytest.raises(DataError, match="has Train and train: one folder of train is read"):
            load_image_folder(tmp_path, 48)
        shutil.rmtree(tmp_path / "train")
    shutil.copytree(tmp_path / "Train" / "train", tmp_path / "val" / "other")
    with pytest.raises(DataError, match=r"other: train has no class of that name"):
        load_image_folder(tmp_path, 48)


def test_a_lone_train_is_a_split_where_it_holds_classes(tmp_path):
    """Whatever else lies beside it; a class may be called train, too."""
    for i, label in itertools.product(range(6), "ab"):
        file = tmp_path / "train" / label / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 48), 90).save(file)
    shutil.copytree(tmp_path / "train", tmp_path / "unlabelled")
    assert load_image_folder(tmp_path, 48)[2] == ("a", "b")
    for folder in ("train", "unlabelled"):
        shutil.copytree(tmp_path / folder / "a", tmp_path / "modes" / folder)
    assert load_image_folder(tmp_path / "modes", 48)[2] == ("train", "unlabelled")
    shutil.copytree(tmp_path / "train" / "b", tmp_path / "modes" / "bus" / "red")
    assert load_image_folder(tmp_path / "modes", 48)[2] == ("bus", "train", "unlabelled")
