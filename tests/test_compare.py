"""Models compared over the same folds, and what of it is published."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from launch import run_here

from train.compare import compare, corrected_interval, join
from train.files import RESULTS_DIR
from train.recipe import load_recipe
from train.summary import published

REAL = json.loads((RESULTS_DIR / "audit.json").read_text())["data"]["fingerprint"]
EPOCH = {"loss": 1.0, "val_loss": 1.1, "val_accuracy": 60.0}


def settings(seed: int, **changes: object) -> dict:
    return json.loads(json.dumps(asdict(load_recipe("paper", seed=seed, **changes))))


def summary(seed: int, **accuracies: list[float]) -> dict:
    def folds(values: list[float]) -> list[dict]:
        return [{"accuracy": value, "recall": {"happy": value + 1}, "history": [EPOCH]} for value in values]

    models = {name: {"folds": folds(values)} for name, values in accuracies.items()}
    common = {"recipe": "paper", "folds": 3, "train_images": 99, "data": "x", "settings": settings(seed)}
    common |= {"input_size": None, "pretrained": False}
    return common | {"models": models}


def test_interval_by_hand():
    mean, half = corrected_interval([1.0, 2.0, 3.0], folds=3)
    assert mean == 2
    assert half == pytest.approx(4.3027 * np.sqrt(1 / 3 + 1 / 2), rel=1e-4)
    with pytest.raises(ValueError, match="at least two"):
        corrected_interval([1.0], folds=3)


def test_models_are_compared_fold_by_fold():
    summaries = [
        summary(0, a=[60, 61, 62], b=[58, 60, 61], c=[1, 2, 3]),
        summary(1, a=[62, 63, 64], b=[61, 61, 61]),
    ]
    pair, *of_one_seed = compare(join(summaries))["pairs"]
    assert (pair["models"], pair["seeds"]) == (["a", "b"], [0, 1])
    assert pair["differences"] == [2, 1, 1, 1, 2, 3]
    assert pair["mean"] == pytest.approx(10 / 6)
    assert pair["recall"]["happy"]["mean"] == pytest.approx(10 / 6)
    assert 0 < pair["ci95"] < 3
    assert [(each["models"], each["seeds"]) for each in of_one_seed] == [(["a", "c"], [0]), (["b", "c"], [0])]
    assert of_one_seed[0]["differences"] == [59, 59, 59]


def test_a_summary_of_before_a_setting_was_known_is_compared():
    older, newer = summary(0, a=[1, 2, 3], b=[1, 2, 3]), summary(1, a=[1, 2, 3], b=[1, 2, 3])
    del older["settings"]["blur"]
    assert compare(join([older, newer])) == compare(join([newer, older]))
    assert compare(join([newer, older]))["seeds"] == [0, 1]
    newer["settings"]["blur"] = 1.0
    for summaries in ([older, newer], [newer, older]):
        with pytest.raises(ValueError, match="blur is"):
            join(summaries)


def test_models_of_a_seed_are_joined_from_several_folders():
    folders = [summary(0, a=[60, 61, 62]), summary(1, b=[50, 51, 52]), summary(0, b=[58, 60, 61])]
    folders.append(summary(1, a=[52, 51, 50]))
    first, second = join(folders)
    assert list(first["models"]) == ["a", "b"] and list(second["models"]) == ["b", "a"]
    (pair,) = compare([first, second])["pairs"]
    assert pair["models"] == ["a", "b"] and pair["differences"] == [2, 1, 1, 2, 0, -2]
    assert list(folders[0]["models"]) == ["a"]  # theirs are left as they were


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (summary(0, b=[1, 2, 3], c=[1, 2, 3]), "b of seed 0 stands in two"),
        (summary(1, a=[1, 2, 3], b=[1, 2, 3]) | {"data": "y"}, "data is 'x'"),
        (summary(1, a=[1], b=[2]) | {"settings": settings(1, lr=1.0)}, "lr is 0.001 in one folder and 1.0"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, says):
    with pytest.raises(ValueError, match=says):
        compare(join([summary(0, a=[1, 2, 3], b=[1, 2, 3]), other]))
    with pytest.raises(ValueError, match="no seed has two models"):
        compare(join([summary(0, a=[1, 2, 3]), summary(1, b=[1, 2, 3])]))


def test_compare_at_the_command_line(tmp_path):
    def main(*paths, fails=""):
        done = run_here("train/compare.py", *paths, "--results", tmp_path)
        assert (done.returncode, fails in done.stderr) == (2 if fails else 0, True), done.stderr
        return done.stdout

    folder = tmp_path / "cv"
    folder.mkdir()
    found = summary(0, a=[60, 61, 62], b=[50, 51, 52.5])
    (folder / "summary.json").write_text(json.dumps(found))
    assert "a - b" in main(folder)
    compared = json.loads((tmp_path / "compare-paper.json").read_text())
    assert compared["pairs"][0]["mean"] == pytest.approx(59 / 6, abs=0.01)
    first = tmp_path / "cv-paper.json"
    assert json.loads(first.read_text()) == found

    later = tmp_path / "later"
    later.mkdir()
    (later / "summary.json").write_text(json.dumps(summary(0, c=[40, 41, 42])))
    main(first, later)
    assert list(json.loads(first.read_text())["models"]) == ["a", "b", "c"]
    assert len(json.loads((tmp_path / "compare-paper.json").read_text())["pairs"]) == 3

    other = summary(1, a=[1, 2, 3], b=[1, 2, 3])
    (later / "summary.json").write_text(json.dumps(other))
    main(first, later)
    of_seed_1 = tmp_path / "cv-paper-seed1.json"
    assert json.loads(of_seed_1.read_text()) == other
    main(first, fails="compares seed 1 as well")
    main(first, of_seed_1)
    main(later, fails="compares seed 0 as well")
    main(folder, of_seed_1, fails="holds c, too")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no summary.json"),
        ("[1", "is no summary"),
        ("{}", "it lacks data, folds, input_size, models"),
        ("[1]", "it lacks data"),
    ],
)
def test_what_is_no_summary_is_one_sentence(content, says, tmp_path):
    if content:
        (tmp_path / "summary.json").write_text(content)
    done = run_here("train/compare.py", tmp_path, "--results", tmp_path)
    assert done.returncode == 2 and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, "of FER2013 itself"),
        ({"data": REAL, "settings": settings(0, epochs=1)}, "not the recipe's 20"),
    ],
)
def test_only_whole_cross_validations_of_fer2013_are_published(change, says, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(summary(0, a=[60, 61, 62], b=[50, 51, 52]) | change))
    done = run_here("train/compare.py", tmp_path, "--results", RESULTS_DIR)
    assert done.returncode == 2 and says in done.stderr
    assert "a - b" in done.stdout, "what was asked for is said all the same"
    assert run_here("train/compare.py", tmp_path).returncode == 0


def test_the_published_comparison_is_of_the_published_cross_validation():
    crossed, compared = (
        json.loads((RESULTS_DIR / f"{name}-paper.json").read_text()) for name in ("cv", "compare")
    )
    assert compared["seeds"][0] == crossed["settings"]["seed"]
    for pair in compared["pairs"]:
        first, second = (crossed["models"][name]["folds"] for name in pair["models"])
        ours = [a["accuracy"] - b["accuracy"] for a, b in zip(first, second, strict=True)]
        assert pair["differences"][: crossed["folds"]] == pytest.approx(ours)


def test_published_figures_are_of_all_seeds():
    """What two networks of the same seeds differ by is what their comparison says."""
    models = published()["models"]
    compared = json.loads((RESULTS_DIR / "compare-paper.json").read_text())
    checked = 0
    for pair in compared["pairs"]:
        ours, theirs = (models[name] for name in pair["models"])
        if len(ours["folds"]) == len(theirs["folds"]) == compared["folds"] * len(pair["seeds"]):
            assert ours["mean"]["accuracy"] - theirs["mean"]["accuracy"] == pytest.approx(pair["mean"])
            checked += len(pair["seeds"]) > 1
    assert checked
