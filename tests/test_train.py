"""Training through its command, on small drawn data: exact, resumable, of any network and any folder."""

import json
import math
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from launch import fit_args, interrupt, run, run_here
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import train.fit
from fer_zoo.data import load_fer2013
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.loading import load_model
from fer_zoo.models import FerNet, ModelError, sort_classifier
from train.dataset import Fer2013
from train.engine import Split, Trainer
from train.ferplus import clean_validation
from train.files import sha256
from train.hardware import create_accelerator, out_of_memory
from train.loss import class_weights
from train.networks import create_network
from train.package import package
from train.predict import predict
from train.recipe import Recipe
from train.run_dir import RunError

# Everything that a recipe can ask for.
RICH = """
epochs = 3
batch_size = 64
optimizer = "adamw"
schedule = "cosine"
warmup_epochs = 1
weight_decay = 0.01
label_smoothing = 0.1
class_weights = true
mixup = 0.2
cutmix = 0.5
shift = 0.1
jitter = 0.2
blur = 1.0
noise = 0.1
erasing = 0.3
ema = 0.9
"""


@pytest.fixture(scope="module")
def rich(tmp_path_factory) -> Path:
    recipe = tmp_path_factory.mktemp("recipe") / "rich.toml"
    recipe.write_text(RICH)
    return recipe


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "model.safetensors")


@pytest.fixture(scope="module", params=["paper", "rich"])
def recipe(request, rich) -> object:
    return "paper" if request.param == "paper" else rich


@pytest.fixture(scope="module")
def finished(source, recipe, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = run(*fit_args(source, out, "--recipe", recipe))
    assert done.returncode == 0, done.stderr
    assert "clean validation" in done.stdout
    return out


def test_a_run_is_complete(finished):
    files = {"config.json", "history.jsonl", "model.safetensors", "result.json"}
    # a lock's file may be left, without a lock
    assert {file.name for file in finished.iterdir()} - {"lock"} == files
    history = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    result = json.loads((finished / "result.json").read_text())
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert result["best"] == max(history, key=lambda line: (line["val_accuracy"], -line["epoch"]))
    assert result["validation_images"] == 279  # one of the 280 stands in train


def test_epochs_are_scored_in_fp32_whatever_they_are_trained_in(source, tmp_path):
    recipe = tmp_path / "half.toml"
    recipe.write_text('precision = "bf16"')
    done = run_here(*fit_args(source, tmp_path / "run", "--recipe", recipe, epochs=1))
    assert done.returncode == 0, done.stderr
    model = create_network("fer_cnn")
    model.load_state_dict(weights(tmp_path / "run"))
    data = Fer2013.of(load_fer2013(source, check_counts=False))
    clean = clean_validation(data, "fer2013")
    logits = predict(model, torch.from_numpy(clean.images).unsqueeze(1))
    loss = cross_entropy(logits, torch.from_numpy(clean.labels)).item()
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["best"]["val_loss"] == pytest.approx(loss, rel=1e-6)


def test_a_run_of_before_a_setting_was_known_is_the_same_run(source, finished):
    file = finished / "config.json"
    content = file.read_text()
    config = json.loads(content)
    if config["recipe"].pop("noise"):
        pytest.skip("this recipe sets it")
    file.write_text(json.dumps(config))
    try:
        done = run_here(*fit_args(source, finished))
        assert done.returncode == 0, done.stderr
    finally:
        file.write_text(content)


@pytest.mark.parametrize("within", ["engine.augment", "run_dir.sha256", "run_dir.RunDir.save"])
def test_killed_and_resumed_is_the_same_to_the_bit(source, recipe, finished, tmp_path, within):
    """In an epoch, in the middle of a checkpoint's files, and behind them."""
    out = tmp_path / "killed"
    args = fit_args(source, out, "--recipe", recipe)
    assert interrupt(args, out, signal.SIGKILL, f"train.{within}").returncode == -signal.SIGKILL
    assert bool(list(out.glob("checkpoint-*.tmp"))) == (within == "run_dir.sha256")
    done = run(*args)
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout and "note:" not in done.stdout
    for key, value in weights(finished).items():
        assert torch.equal(weights(out)[key], value), key


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_cluster_leave_a_run_that_resumes(source, tmp_path, how):
    out = tmp_path / "run"
    done = interrupt(fit_args(source, out), out, how)
    assert done.returncode == 130
    assert "interrupted: a training" in done.stderr and "Traceback" not in done.stderr
    resumed = run(*fit_args(source, out), OMP_NUM_THREADS="2")
    assert "resuming" in resumed.stdout
    assert re.search(r"note: hardware was 1 x .*, 1 thread and is 1 x .*, 2 threads now", resumed.stdout)


def test_a_model_learns(source, tmp_path):
    done = run_here(*fit_args(source, tmp_path / "run", "--batch-size", 32, epochs=10))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["best"]["val_accuracy"] > 60


def test_a_run_starts_from_the_weights_of_another(source, finished, tmp_path):
    still = tmp_path / "still.toml"
    still.write_text('optimizer = "sgd"\nlr = 1e-9\n')
    args = fit_args(source, tmp_path / "on", "--recipe", still, "--start", finished, epochs=1)
    done = run_here(*args)
    assert done.returncode == 0, done.stderr
    for key, value in weights(finished).items():
        torch.testing.assert_close(weights(tmp_path / "on")[key], value, atol=1e-6, rtol=0)

    config = json.loads((tmp_path / "on" / "config.json").read_text())
    assert config["start"] == sha256(finished / "model.safetensors")
    done = run_here(*args, "--model", "fer_resnet", "--out", tmp_path / "other")
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1]
        == f"error: {finished} is a run of fer_cnn on 7 classes: its weights do not fit"
    )


