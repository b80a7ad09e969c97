"""On a GPU, where there is one, everything comes out as on a CPU."""

import json

import numpy as np
import pytest
import torch
from launch import fit_args, run

from fer_zoo import Recognizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


EXACT = """
base = "strong"
precision = "fp32"
batch_size = 32
warmup_epochs = 0
lr = 0.01
"""


@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("fer_cnn", ""),
        ("fer_net", "mixup = 0.2\nerasing = 0.25"),
        ("fer_cbam", "ema = 0.0\nlate_average = 0.5"),
        ("fer_resnet", "progressive = 0.5"),
        ("fer_net_tiny", "sam = 0.05"),
        ("fer_net_tiny", "teacher_share = 0.9"),
        ("tiny_pair", "forget_rate = 0.1"),
        ("resnet18", ""),
    ],
)
def test_training_learns_alike(source, tmp_path, model, change):
    recipe = tmp_path / "exact.toml"
    recipe.write_text(EXACT + change)
    losses = {}
    for device, cpu in {"cpu": "true", "cuda": "false"}.items():
        out = tmp_path / device
        fit = (*fit_args(source, out, "--recipe", recipe, epochs=2), "--model", model)
        if "teacher_share" in change:
            fit += ("--teacher", "fer_net.fer2013")
        done = run(*fit, ACCELERATE_USE_CPU=cpu)
        assert done.returncode == 0, done.stderr
        lines = (out / "history.jsonl").read_text().splitlines()
        losses[device] = [[line["loss"], line["val_loss"]] for line in map(json.loads, lines)]
        hardware = json.loads((out / "config.json").read_text())["hardware"]
        assert (torch.cuda.get_device_name() in hardware) == (device == "cuda")
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=0.02)


@pytest.mark.parametrize("model", ["fer_cnn", "fer_net", "fer_cbam"])
def test_faces_are_read_alike(examples, model):
    on_cpu, on_gpu = (Recognizer(model, device=device) for device in ("cpu", "cuda"))
    photo = examples / "astronaut.jpg"
    for ours, theirs in zip(on_gpu(photo), on_cpu(photo), strict=True):
        assert ours.box == theirs.box
        np.testing.assert_allclose(list(ours.probs.values()), list(theirs.probs.values()), atol=1e-3)
        maps, expected = on_gpu.explain(ours).maps, on_cpu.explain(theirs).maps
        for label in expected:
            np.testing.assert_allclose(maps[label], expected[label], atol=0.02)
