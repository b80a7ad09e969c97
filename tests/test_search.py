"""Searching a recipe, and all of the flagship's training, rehearsed on small drawn data."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from launch import ROOT, run, run_here

from fer_zoo.models import ModelError
from train import cards, flagship, lineage, trials
from train.files import RESULTS_DIR
from train.networks import create_network
from train.recipe import RecipeError, load_recipe, without_seed
from train.search import load_search, steps, table

SEARCH = """
model = "fer_net_tiny"
recipe = "paper"
epochs = 2
seeds = [3]

[[trials]]
name = "max pooling"
model = "trial_max_pool"
change = { epochs = 1 }

[[trials]]
name = "taught"
teacher = true
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "search.toml"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "file", sorted((ROOT / "train" / "searches").glob("*.toml")), ids=lambda file: file.stem
)
def test_every_search_loads(file):
    search = load_search(file)
    assert search.trials[0].name == "base" and search.trials[0].model == search.model


@pytest.mark.parametrize(
    ("before", "after", "error", "says"),
    [
        ("trial_max_pool", "trial_max_pol", ValueError, "did you mean trial_max_pool"),
        ("epochs = 1", "epoch = 1", RecipeError, "did you mean 'epochs'"),
        ('recipe = "paper"', "", ValueError, "recipe"),
        ("teacher = true", "techer = true", ValueError, "techer"),
        ('"taught"', '"max pooling"', ValueError, "two trials one name"),
        ("seeds = [3]", "seeds = [3", ValueError, "not a search that can be read"),
        ("seeds = [3]", "seeds = []", ValueError, "a list of whole numbers"),
        ("seeds = [3]", "seeds = 3", ValueError, "a list of whole numbers"),
        ('"max pooling"', "3", ValueError, "not a search that can be read"),
        ('"paper"', "3", ValueError, "not a search that can be read"),
        ('"fer_net_tiny"', "3", ValueError, "not a search that can be read"),
        ("{ epochs = 1 }", "{ name = 1 }", RecipeError, "name"),
        ("epochs = 2", "epochs = 0", RecipeError, "epochs"),
    ],
)
def test_searches_are_strict(tmp_path, before, after, error, says):
    assert before in SEARCH
    with pytest.raises(error, match=says):
        load_search(write(tmp_path, SEARCH.replace(before, after)))


def test_a_search_compares_with_its_base_and_goes_on_where_it_was(few, tmp_path):
    command = ("train/search.py", write(tmp_path, SEARCH), "--data", few, "--jobs", 2)
    command += ("--out", tmp_path / "runs", "--results", tmp_path)
    done = run(*command)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "search-search.json").read_text())
    base, other = results["trials"]
    assert "left out: taught: it needs --teacher" in done.stderr
    assert 200_000 < base["parameters"] < 250_000 and base["gmacs"] > 0.03 and base["milliseconds"] > 0
    assert (base["name"], base["gain"], other["name"]) == ("base", [0], "max pooling")
    assert other["gain"] == [pytest.approx(other["accuracy"][0] - base["accuracy"][0])]
    histories = [
        list(map(json.loads, (tmp_path / "runs" / name / "history.jsonl").read_text().splitlines()))
        for name in ("base-3", "max-pooling-3")
    ]
    assert [len(lines) for lines in histories] == [2, 1]
    assert base["accuracy"] == [pytest.approx(sum(line["val_accuracy"] for line in histories[0]) / 2)]
    assert table(results["trials"]) in done.stdout

    weights = tmp_path / "runs" / "base-3" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert run(*command).returncode == 0 and weights.stat().st_mtime_ns == before


def test_a_published_search_is_not_replaced_by_less(few, tmp_path, monkeypatch):
    monkeypatch.setattr("train.search.RESULTS_DIR", tmp_path)
    command = ("train/search.py", write(tmp_path, SEARCH), "--out", tmp_path / "runs", "--data")
    drawn = run_here(*command, few)
    assert drawn.returncode == 2 and "not FER2013's published counts" in drawn.stderr
    monkeypatch.setattr("train.search.load_data", lambda args: None)
    published = tmp_path / "search-search.json"
    published.write_text(json.dumps({"trials": [{"name": "base"}, {"name": "min pooling"}]}))
    less = run_here(*command, few)
    assert less.returncode == 2 and "holds min pooling, too" in less.stderr
    assert not (tmp_path / "runs").exists()


def test_trials_of_few_epochs_have_less_warm_up(tmp_path):
    short = SEARCH.replace('"paper"', '"strong"')
    search = load_search(write(tmp_path, short))
    written = [step.options["recipe"] for step in steps(search, tmp_path, {}, [])]
    assert [(r.epochs, r.warmup_epochs) for r in map(load_recipe, written)] == [(2, 1), (1, 0), (2, 1)]


@pytest.mark.parametrize("name", trials.__all__)
def test_every_trial_learns(name):
    model = create_network(name)
    logits = model(torch.zeros(2, 1, 48, 48))
    assert logits.shape[:2] == (2, 7)
    logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(ModelError, match=f"{name} has no pretrained weights"):
        create_network(name, pretrained=True)


def test_every_training_of_the_flagship_has_a_folder_of_its_own(tmp_path):
    steps = flagship.label_steps(tmp_path, {"epochs": 1}) + flagship.student_steps(tmp_path, {"epochs": 1})
    assert len({step.name for step in steps}) == len(steps)
    fits = [step.options for step in steps if step.script == "fit.py"]
    assert len({options["out"] for options in fits}) == len(fits)
    for options in fits:  # a recipe may ask for what a network does not have
        recipe = load_recipe(options["recipe"])
        create_network(options["model"], drop_rate=recipe.drop_rate, drop_path_rate=recipe.drop_path_rate)
    taught = [options["teacher"] for options in fits if "teacher" in options]
    assert set(taught) == set(flagship.teachers(tmp_path).values())


