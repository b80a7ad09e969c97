"""Models as ONNX: the same logits, the same answers, and one sentence where something is missing."""

import json

import numpy as np
import pytest
import timm
import torch
from drawn_fer2013 import draw
from PIL import Image

import fer_zoo
from fer_zoo import Recognizer, cli
from fer_zoo.faces import DetectorError, YuNet
from fer_zoo.models import ModelError
from fer_zoo.onnx_model import OnnxModel, as_onnx, export_onnx, quantize_onnx
from fer_zoo.preprocess import to_input

pytest.importorskip("onnxscript", reason="needs the extra onnx")


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return list(draw(per_class=10, waves=True)["train"][0])


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return fer_zoo.create_model("fer_cnn", pretrained=True).eval()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export_onnx(model, file)
    return file


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_logits_are_those_of_torch_for_any_batch(batch, file, model, faces):
    x = to_input(faces[:batch], model)
    with torch.inference_mode():
        torch.testing.assert_close(OnnxModel(file)(x), model(x), atol=1e-4, rtol=1e-4)


def test_a_file_says_what_it_needs(file, model):
    loaded = OnnxModel(file)
    for key in ("input_size", "mean", "std", "interpolation", "label_names"):
        assert tuple(loaded.pretrained_cfg[key]) == tuple(model.pretrained_cfg[key])
    assert loaded.pretrained_cfg["architecture"] == "fer_cnn"


def test_a_classifier_is_no_face_detector(file):
    with pytest.raises(DetectorError, match="is not a YuNet file that OpenCV can read"):
        YuNet(file)


def test_recognisers_of_both_kinds_agree(file, model, examples):
    photo = examples / "astronaut.jpg"
    (wanted,) = Recognizer(model)(photo)
    for recognizer in (Recognizer(str(file)), Recognizer(model, backend="onnx")):
        (face,) = recognizer(photo)
        assert face.box == wanted.box and face.label == wanted.label
        assert face.probs == pytest.approx(wanted.probs, abs=1e-5)
        with pytest.raises(ValueError, match="Grad-CAM needs a model with forward_features"):
            recognizer.explain(face)
    loaded = OnnxModel(file)
    assert as_onnx(loaded) is loaded
    with pytest.raises(ValueError, match="no backend 'tensorflow'"):
        Recognizer(model, backend="tensorflow")


def test_classes_need_names():
    x = torch.zeros(1, 3, 176, 176)
    timms = timm.create_model("resnet10t", num_classes=7).eval()
    torch.testing.assert_close(as_onnx(timms)(x), timms(x), atol=1e-4, rtol=1e-4)
    with pytest.raises(ModelError, match="4 classes and 7 names"):
        Recognizer(timm.create_model("fer_cnn", num_classes=4), faces="whole", backend="onnx")


def test_rgb_models_can_be_exported(tmp_path, faces):
    rgb = fer_zoo.create_model("fer_cnn", pretrained=True, in_chans=3).eval()
    export_onnx(rgb, tmp_path / "rgb.onnx")
    x = to_input(faces[:3], rgb)
    assert x.shape[1] == 3
    with torch.inference_mode():
        torch.testing.assert_close(OnnxModel(tmp_path / "rgb.onnx")(x), rgb(x), atol=1e-4, rtol=1e-4)


def test_int8_is_smaller_and_says_nearly_the_same(file, model, faces, tmp_path):
    small = tmp_path / "int8.onnx"
    quantize_onnx(file, small, faces)
    assert small.stat().st_size < 0.4 * file.stat().st_size
    x = to_input(faces, model)
    exact, rounded = (OnnxModel(path)(x).softmax(1) for path in (file, small))
    assert (exact - rounded).abs().mean() < 0.005  # weights that saturate on this CPU would give 0.017
    assert OnnxModel(small).pretrained_cfg == OnnxModel(file).pretrained_cfg


def test_bad_files_are_one_sentence(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    for path, says in ((broken, "not an ONNX file"), (tmp_path / "none.onnx", "no model file")):
        with pytest.raises(ModelError, match=says):
            Recognizer(path)


def test_export_at_the_command_line(faces, tmp_path, capsys):
    folder = tmp_path / "faces"
    folder.mkdir()
    for i, face in enumerate(faces[:20]):
        Image.fromarray(face).save(folder / f"{i}.png")
    out, small = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    assert cli.main(["export", "fer_cnn", "--out", str(out)]) == 0
    assert cli.main(["export", "fer_cnn", "--out", str(small), "--int8", str(folder)]) == 0
    assert "20 faces are few: give 100 or more" in capsys.readouterr().err
    (folder / "bad.png").write_text("no picture")
    small.unlink()
    assert cli.main(["export", "fer_cnn", "--out", str(small), "--int8", str(folder)]) == 2
    assert "bad.png' is not an image" in capsys.readouterr().err and small.exists()
    assert small.stat().st_size < out.stat().st_size
    (folder / "bad.png").unlink()
    again = tmp_path / "again.onnx"
    assert cli.main(["export", str(out), "--out", str(again), "--int8", str(folder)]) == 0
    assert again.stat().st_size == small.stat().st_size
    assert cli.main(["export", str(small), "--out", str(again), "--int8", str(folder)]) == 2
    assert "has 8 bits already" in capsys.readouterr().err
    assert (
        cli.main(["predict", str(folder / "0.png"), "--model", str(out), "--faces", "whole", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["faces"]
    for bad, says in (
        (("fer_cnm", "--out", str(out)), "did you mean fer_cnn"),
        (("fer_cnn", "--out", str(tmp_path / "model.bin")), "must end in .onnx"),
        (("fer_cnn", "--out", str(tmp_path / "no" / "model.onnx")), "cannot be written"),
        (("fer_cnn", "--out", str(out / "model.onnx")), "cannot be written"),
        ((str(out), "--out", str(small)), "ONNX already"),
        (("fer_cnn", "--out", str(out), "--int8", str(tmp_path / "nothing")), "nothing"),
    ):
        assert cli.main(["export", *bad]) == 2
        (sentence,) = capsys.readouterr().err.splitlines()
        assert says in sentence
