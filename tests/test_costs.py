"""What a file's trainings cost, of all the runs that it went on with."""

import json

import pytest

from train.costs import cost_in_words, minutes_of
from train.earlier import record
from train.files import RESULTS_DIR


def results(name: str) -> dict:
    return json.loads((RESULTS_DIR / f"{name}.json").read_text())


def petaflop(name: str) -> float:
    return float(cost_in_words(results(name)).split()[0])


def test_a_file_costs_what_its_run_and_those_before_it_did():
    labels, votes = results("fer_net.fer2013"), results("fer_net.ferplus")
    own = votes["run"]["result"]["train_seconds"] / 60
    assert minutes_of(votes) == pytest.approx(minutes_of(labels) + own)
    # each epoch of the last run saw 221 batches of 128 images, of them half a 32x32 image's share
    recipe = votes["run"]["config"]["recipe"]
    assert votes["run"]["result"]["train_images"] // recipe["batch_size"] == 221
    small = recipe["progressive"] * (1 - 4 / 9)
    last = 6 * votes["gmacs"] * recipe["epochs"] * 221 * recipe["batch_size"] * (1 - small) / 1e6
    assert petaflop("fer_net.ferplus") == pytest.approx(petaflop("fer_net.fer2013") + last, abs=0.011)
    assert "hours with those that taught it" in cost_in_words(votes)
    assert "hours" not in cost_in_words(results("fer_cnn.paper"))


def test_a_run_that_was_made_anew_by_another_recipe_is_not_the_one_that_others_went_on_with(
    tmp_path, monkeypatch
):
    for file in RESULTS_DIR.glob("*.json"):
        (tmp_path / file.name).write_text(file.read_text())
    monkeypatch.setattr("train.files.RESULTS_DIR", tmp_path)
    votes, labels = results("fer_net.ferplus"), results("fer_net.fer2013")
    before = cost_in_words(votes)
    labels["run"]["config"]["recipe_name"] = "flagship"
    labels["run"]["result"]["train_seconds"] = 1e6
    (tmp_path / "fer_net.fer2013.json").write_text(json.dumps(labels))
    assert before != "not known" and cost_in_words(votes) == "not known" and minutes_of(votes) is None
    labels["run"]["config"]["start"] = "0" * 64
    assert cost_in_words(labels) == "not known"
    labels["run"]["config"]["start"] = None
    assert cost_in_words(labels).endswith(" PFLOP")


def test_records_of_earlier_runs_are_what_the_history_holds():
    kept = results("earlier_runs")
    with pytest.raises(ValueError, match=r"git shows no nowhere:model_cards/results/fer_cnn\.paper\.json"):
        record("fer_cnn.paper", "nowhere")
    try:
        found = {name: record(run["file"], run["commit"]) for name, run in kept.items()}
    except ValueError as error:
        pytest.skip(f"not a whole clone: {error}")
    assert found == kept
