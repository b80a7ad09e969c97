"""What a weight file's trainings cost, by their records."""

from dataclasses import asdict

from train.earlier import accuracy
from train.files import read_results
from train.lineage import LIVE, RECIPES, epochs, needs, own_runs
from train.recipe import Recipe, load_recipe, settings_of


def cost_in_words(results: dict) -> str:
    """What a file's own trainings took together, and the hours of those before them that taught, as text."""
    arch, _, tag = results["model"].partition(".")
    config, recipe = results["run"]["config"], recipe_name(results)
    known, own = reproducible(arch, tag, recipe), minutes_of(results)
    if own is None and (known or config.get("start")):  # the record of a run before it is not kept
        return "not known"
    work = _petaflop(results["gmacs"], recipe, config["recipe"], results["run"]["result"])
    if own is None:
        return f"{work:.2f} PFLOP"
    for model, name in own_runs(arch, recipe)[1:]:
        settings = asdict(load_recipe(name, epochs=epochs(model, name)))
        work += _petaflop(results["gmacs"], name, settings, record_of(model, name))
    every = _minutes([*needs(arch, recipe), (arch, recipe)])
    taught = "" if every in (None, own) else f"; {every / 60:.1f} hours with those that taught it"
    return f"{work:.2f} PFLOP, {own:.0f} minutes{taught}"


def minutes_of(results: dict) -> float | None:
    """How long a file's own trainings took together; None where that of one is not known."""
    arch, _, tag = results["model"].partition(".")
    recipe = recipe_name(results)
    return _minutes(own_runs(arch, recipe)) if reproducible(arch, tag, recipe) else None


def _minutes(runs: list[tuple[str, str]]) -> float | None:
    """Of runs, network and recipe, together; None where one of them left no record."""
    records = [record_of(*run) for run in runs]
    return None if None in records else sum(record["train_seconds"] for record in records) / 60


def record_of(arch: str, recipe: str) -> dict | None:
    """What is kept of a run: in the results file that it led to, else among those that led to other runs.

    Returns:
        Its result, and under `accuracy` what its weight file read; None where neither is kept.
    """
    for tag, recipes in RECIPES.items():
        results = read_results(f"{arch}.{tag}", {}) if recipes.get(arch) == recipe else {}
        if results and recipe_name(results) == recipe:  # the file may have been made by another one since
            return results["run"]["result"] | {"accuracy": accuracy(results)}
    return read_results("earlier_runs", {}).get(f"{arch}-{recipe}")


def _petaflop(gmacs: float, name: str, recipe: dict, result: dict) -> float:
    """Of a training by the recipe of that name: backward is twice forward, a multiply-add two operations."""
    # the images of a zoo network's small epochs have 32x32 pixels in place of 48x48
    small = Recipe(**settings_of(recipe)).small_epochs / recipe["epochs"] * (1 - 4 / 9)
    passes = 2 if recipe.get("sam") else 1
    # a live teacher goes forward only
    teacher = 2 * read_results(f"{LIVE[name][0]}.fer2013")["gmacs"] if name in LIVE else 0
    return (passes * 6 * gmacs + teacher) * seen(recipe, result) * (1 - small) / 1e6


def seen(recipe: dict, result: dict) -> int:
    """Images that a training saw: an epoch leaves out the last batch where it is not full."""
    batch = recipe["batch_size"]
    return recipe["epochs"] * (result["train_images"] // batch * batch)


def recipe_name(results: dict) -> str:
    arch, _, tag = results["model"].partition(".")
    return results["run"]["config"].get("recipe_name") or RECIPES[tag][arch]


def reproducible(arch: str, tag: str, recipe: str) -> bool:
    """Whether `train/reproduce.py` makes such a file, and not `train/flagship.py`."""
    return RECIPES[tag].get(arch) == recipe
