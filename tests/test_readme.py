"""The README's Python as a reader runs it, block after block; camera and service stand in other tests."""

from __future__ import annotations

import re
import shutil

import pytest
import torch
from drawn_clips import decode, moving, rows, write_clip
from launch import ROOT
from PIL import Image

from fer_zoo.cli import main
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import WEIGHTS_DIR

pytest.importorskip("onnxscript", reason="needs the extra onnx")


def test_photo_clip_and_networks(examples, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    blocks = [block for block in blocks if "cv2" not in block and "gradio_client" not in block]
    shutil.copy(examples / "astronaut.jpg", tmp_path / "photo.jpg")
    with Image.open(examples / "astronaut.jpg") as photo:
        photo.crop((170, 60, 280, 170)).save(tmp_path / "face.jpg")
    assert main(["export", "fer_cnn", "--out", str(tmp_path / "fer_cnn.onnx")]) == 0
    capsys.readouterr()
    write_clip(tmp_path / "clip.mp4", moving(3))
    shutil.copy(WEIGHTS_DIR / "fer_cbam.fer2013.safetensors", tmp_path / "fer_cbam.mine.safetensors")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks:
        exec(block, names)

    photo, *clip, exported = capsys.readouterr().out.splitlines()
    assert re.search(r"\) happy \d+%$", photo)
    assert [line.partition(" s: face 1 ")[0] for line in clip] == ["0.00", "0.04", "0.08"]
    assert len(decode(tmp_path / "faces.mp4")) == len(rows(tmp_path / "faces.csv")) == 3
    assert exported == "happy" and EXPRESSIONS[names["probs"].argmax()] == "happy"
    with Image.open("faces.png") as faces, Image.open("why-happy.png") as why:
        assert faces.size == (512, 512) and why.size == (384, 384)
    assert not list(tmp_path.glob("my-faces/*.bin"))
    ours, theirs = (
        names["Recognizer"](f"local-dir:{tmp_path / 'my-faces'}"),
        names["Recognizer"]("fer_cbam"),
    )
    assert ours("photo.jpg")[0].probs == theirs("photo.jpg")[0].probs
    gray = torch.rand(1, 1, 48, 48)
    model, rgb, backbone, other = (names[name].eval() for name in ("model", "rgb", "backbone", "other"))
    torch.testing.assert_close(rgb(gray.expand(-1, 3, -1, -1)), model(gray), atol=1e-5, rtol=1e-5)
    assert backbone(gray)[-1].ndim == 4 and other(gray).shape == (1, 4)
