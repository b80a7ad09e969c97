"""From pictures to faces with expressions, through the public recogniser."""

from __future__ import annotations

import json
import pickle
import re
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models import save_for_hf
from torch import nn

import fer_zoo
from fer_zoo import EXPRESSIONS, Recognizer
from fer_zoo.faces import Detection
from fer_zoo.images import ImageError
from fer_zoo.models import ModelError
from fer_zoo.preprocess import to_input
from fer_zoo.recognizer import BATCH_SIZE

PHOTOS = Path(__file__).resolve().parent.parent / "examples"
ASTRONAUT = PHOTOS / "astronaut.jpg"
HOPPER = PHOTOS / "grace_hopper.jpg"


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return fer_zoo.create_model("fer_cbam").eval()


@pytest.fixture(scope="module")
def recognizer(model) -> Recognizer:
    return Recognizer(model, faces="mtcnn")


class Halves:
    """A detector that finds a face in the left third and a larger one in the rest of every picture."""

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        height, width = rgb.shape[:2]
        return [
            Detection((0, 0, width / 3, height), 0.7),
            Detection((width / 3, 0, width, height), 0.6, landmarks=np.full((5, 2), 20.25)),
        ]


def test_a_photo(recognizer):
    (face,) = recognizer(ASTRONAUT)
    np.testing.assert_allclose(face.box, (178, 60, 268, 175), atol=12)
    assert 0.9 < face.score <= 1
    assert tuple(face.probs) == EXPRESSIONS
    assert sum(face.probs.values()) == pytest.approx(1, abs=1e-5)
    assert face.label == max(face.probs, key=face.probs.get)
    assert face.confidence == pytest.approx(face.probs[face.label])
    assert face.landmarks.shape == (5, 2)
    assert face.crop.width == face.crop.height > 80


def test_the_model_gets_the_crop(recognizer, model):
    (face,) = recognizer(ASTRONAUT)
    with torch.no_grad():
        expected = model(to_input([face.crop], model)).softmax(1)[0]
    np.testing.assert_allclose(list(face.probs.values()), expected.numpy(), atol=1e-6)


def test_all_faces_in_one_batch_in_the_order_of_their_pictures(model):
    batches = []

    class Counting(nn.Module):
        num_classes, pretrained_cfg = 7, model.pretrained_cfg

        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            batches.append(len(x))
            return self.inner(x)

    photos = [ASTRONAUT, np.zeros((50, 50, 3), np.uint8), HOPPER, ASTRONAUT.read_bytes()]
    results = Recognizer(Counting(), faces="mtcnn")(deque(photos))  # any sequence
    assert [len(faces) for faces in results] == [1, 0, 1, 1]
    assert batches == [3]
    assert results[0][0].probs == pytest.approx(results[3][0].probs, abs=1e-6)
    assert results[0][0].box == results[3][0].box != results[2][0].box


def test_no_face_is_an_empty_list(recognizer):
    assert recognizer(np.zeros((64, 64, 3), np.uint8)) == []
    assert recognizer([]) == []
    assert recognizer.explain([]) == []


def test_more_faces_than_a_batch_holds():
    recognizer = Recognizer(fer_zoo.create_model("fer_cnn"), faces="whole")
    pictures = list(
        np.random.default_rng(0).integers(0, 256, (BATCH_SIZE["cpu"] + 3, 48, 48), dtype=np.uint8)
    )
    results = recognizer(pictures)
    assert [len(faces) for faces in results] == [1] * len(pictures)
    assert recognizer(pictures[-1])[0].probs == pytest.approx(results[-1][0].probs, abs=1e-5)
    assert len(recognizer.explain([faces[0] for faces in results])) == len(pictures)


def test_any_detector_and_the_largest_face_first(model):
    faces = Recognizer(model, faces=Halves())(np.zeros((60, 90, 3), np.uint8))
    assert [face.score for face in faces] == [0.6, 0.7]


def test_to_dict_is_json(model):
    large, small = Recognizer(model, faces=Halves())(ASTRONAUT)
    told = json.loads(json.dumps(large.to_dict()))
    assert told["landmarks"] == [[20.2, 20.2]] * 5
    assert told["box"] == [170.7, 0.0, 512.0, 512.0]
    assert told["label"] == large.label
    assert told["probs"] == large.probs and told["unsure"] is False
    assert small.to_dict()["landmarks"] is None


def test_whole_picture_gray_and_rgb_agree(model):
    gray = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    whole = Recognizer(model, faces="whole")
    (face,) = whole(gray)
    with torch.no_grad():
        expected = model(to_input([gray], model)).softmax(1)[0]
    np.testing.assert_allclose(list(face.probs.values()), expected.numpy(), atol=1e-6)
    assert face.probs == pytest.approx(whole(np.stack([gray] * 3, axis=-1))[0].probs, abs=1e-6)