def test_a_run_of_other_labels_starts_from_the_body_alone(source, finished, tmp_path):
    model = create_network("fer_cnn", labels=sorted(EXPRESSIONS))
    train.fit.start_from(finished, model, tuple(sorted(EXPRESSIONS)))
    learnt = weights(finished)
    row = learnt["head.fc.weight"][EXPRESSIONS.index("neutral")]
    assert torch.equal(model.get_classifier().weight[sorted(EXPRESSIONS).index("neutral")], row)
    train.fit.start_from(finished, model, tuple("abcdefg"))
    assert not any(torch.equal(new, old) for new in model.head.fc.weight for old in learnt["head.fc.weight"])
    assert torch.equal(model.state_dict()["stages.1.2.weight"], learnt["stages.1.2.weight"])


def test_classifiers_of_more_than_one_layer_keep_their_order():
    model = timm.create_model("levit_128s", num_classes=len(EXPRESSIONS))
    kept = {key: value.clone() for key, value in model.state_dict().items()}
    sort_classifier(model, EXPRESSIONS, EXPRESSIONS)
    with pytest.raises(ModelError, match="can only be in the order angry, disgust"):
        sort_classifier(model, EXPRESSIONS, sorted(EXPRESSIONS))
    assert all(torch.equal(value, kept[key]) for key, value in model.state_dict().items())


