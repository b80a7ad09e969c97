"""What a weight file's trainings cost, by their records."""

from dataclasses import asdict

from train.files import read_results
from train.lineage import RECIPES, epochs, needs, own_runs
from train.recipe import Recipe, load_recipe, settings_of


def minutes_of(results: dict) -> float | None:
    """How long a file's own trainings took together; None where that of one is not known."""
    arch, _, tag = results["model"].partition(".")
    recipe = recipe_name(results)
    return _minutes(own_runs(arch, recipe)) if reproducible(arch, tag, recipe) else None


def time_of(results: dict) -> str:
    """`minutes_of` as text, and the hours of those before them that taught."""
    arch, recipe, own = results["model"].partition(".")[0], recipe_name(results), minutes_of(results)
    if own is None:
        return ""
    every = _minutes([*needs(arch, recipe), (arch, recipe)])
    taught = "" if every in (None, own) else f"; {every / 60:.1f} hours with those that taught it"
    return f", {own:.0f} minutes{taught}"


def _minutes(runs: list[tuple[str, str]]) -> float | None:
    """Of runs, network and recipe, together; None where one of them left no record."""
    records = [_record(*run) for run in runs]
    return None if None in records else sum(record["train_seconds"] for record in records) / 60


def _record(arch: str, recipe: str) -> dict | None:
    """What is kept of a run: in the results file that it led to, else among those that led to other runs."""
    for tag, recipes in RECIPES.items():
        if recipes.get(arch) == recipe and (results := read_results(f"{arch}.{tag}", {})):
            return results["run"]["result"]
    return read_results("earlier_runs", {}).get(f"{arch}-{recipe}")


def petaflop(gmacs: float, recipe: dict, result: dict) -> float:
    """Of a training: backward is twice forward, and a multiply-add two operations."""
    # the images of a zoo network's small epochs have 32x32 pixels in place of 48x48
    small = Recipe(**settings_of(recipe)).small_epochs / recipe["epochs"] * (1 - 4 / 9)
    passes = 2 if recipe.get("sam") else 1
    return passes * 6 * gmacs * seen(recipe, result) * (1 - small) / 1e6


def started_from(arch: str, tag: str, recipe: str) -> list[dict]:
    """The settings of the runs of the same network that a file's run went on with."""
    if not reproducible(arch, tag, recipe):
        return []
    _, *earlier = own_runs(arch, recipe)
    return [asdict(load_recipe(name, epochs=epochs(model, name))) for model, name in earlier]


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