def test_eight_threads_share_a_recognizer(recognizer):
    def read(picture):
        (face,) = recognizer(picture)
        return [*face.box, *face.probs.values()], recognizer.explain(face).maps["happy"]

    serial = [read(picture) for picture in (ASTRONAUT, HOPPER)] * 8
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(read, [ASTRONAUT, HOPPER] * 8))
    for (numbers, heat), (expected, expected_heat) in zip(parallel, serial, strict=True):
        np.testing.assert_allclose(numbers, expected, atol=1e-5)
        np.testing.assert_allclose(heat, expected_heat, atol=1e-3)


def test_explain(recognizer):
    (face,) = recognizer(ASTRONAUT)
    told = recognizer.explain(face)
    assert tuple(told.maps) == EXPRESSIONS
    assert all(heat.shape == (48, 48) for heat in told.maps.values())
    assert min(heat.min() for heat in told.maps.values()) >= 0
    assert max(heat.max() for heat in told.maps.values()) == 1
    by_crop, again = recognizer.explain([face.crop, face])
    for label in EXPRESSIONS:
        np.testing.assert_allclose(by_crop.maps[label], told.maps[label], atol=1e-3)
        np.testing.assert_allclose(again.maps[label], told.maps[label], atol=1e-3)


def test_a_picture_that_is_no_square_is_explained_as_it_is_read(recognizer):
    tall = Image.open(ASTRONAUT).crop((170, 40, 270, 190))
    (face,) = Recognizer(recognizer.model, faces="whole")(tall)
    by_picture, by_face = recognizer.explain([tall, face])
    for label in EXPRESSIONS:
        np.testing.assert_allclose(by_picture.maps[label], by_face.maps[label], atol=1e-3)


def test_a_class_without_evidence_is_said_to_be_flat():
    model = fer_zoo.create_model("fer_resnet")
    with torch.no_grad():
        model.get_classifier().weight[3] = -1.0  # features are not negative: nothing can speak for "happy"
    told = Recognizer(model, faces="whole").explain(ASTRONAUT)
    assert "happy" in told.flat
    assert told.maps["happy"].max() == 0
    assert len(told.flat) < 7


def test_bad_picture_in_a_list(recognizer, tmp_path):
    with pytest.raises(ImageError, match="no file"):
        recognizer([ASTRONAUT, tmp_path / "gone.jpg"])


def save(model: nn.Module, path: Path, **metadata: str) -> Path:
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    save_file(state, path, metadata=metadata or None)
    return path


def test_model_from_a_file(tmp_path):
    model = fer_zoo.create_model("fer_cnn").eval()
    path = save(
        model,
        tmp_path / "mine.safetensors",
        architecture="fer_cnn",
        label_names=json.dumps(fer_zoo.EXPRESSIONS),
    )
    expected = Recognizer(model, faces="whole")(ASTRONAUT)[0].probs
    for given in (path, str(path)):
        loaded = Recognizer(given, faces="whole")
        assert not loaded.model.training
        assert next(loaded.model.parameters()).dtype == torch.float32
        assert loaded(ASTRONAUT)[0].probs == pytest.approx(expected, abs=5e-3)


@pytest.mark.parametrize(
    "path", sorted(fer_zoo.models.WEIGHTS_DIR.glob("*.safetensors")), ids=lambda p: p.stem
)
def test_a_packaged_file_by_its_path_is_the_model_by_its_name(path):
    by_path, by_name = (Recognizer(given, faces="whole") for given in (path, path.stem))
    assert by_path(ASTRONAUT)[0].probs == by_name(ASTRONAUT)[0].probs


def test_bad_model_files(tmp_path):
    cnn = fer_zoo.create_model("fer_cnn")
    named = {"architecture": "fer_cnn", "label_names": json.dumps(fer_zoo.EXPRESSIONS)}
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    cases = {
        tmp_path / "gone.safetensors": "no model file",
        text: "not a safetensors file",
        save(cnn, tmp_path / "bare.safetensors"): "does not name an architecture",
        save(cnn, tmp_path / "other.safetensors", **named | {"architecture": "fer_cbam"}): "do not fit",
        save(cnn, tmp_path / "nameless.safetensors", architecture="fer_cnn"): "do not fit",
        save(cnn, tmp_path / "few.safetensors", **named | {"label_names": '["a", "b"]'}): "do not fit",
    }
    for path, words in cases.items():
        with pytest.raises(ModelError, match=words) as error:
            Recognizer(path, faces="whole")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name, near",
    [
        ("fer_cban", "fer_cbam"),
        ("fercnn", "fer_cnn"),
        ("fer_cbam.papr", "fer_cbam.paper"),
    ],
)
def test_unknown_names_get_the_nearest(name, near):
    with pytest.raises(ModelError, match=f"no model '{re.escape(name)}'; did you mean .*{re.escape(near)}"):
        Recognizer(name)