def test_smaller_images_are_learnt_as_they_are_scored(few):
    data = Fer2013.of(load_fer2013(few, check_counts=False))
    still = dict(flip=0.0, degrees=0.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    recipe = Recipe(epochs=1, batch_size=4, precision="fp32", **still)
    model = create_network("test_resnet", input_size=24)
    accelerator = create_accelerator(recipe)
    split = Split(data["train"][np.arange(4)], accelerator.device)
    seen = []
    model.register_forward_pre_hook(lambda model, inputs: seen.append(inputs[0].flatten(1)))
    Trainer(model, split, recipe, accelerator).epoch(0, tqdm(disable=True))
    predict(model, split.images)
    learnt, scored = (x[x.sum(1).argsort()] for x in seen)
    torch.testing.assert_close(learnt, scored, atol=0.005, rtol=0)  # a gray level is 0.008


def test_the_learning_rate_warms_up_and_falls(source, rich, tmp_path):
    """history.jsonl holds the rate of each epoch's last step; here an epoch has four."""
    for schedule, expected in (
        ("constant", [0.0007525, 0.001, 0.001, 0.001]),
        ("linear", [0.0007525, 0.001 * 9 / 16, 0.001 * 5 / 16, 0.001 / 16]),
        ("cosine", [0.0007525, *(0.0005 * (1 + math.cos(math.pi * t / 16)) for t in (7, 11, 15))]),
    ):
        recipe = tmp_path / f"{schedule}.toml"
        recipe.write_text(RICH.replace('"cosine"', f'"{schedule}"').replace("epochs = 3", "epochs = 4", 1))
        out = tmp_path / schedule
        done = run_here(*fit_args(source, out, "--recipe", recipe, epochs=4))
        assert done.returncode == 0, done.stderr
        history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
        assert [line["lr"] for line in history] == pytest.approx(expected)


def test_the_first_epochs_may_see_smaller_images(source, tmp_path, monkeypatch):
    recipe = tmp_path / "progressive.toml"
    recipe.write_text("progressive = 0.5\nblur = 1.0\nnoise = 0.1\nerasing = 0.5\nmixup = 0.2\n")
    args = fit_args(source, tmp_path / "run", "--recipe", recipe, "--model", "fer_net_tiny")
    monkeypatch.setattr(sys, "argv", [str(arg) for arg in args])
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    learnt, scored = [], []

    def look(model: torch.nn.Module, inputs: tuple) -> None:
        if isinstance(model, FerNet) and len(inputs[0]) > 1:  # one is to see what the network takes
            (learnt if model.training else scored).append(tuple(inputs[0].shape[2:]))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        train.fit.main()
    finally:
        hook.remove()
    third = len(learnt) // 3
    assert learnt == [(32, 32)] * third + [(48, 48)] * 2 * third and set(scored) == {(48, 48)}

    done = run_here(*args, "--model", "fer_cnn", "--out", tmp_path / "fixed")
    assert done.returncode == 2
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("error: fer_cnn cannot take images of 32x32 pixels")
    assert sentence.endswith("choose a recipe that is not progressive")


def test_out_of_memory_names_the_batch_size_to_try():
    with pytest.raises(RunError, match="try --batch-size 64"), out_of_memory(128):
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(RunError, match="try --batch-size 1"), out_of_memory(2):
        raise MemoryError
    with pytest.raises(RunError, match="try a smaller --input-size"), out_of_memory(1):
        raise torch.OutOfMemoryError("as a GPU says it")
    with pytest.raises(RunError, match="try --batch-size 64"), out_of_memory(128):
        raise RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
    with pytest.raises(RuntimeError, match="shape"), out_of_memory(128):
        raise RuntimeError("some other shape")


def test_class_weights_have_a_mean_of_one_over_the_images():
    labels = torch.tensor([0] * 90 + [2] * 10)
    weights = class_weights(labels, 4)
    assert weights[labels].mean().item() == pytest.approx(1)
    assert (weights[2] / weights[0]).item() == pytest.approx(9)
    assert weights[1] == weights[3] == 0


def test_a_tracker_is_told_of_every_epoch(source, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    done = run_here(*fit_args(source, out, "--tracker", "tensorboard", epochs=2))
    assert done.returncode == 0, done.stderr
    (events,) = [file for file in out.rglob("events*") if "run/run/events" in str(file)]
    log = EventAccumulator(str(events)).Reload()
    assert [event.step for event in log.Scalars("val_accuracy")] == [1, 2]


def test_any_timm_model_at_any_size(source, tmp_path):
    args = ("--model", "resnet18", "--input-size", 64)
    done = run_here(*fit_args(source, tmp_path / "run", *args, epochs=1))
    assert done.returncode == 0, done.stderr
    assert "resnet18" in done.stdout


def test_a_packaged_model_of_timm_reads_as_it_was_trained(source, tmp_path):
    name = "tf_efficientnet_b0.ap_in1k"  # other weights of it have another mean
    done = run_here(*fit_args(source, tmp_path / "run", "--model", name, "--input-size", 64, epochs=1))
    assert done.returncode == 0, done.stderr
    served = load_model(package(tmp_path / "run", "mine", tmp_path)).pretrained_cfg
    trained = create_network(name, input_size=64).pretrained_cfg
    assert all(served[key] == trained[key] for key in ("input_size", "mean", "std", "interpolation"))
    assert served["mean"] != create_network("tf_efficientnet_b0", input_size=64).pretrained_cfg["mean"]


def test_a_tag_without_pretrained_is_but_a_name(few, tmp_path):
    done = run_here(*fit_args(few, tmp_path / "run", "--model", "fer_net_tiny.fer2013", epochs=1))
    assert done.returncode == 0
    assert "the weights of fer_net_tiny.fer2013 are not used: --pretrained starts from them" in done.stderr


def test_a_classifier_is_kept_for_its_own_labels_only():
    """Folders are read in the order of the alphabet: then sad is not where FER2013 has it."""
    learnt, again, other = (
        create_network("fer_cnn.fer2013", pretrained=True, labels=labels).get_classifier().weight
        for labels in (EXPRESSIONS, sorted(EXPRESSIONS), [*EXPRESSIONS[:6], "contempt"])
    )
    for label, row in zip(sorted(EXPRESSIONS), again, strict=True):
        assert torch.equal(row, learnt[EXPRESSIONS.index(label)]), label
    assert not any(torch.equal(row, known) for row in other for known in learnt)


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("resnet81", None, "did you mean resnet"),
        ("vit_tiny_patch16_224", None, "add --input-size 224"),
        ("inception_v3", None, "try --input-size 96"),
        ("resnet18.nobody", None, "resnet18 has resnet18.a1_in1k"),
    ],
)
def test_networks_that_cannot_be_had(name, size, says):
    with pytest.raises(ValueError, match=says):
        create_network(name, input_size=size, pretrained="." in name)


