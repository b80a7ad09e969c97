"""On a GPU, where there is one, everything comes out as on a CPU."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from launch import fit_args, interrupt, reset_accelerate, run

from fer_zoo import Recognizer
from fer_zoo.preprocess import normalize
from train.dataset import Arrays
from train.engine import Split, Trainer
from train.graphs import Graphed
from train.hardware import create_accelerator
from train.networks import create_network
from train.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")


EXACT = """
base = "strong"
batch_size = 32
warmup_epochs = 0
lr = 0.01
"""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("model", "change"),
    [
        ("fer_cnn", ""),
        ("fer_net", "mixup = 0.2\ncutmix = 1.0\nerasing = 0.25\nnoise = 0.1"),
        ("fer_cbam", "ema = 0.0\nlate_average = 0.5"),
        ("fer_resnet", "progressive = 0.5"),
        ("fer_net_tiny", "sam = 0.05"),
        ("fer_net_tiny", "teacher_share = 0.9"),
        ("tiny_pair", "forget_rate = 0.1"),
        ("resnet18", ""),
    ],
)
def test_training_learns_alike(source, tmp_path, model, change, precision):
    recipe = tmp_path / "exact.toml"
    recipe.write_text(f'{EXACT}precision = "{precision}"\n{change}')
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
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol={"fp32": 0.02, "bf16": 0.05}[precision])


def test_killed_and_resumed_it_learns_alike(source, tmp_path):
    losses = []
    for out in (tmp_path / "whole", tmp_path / "killed"):
        args = fit_args(source, out)
        if out.name == "killed":
            interrupt(args, out, signal.SIGKILL, ACCELERATE_USE_CPU="false")
        done = run(*args, ACCELERATE_USE_CPU="false")
        assert done.returncode == 0, done.stderr
        assert ("after epoch 1" in done.stdout) == (out.name == "killed")
        losses.append([json.loads(line)["loss"] for line in (out / "history.jsonl").read_text().splitlines()])
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_every_replay_of_a_step_drops_out_anew(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    reset_accelerate()
    recipe = Recipe(epochs=1, batch_size=64, precision="bf16", drop_rate=0.5)
    faces = Arrays(np.random.default_rng(0).integers(0, 256, (64, 48, 48), np.uint8), np.arange(64) % 7)
    accelerator = create_accelerator(recipe)
    split = Split(faces, accelerator.device)
    losses = {}
    for drop_rate in (0.5, 0.0):
        network = create_network("fer_cnn", drop_rate=drop_rate)
        trainer = Trainer(network, split, replace(recipe, drop_rate=drop_rate), accelerator)
        assert isinstance(trainer.backward, Graphed)
        trainer.wrapped.train()
        x = normalize(split.images, network.pretrained_cfg)
        losses[drop_rate] = [trainer.backward(x, trainer.targets).item() for _ in range(10)]
    assert len(set(losses[0.5])) == 10
    np.testing.assert_allclose(losses[0.0], losses[0.0][0], rtol=0.01)


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