def test_a_card_tells_of_seeds_and_trials_and_votes(tmp_path, monkeypatch):
    results = json.loads((RESULTS_DIR / "fer_cnn.paper.json").read_text()) | {"model": "fer_cnn.fer2013"}
    split = results["splits"]["test"] | {"flip_accuracy": 61.5}
    config = results["run"]["config"]
    for module in ("cards", "files"):
        monkeypatch.setattr(f"train.{module}.RESULTS_DIR", tmp_path)
    reads = [{"model": "fer_cnn.fer2013", "sha256": sha256} for sha256 in ("earlier", results["sha256"])]
    (tmp_path / "test_reads.jsonl").write_text("".join(json.dumps(read) + "\n" for read in reads))
    alone = cards.card(results)
    assert "Test was read once for this file and once for earlier ones of its name" in " ".join(alone.split())
    assert "seeds:" not in alone and "What was tried" not in alone and "FER+" not in alone
    assert "python train/reproduce.py --only fer_cnn.fer2013 --seeds 1 --data" in alone

    row = {"mean": split, "sd": split | {"accuracy": 0.25}, "ensemble": split | {"accuracy": 75.5}}
    flagship_recipe = dataclasses.asdict(load_recipe("flagship"))
    (tmp_path / "seeds-fer_cnn.fer2013.json").write_text(
        json.dumps(
            {"seeds": [0, 1], "best_on_clean_validation": 1, "splits": {"test": row}}
            | {"labels": "ferplus", "teacher": None, "recipe": without_seed(flagship_recipe)}
        )
    )
    trial = {"name": "base", "model": "tiny_first", "accuracy": [61, 62], "gain": [-0.25, 0.75]}
    trial |= {"parameters": 1000, "gmacs": 0.5, "milliseconds": 1.25, "minutes": 3.2}
    (tmp_path / "search-fer_cnn.json").write_text(
        json.dumps({"epochs": 60, "validation_images": 3309, "timed_on": "a CPU", "trials": [trial]})
    )
    config |= {"labels": "ferplus", "recipe_name": "flagship"}
    config["recipe"] = json.loads(json.dumps(flagship_recipe))
    results["splits"]["test_clean_ferplus"] = split
    card = cards.card(results)
    assert f"| test | {split['accuracy']:.2f} ± 0.25 |" in card and "| 75.50 ± 1.41 |" in card
    assert "best on clean validation is 1, the file's 0." in card and "each of the 2 seeds" in card
    assert "| base | 61.50 | +0.25 | -0.25 to +0.75 | 1,000 | 0.500 | 1.2 | 3 |" in card
    assert "95 % interval of ± 1.7" in " ".join(card.split())
    assert "One change of `tiny_first` of train/trials.py at a time" in card
    assert "clean test, FER+ majority" in card
    assert "train/flagship.py" in card
    assert "went on from one run" not in card
    file = tmp_path / "seeds-fer_cnn.fer2013.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"start": "a digest"}))
    assert "All went on from one run" in cards.card(results)
    config |= {"teacher": ["a digest"], "recipe_name": "strong"}
    assert "each of the 2 seeds" not in cards.card(results)  # they had no teacher


@pytest.mark.parametrize(
    ("model", "tag"), [(model, tag) for tag, recipes in lineage.RECIPES.items() for model in recipes]
)
def test_a_card_names_what_a_file_comes_from(model, tag):
    """Its run is the one that `train/reproduce.py` would make."""
    results = json.loads((RESULTS_DIR / f"{model}.{tag}.json").read_text())
    config, recipe = results["run"]["config"], lineage.RECIPES[tag][model]
    assert config.get("recipe_name", recipe) == recipe
    assert config["recipe"]["epochs"] == lineage.epochs(model, recipe)
    assert bool(config.get("teacher")) == (recipe in lineage.TEACHERS or recipe in lineage.LIVE)
    assert bool(config.get("start")) == bool(lineage.start(model, recipe))
    text = cards.card(results)
    assert f"train/reproduce.py --only {results['model']}" in text
    places = [
        text.index(f"`{name}` by `{recipe}`")
        for name, recipe in (*lineage.needs(model, recipe), (model, recipe))
    ]
    assert places == sorted(places)


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_the_flagship_is_rehearsed(few, tmp_path):
    command = ("train/flagship.py", "--data", few, "--epochs", 1, "--jobs", 2, "--out", tmp_path)
    command += ("--search", write(tmp_path, SEARCH))
    done = run(*command, timeout=2400)
    assert done.returncode == 0, done.stderr
    weights = {file.stem for file in (tmp_path / "weights").iterdir()}
    assert weights == {"fer_net.fer2013", "fer_net_tiny.fer2013", "fer_net.ferplus", "fer_cbam.ferplus"}
    assert (tmp_path / "results" / "search-search.json").exists()
    for name in weights:
        splits = json.loads((tmp_path / "results" / f"{name}.json").read_text())["splits"]
        assert ("test_clean_ferplus" in splits) == name.endswith("ferplus")
    seeds = {file.name for file in (tmp_path / "results").glob("seeds-*.json")}
    assert len(seeds) == 6
    reads = (tmp_path / "results" / "test_reads.jsonl").read_text().splitlines()
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "results" / "test_reads.jsonl").read_text().splitlines() == reads