@pytest.mark.parametrize(
    ("script", "args", "says"),
    [
        ("fit", ("--model", "fer_cnm", "--data", "nowhere"), "did you mean fer_cnn"),
        ("fit", ("--model", "fer_cnn", "--data", "./nowhere"), "nowhere"),
        ("fit", ("--model", "fer_cnn", "--data", "nowhere", "--recipe", "papier"), "no recipe 'papier'"),
        ("fit", ("--input-size", "-5"), "must be at least 1, not -5"),
        ("package", ("nowhere", "--tag", "paper"), "not a finished run"),
        ("package", ("nowhere", "--tag", "a b/c"), "--tag must be one word"),
        ("fit", ("--images", "faces", "--data", "fer2013"), "two sources of faces"),
        ("fit", ("--pretrained", "--start", "run", "--data", "x"), "two weights to start from"),
        ("fit", ("--recipe", "student", "--data", "x"), "the recipe student wants a teacher"),
        ("cv", ("--recipe", "student-live", "--data", "x"), "the recipe student-live wants a teacher"),
        ("fit", ("--precision", "fp8"), "invalid choice: 'fp8'"),
        (
            "evaluate",
            ("--model", "no.ne", "--data", "x", "--split", "test"),
            "no packaged weights 'no.ne'",
        ),
        ("verify", ("--data", "./nowhere"), "nowhere"),
    ],
)
def test_bad_arguments_are_one_sentence(script, args, says):
    done = run_here(f"train/{script}.py", *args)
    assert done.returncode == 2
    *usage, sentence = done.stderr.splitlines()
    assert says in sentence and all(line.startswith(("usage", " ")) for line in usage)
