"""Training, packaging and evaluation, through their commands, on small drawn data."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn_fer2013 import draw, write_parquet
from safetensors.torch import load_file

import train.cli
import train.evaluate
import train.fit
import train.package
import train.report
import train.verify
from fer_zoo.metrics import scores
from fer_zoo.preprocess import normalize, to_input
from train.augment import augment, random_affine
from train.evaluate import check_test_read, log_test_read
from train.package import package
from train.recipe import Recipe, RecipeError, load_recipe

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_parquet(tmp_path_factory.mktemp("fer2013"), draw(per_class=40))


def command(*args: object) -> list[str]:
    return [sys.executable, *map(str, args)]


def fit_command(source: Path, out: Path, epochs: int = 3) -> list[str]:
    args = ("--model", "fer_cnn", "--data", source, "--other-counts", "--epochs", epochs, "--out", out)
    return command("train/fit.py", *args)


def run(args: list[str]) -> subprocess.CompletedProcess:
    env = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240)


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return load_file(run_dir / "model.safetensors")


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    done = run(fit_command(source, out))
    assert done.returncode == 0, done.stderr
    assert "clean validation" in done.stdout
    return out


def test_a_run_is_complete(finished):
    assert {file.name for file in finished.iterdir()} == {
        "config.json",
        "history.jsonl",
        "model.safetensors",
        "result.json",
    }
    history = [json.loads(line) for line in (finished / "history.jsonl").read_text().splitlines()]
    result = json.loads((finished / "result.json").read_text())
    assert [line["epoch"] for line in history] == [1, 2, 3]
    assert result["best"] == max(history, key=lambda line: (line["val_accuracy"], -line["epoch"]))
    assert result["validation_images"] == 279  # one of the 280 stands in train


def test_killed_and_resumed_is_the_same_to_the_bit(source, finished, tmp_path):
    out = tmp_path / "killed"
    env = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    process = subprocess.Popen(fit_command(source, out), cwd=ROOT, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoint-0001")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "result.json").exists()

    done = run(fit_command(source, out))
    assert done.returncode == 0, done.stderr
    assert "resuming" in done.stdout
    for key, value in weights(finished).items():
        assert torch.equal(weights(out)[key], value), key


def test_other_settings_in_the_same_directory_are_refused(source, finished):
    done = run(fit_command(source, finished, epochs=4))
    assert done.returncode == 2
    assert "holds another run" in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_checkpoint_is_refused(source, tmp_path):
    out = tmp_path / "run"
    run(fit_command(source, out, epochs=1))
    checkpoint = out / "checkpoint-0001"
    checkpoint.mkdir()
    (out / "result.json").unlink()
    (checkpoint / "manifest.json").write_text('{"optimizer.bin": "0"}')
    (checkpoint / "optimizer.bin").write_bytes(b"not what was written")
    done = run(fit_command(source, out, epochs=1))
    assert done.returncode == 2
    assert "damaged" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("script", "args", "says"),
    [
        (train.fit, ("--model", "fer_cnm", "--data", "nowhere"), "did you mean fer_cnn"),
        (train.fit, ("--model", "fer_cnn", "--data", "./nowhere"), "nowhere"),
        (train.fit, ("--model", "fer_cnn", "--data", "nowhere", "--recipe", "papier"), "no recipe 'papier'"),
        (train.package, ("nowhere", "--tag", "paper"), "not a finished run"),
        (
            train.evaluate,
            ("--model", "no.ne", "--data", "x", "--split", "test"),
            "no packaged weights 'no.ne'",
        ),
        (train.verify, ("--data", "./nowhere"), "nowhere"),
    ],
)
def test_bad_arguments_are_one_sentence(script, args, says, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.__name__, *args])
    with pytest.raises(SystemExit) as stopped:
        train.cli.run(script.main)
    assert stopped.value.code == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert says in sentence


def test_packaged_weights_are_half_and_say_where_they_come_from(finished, tmp_path):
    path = package(finished, "trial", tmp_path)
    assert path.name == "fer_cnn.trial.safetensors"
    stored = load_file(path)
    for key, value in weights(finished).items():
        assert stored[key].dtype == torch.float16
        torch.testing.assert_close(stored[key].float(), value, atol=1e-3, rtol=1e-3)


def test_a_second_file_reads_test_only_with_a_reason(tmp_path):
    check_test_read("fer_cnn.paper", "aaa", None, tmp_path)
    log_test_read("fer_cnn.paper", "aaa", 60.0, None, tmp_path)
    check_test_read("fer_cnn.paper", "aaa", None, tmp_path)
    check_test_read("fer_cbam.paper", "bbb", None, tmp_path)
    with pytest.raises(ValueError, match="--reason"):
        check_test_read("fer_cnn.paper", "bbb", None, tmp_path)
    check_test_read("fer_cnn.paper", "bbb", "a wrong label order was mended", tmp_path)


def test_recipes_are_strict(tmp_path):
    assert load_recipe("paper", epochs=3).epochs == 3
    file = tmp_path / "mine.toml"
    for text, says in (
        ("epoch = 3", "did you mean 'epochs'"),
        ('lr = "fast"', "lr must be a number"),
        ("crop_scale = [1.0]", "crop_scale must be 2 numbers"),
        ("epochs = 0", "at least 1"),
        ('precision = "fp8"', "precision must be"),
        ("epochs = ", "not valid TOML"),
    ):
        file.write_text(text)
        with pytest.raises(RecipeError, match=says):
            load_recipe(str(file))


def test_augmentation_without_range_is_the_identity_or_a_flip():
    images = torch.from_numpy(draw()["train"][0]).unsqueeze(1)
    still = Recipe(degrees=0.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0)
    generator = torch.Generator().manual_seed(0)
    same = augment(images, random_affine(len(images), still, generator))
    torch.testing.assert_close(same, images.float(), atol=1e-2, rtol=0)
    mirrored = Recipe(degrees=0.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=1.0)
    flipped = augment(images, random_affine(len(images), mirrored, generator))
    torch.testing.assert_close(flipped, images.flip(3).float(), atol=1e-2, rtol=0)


def test_augmentation_turns_and_crops_within_its_ranges():
    recipe = load_recipe("paper")
    theta = random_affine(2000, recipe, torch.Generator().manual_seed(0))
    area = torch.linalg.det(theta[:, :, :2]).abs()
    assert recipe.crop_scale[0] - 1e-3 <= area.min() and area.max() <= recipe.crop_scale[1] + 1e-3
    angle = torch.atan2(-theta[:, 0, 1], theta[:, 1, 1]).rad2deg().abs()
    assert 9 < angle.max() <= 10 + 1e-3
    assert 0.45 < (theta[:, 0, 0] < 0).float().mean() < 0.55


def test_training_and_users_share_one_preprocessing():
    import fer_zoo

    model = fer_zoo.create_model("fer_cnn")
    images = draw()["validation"][0]
    trained_on = normalize(torch.from_numpy(images).unsqueeze(1), model.pretrained_cfg)
    assert torch.equal(to_input(list(images), model), trained_on)
    assert trained_on.min() >= -1 and trained_on.max() <= 1
    rgb = np.repeat(images[..., None], 3, axis=3)
    assert torch.equal(to_input(list(rgb), model), trained_on)
    assert to_input(list(rgb), fer_zoo.create_model("fer_cnn", in_chans=3)).shape == (len(images), 3, 48, 48)


def test_scores_by_hand():
    labels = torch.tensor([0, 0, 3, 6])
    logits = torch.full((4, 7), -20.0)
    logits[torch.arange(4), torch.tensor([0, 1, 3, 6])] = 20.0
    figures = scores(logits, labels)
    assert figures["n"] == 4 and figures["accuracy"] == 75
    assert figures["recall"]["angry"] == 50 and figures["recall"]["happy"] == 100
    assert figures["confusion"][0] == [1, 1, 0, 0, 0, 0, 0]
    assert figures["ece"] == pytest.approx(25) and figures["brier"] == pytest.approx(0.5)
    assert figures["nll"] == pytest.approx(10)


def test_readme_says_what_the_results_files_say():
    readme = train.report.README.read_text()
    assert train.report.with_table(readme, train.report.zoo_table()) == readme