def test_seven_classes_without_names_are_not_taken_for_expressions(tmp_path):
    save_for_hf(timm.create_model("test_resnet", num_classes=7), tmp_path, safe_serialization=True)
    with pytest.raises(ModelError, match=r"has no names for its classes: its config\.json needs label_names"):
        Recognizer(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("?", "`fer-zoo models` lists them"),
        ("me/fer_cbam.paper", "a model of the Hub is named 'hf-hub:me/fer_cbam.paper'"),
        ("/somewhere/fer_cbam", "a model file ends in .safetensors or .onnx"),
        (str(PHOTOS), f"a folder as the Hub has them is named 'local-dir:{PHOTOS}'"),
        ("fer_cbam.pth", "a model file ends in .safetensors or .onnx"),
        (str(ASTRONAUT), "a model file ends in .safetensors or .onnx"),
    ],
)
def test_what_is_no_name_gets_advice(name, says):
    with pytest.raises(ModelError, match=f"no model '{re.escape(name)}'; {re.escape(says)}"):
        Recognizer(name)


def test_a_repository_s_own_file_is_read_by_its_folder(tmp_path):
    save_for_hf(timm.create_model("fer_cnn"), tmp_path, safe_serialization=True)
    with pytest.raises(ModelError, match=f"its folder is read as 'local-dir:{re.escape(str(tmp_path))}'"):
        Recognizer(tmp_path / "model.safetensors")
    assert Recognizer(f"local-dir:{tmp_path}", faces="whole")(ASTRONAUT)
    (tmp_path / "config.json").write_text('{"model": "fer_cnn"}')  # as a training's folder has it
    with pytest.raises(ModelError, match=r"as files of train/package\.py do\.$"):
        Recognizer(tmp_path / "model.safetensors")


def test_what_does_not_say_what_pictures_it_takes_is_no_model(model):
    class Bare(nn.Linear):
        num_classes = 7

    with pytest.raises(ModelError, match=r"Bare .* lacks input_size, interpolation, mean, std"):
        Recognizer(Bare(9, 7))
    with pytest.raises(ModelError, match="not 5"):
        Recognizer(5)


def test_values_that_are_not_finite_are_no_answer(tmp_path):
    broken = fer_zoo.create_model("fer_cnn")
    with torch.no_grad():
        broken.get_classifier().weight[3, 5] = torch.nan
    with pytest.raises(ModelError, match="values are not finite"):
        Recognizer(broken, faces="whole")(ASTRONAUT)


def test_what_finds_no_faces_is_no_detector(model):
    with pytest.raises(fer_zoo.DetectorError, match="None has none"):
        Recognizer(model, faces=None)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((9, 9), np.float32),
        np.zeros((9, 9), np.uint16),
        Image.new("I;16", (9, 9)),
        Image.new("F", (9, 9)),
    ],
)
def test_input_of_other_than_8_bits_is_refused(model, image):
    with pytest.raises(ValueError, match=r"must be PIL's or uint8|must have 8 bits"):
        to_input([image], model)


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_recognizer_goes_to_another_process(backend):
    recognizer = Recognizer("fer_cnn", faces="mtcnn", backend=backend)
    again = pickle.loads(pickle.dumps(recognizer))
    (face,), (same,) = recognizer(ASTRONAUT), again(ASTRONAUT)
    assert face.to_dict() == same.to_dict()
    assert again.sure_from == recognizer.sure_from and again.labels == recognizer.labels


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_of_half_precision_reads_faces(dtype):
    recognizer = Recognizer("fer_cnn", faces="whole")
    (exact,) = recognizer(ASTRONAUT)
    recognizer.model.to(dtype)
    (face,) = recognizer(ASTRONAUT)
    assert face.label == exact.label and face.confidence == pytest.approx(exact.confidence, abs=0.02)
    assert recognizer.explain(face).maps.keys() == exact.probs.keys()


def test_weights_that_cannot_be_had(monkeypatch):
    def offline(*_, **__):
        raise OSError("Name or service not known. Try again.\nMany more words")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(ModelError, match=r"'fer_cbam' cannot be loaded: Name or service not known\.$"):
        Recognizer("fer_cbam")


def test_models_that_do_not_read_expressions():
    with pytest.raises(ModelError, match="10 classes"):
        Recognizer(timm.create_model("resnet10t", num_classes=10), faces="whole")


def test_device(model):
    assert Recognizer(model, faces="whole", device="cpu")(ASTRONAUT)
    with pytest.raises(ValueError, match="The device 'abacus' cannot be used here"):
        Recognizer(model, faces="whole", device="abacus")
