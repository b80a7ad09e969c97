"""Which runs the weight files of the paper's four networks come from: recipe, earlier runs, teachers."""

from train.recipe import load_recipe

# The recipe of a file's run, by tag and network.
RECIPES = {
    "paper": {
        "fer_cnn": "paper",
        "fer_kernel_cnn": "paper",
        "fer_resnet": "paper",
        "fer_cbam": "paper",
    },
    "fer2013": {
        "fer_cnn": "strong",
        "fer_kernel_cnn": "strong",
        "fer_resnet": "taught",
        "fer_cbam": "strong-mix",
    },
}

# The recipe of the network's own run whose weights a run goes on from.
STARTS = {
    ("fer_resnet", "retaught"): "taught",
    ("fer_cbam", "retaught"): "strong-mix",
}

# The runs, network and recipe, whose mean teaches those of a recipe.
TEACHERS = {
    "taught": (("fer_resnet", "strong-mix"), ("fer_cbam", "strong-mix")),
    "retaught": (("fer_resnet", "strong-mix"), ("fer_cbam", "strong-mix"), ("fer_resnet", "taught")),
}

# Trainings of fewer epochs than their recipe's, for want of time.
SHORTER = {("fer_cbam", "strong-mix"): 30}


def needs(model: str, recipe: str) -> list[tuple[str, str]]:
    """The runs, network and recipe, that must be finished before this one: those before them first."""
    direct = list(TEACHERS.get(recipe, ()))
    if (model, recipe) in STARTS:
        direct.append((model, STARTS[model, recipe]))
    return list(dict.fromkeys(run for one in direct for run in (*needs(*one), one)))


def epochs(model: str, recipe: str) -> int:
    """How many such a run has."""
    return SHORTER.get((model, recipe)) or load_recipe(recipe).epochs
