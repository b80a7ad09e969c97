"""Finished runs as weight files: packaging, calibration, scores, and the gate in front of test."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_fer2013 import draw
from launch import fit_args, run_here
from safetensors import safe_open
from safetensors.torch import load_file

import train.cli
import train.evaluate
import train.package
from fer_zoo.loading import load_model
from fer_zoo.metrics import scores
from fer_zoo.preprocess import normalize, to_input
from train.evaluate import check_test_read, log_test_read
from train.files import sha256, with_metadata
from train.package import fit_temperature, package
from train.predict import predict
from train.run_dir import RunError
from train.verify import differences


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    done = run_here(*fit_args(source, out, epochs=2))
    assert done.returncode == 0, done.stderr
    return out


def test_damaged_weights_are_one_sentence(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(RunError, match="train that run again"):
        package(tmp_path / "run", "mine", tmp_path)


def test_packaged_weights_are_half_and_say_where_they_come_from(finished, tmp_path):
    path = package(finished, "trial", tmp_path)
    assert path.name == "fer_cnn.trial.safetensors"
    assert package(finished, "trial", tmp_path / "again").read_bytes() == path.read_bytes()
    stored = load_file(path)
    for key, value in load_file(finished / "model.safetensors").items():
        assert stored[key].dtype == torch.float16
        torch.testing.assert_close(stored[key].float(), value, atol=1e-3, rtol=1e-3)


def test_only_what_is_published_must_be_of_the_real_data(finished, source, tmp_path, monkeypatch):
    def error(*call: object) -> str:
        return run_here(*call, "--data", source).stderr

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.package.WEIGHTS_DIR", tmp_path / "zoo")
    monkeypatch.setattr("train.evaluate.RESULTS_DIR", tmp_path / "published")
    for folder in ("zoo", "mine", "published", "trial"):
        (tmp_path / folder).mkdir()

    refused = "error: .*not FER2013's published counts"
    assert re.match(refused, error("train/package.py", finished, "--tag", "drawn", "--folder", "zoo"))
    assert not list((tmp_path / "zoo").iterdir())
    assert "error" not in error("train/package.py", finished, "--tag", "drawn", "--folder", "mine")
    score = ("--model", "mine/fer_cnn.drawn.safetensors", "--split", "validation", "--results")
    assert re.match(refused, error("train/evaluate.py", *score, "published"))
    assert not list((tmp_path / "published").iterdir())
    assert "error" not in error("train/evaluate.py", *score, "trial")
    assert (tmp_path / "trial" / "fer_cnn.drawn.json").exists()
    assert "error" not in error("train/evaluate.py", *score[:-1])
    assert (tmp_path / "mine" / "fer_cnn.drawn.json").exists(), "a file of one's own has them beside it"


def test_a_second_file_reads_test_only_with_a_reason(tmp_path):
    check_test_read("fer_cnn.paper", "aaa", None, tmp_path)
    log_test_read("fer_cnn.paper", "aaa", 60.0, None, tmp_path)
    check_test_read("fer_cnn.paper", "aaa", None, tmp_path)
    check_test_read("fer_cbam.paper", "bbb", None, tmp_path)
    with pytest.raises(ValueError, match="--reason"):
        check_test_read("fer_cnn.paper", "bbb", None, tmp_path)
    check_test_read("fer_cnn.paper", "bbb", "a wrong label order was mended", tmp_path)


def test_test_is_scored_for_a_second_file_only_with_a_reason(finished, source, tmp_path):
    file, folder = package(finished, "mine", tmp_path), tmp_path / "results"
    results, log = folder / "fer_cnn.mine.json", folder / "test_reads.jsonl"

    def score(split: str, *more: object) -> subprocess.CompletedProcess:
        where = ("--model", file, "--results", folder, "--data", source)
        return run_here("train/evaluate.py", *where, "--split", split, *more)

    def splits() -> list[str]:
        return sorted(json.loads(results.read_text())["splits"])

    def reads() -> list[dict]:
        return [json.loads(line) for line in log.read_text().splitlines()]

    assert score("validation").returncode == 0 and not log.exists()
    assert score("test").returncode == 0
    assert splits() == ["test", "test_clean", "validation", "validation_clean"]
    (read,) = reads()
    assert (read["model"], read["sha256"], read["reason"]) == ("fer_cnn.mine", sha256(file), None)

    file.write_bytes(with_metadata(file.read_bytes(), note="another file"))
    before = results.read_bytes(), log.read_bytes()
    refused = score("test")
    assert refused.returncode == 2 and "give a --reason" in refused.stderr
    assert (results.read_bytes(), log.read_bytes()) == before
    assert score("test", "--reason", "mended").returncode == 0
    assert [read["reason"] for read in reads()] == [None, "mended"]
    assert splits() == ["test", "test_clean"]  # the others were those of the file before


def test_a_network_of_larger_images_is_measured_with_those(few, tmp_path):
    """It refuses others, such as those of 48 pixels."""
    model = ("--model", "vit_tiny_patch16_224", "--input-size", 96)
    assert run_here(*fit_args(few, tmp_path / "run", *model, epochs=1)).returncode == 0
    file = package(tmp_path / "run", "mine", tmp_path)
    score = ("train/evaluate.py", "--model", file, "--results", tmp_path, "--data", few, "--split")
    done = run_here(*score, "validation")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "vit_tiny_patch16_224.mine.json").read_text())
    tokens, width, blocks = 1 + 6 * 6, 192, 12
    least = blocks * tokens * 12 * width**2 / 1e9  # of its linear layers alone
    assert least < results["gmacs"] < 1.2 * least


def test_figures_of_other_data_do_not_stand_side_by_side(finished, source, few, tmp_path):
    score = ("train/evaluate.py", "--model", package(finished, "mine", tmp_path), "--results", tmp_path)
    assert run_here(*score, "--data", source, "--split", "validation").returncode == 0
    before = (tmp_path / "fer_cnn.mine.json").read_bytes()
    done = run_here(*score, "--data", few, "--split", "test")
    assert done.returncode == 2 and "figures of other data: give --results another folder" in done.stderr
    assert (tmp_path / "fer_cnn.mine.json").read_bytes() == before
    assert not (tmp_path / "test_reads.jsonl").exists(), "test was not read"


def test_only_a_single_layer_is_calibrated(few, tmp_path):
    args = fit_args(few, tmp_path / "run", "--model", "levit_128s", "--input-size", 224, epochs=1)
    assert run_here(*args).returncode == 0
    data = train.cli.load_data(SimpleNamespace(data=few), strict=False)
    with pytest.raises(ValueError, match="no single layer for a classifier to calibrate"):
        package(tmp_path / "run", "mine", tmp_path, data)
    assert package(tmp_path / "run", "mine", tmp_path).exists()


def test_verify_names_what_differs(finished, source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.verify.RESULTS_DIR", tmp_path)
    data = train.cli.load_data(SimpleNamespace(data=source), strict=False)
    file = package(finished, "mine", tmp_path)
    assert differences(file, data) == ["it has no results file"]
    for split in ("validation", "test"):
        where = ("--model", file, "--results", tmp_path, "--data", source)
        assert run_here("train/evaluate.py", *where, "--split", split).returncode == 0
    assert differences(file, data) == []

    results = tmp_path / "fer_cnn.mine.json"
    stored = json.loads(results.read_text())
    test, splits = stored["splits"]["test"], stored["splits"]

    def other(images: int) -> dict:
        accuracy = test["accuracy"] + 100 * images / test["n"]
        return {"splits": splits | {"test": test | {"accuracy": accuracy}}}

    for change, says in (
        ({"sha256": "other"}, "its sha256 is not"),
        ({"data": stored["data"] | {"fingerprint": "other"}}, "other data"),
        (other(3), "test accuracy is"),
        ({"splits": {key: splits[key] for key in ("test", "test_clean")}}, "validation was never scored"),
    ):
        results.write_text(json.dumps(stored | change))
        capsys.readouterr()
        (found,) = differences(file, data)
        assert says in found
        # what is not the file that was logged, or not its data, is not scored on test
        assert ("mine test" in re.sub(" +", " ", capsys.readouterr().out)) is ("splits" in change)
    results.write_text(json.dumps(stored | other(2)))  # as sums differ from machine to machine
    assert differences(file, data) == []


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


def test_temperature_is_in_the_weights(finished, source, tmp_path):
    """The shipped logits are the run's, divided by the number in the metadata."""
    data = train.cli.load_data(SimpleNamespace(data=source), strict=False)
    plain, calibrated = (package(finished, tag, tmp_path, given) for tag, given in (("a", None), ("b", data)))
    with safe_open(calibrated, "pt") as file:
        temperature = float(file.metadata()["temperature"])
    clean = data["validation"][data.clean("validation")]
    images, labels = torch.from_numpy(clean.images).unsqueeze(1), torch.from_numpy(clean.labels)
    before, after = (predict(load_model(file).eval(), images) for file in (plain, calibrated))
    torch.testing.assert_close(after * temperature, before, atol=0.02, rtol=0.01)
    assert scores(after, labels)["nll"] <= scores(before, labels)["nll"] + 1e-3
    assert fit_temperature(3 * before, labels) == pytest.approx(3 * fit_temperature(before, labels), rel=0.01)
