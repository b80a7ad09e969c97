"""Which runs the zoo's weight files come from: their recipes, and the runs that teach them."""

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
        "fer_kernel_cnn": "student",
        "fer_resnet": "taught",
        "fer_cbam": "strong-mix",
        "fer_net": "student-quick",
        "fer_net_tiny": "student",
    },
}

# The runs, network and recipe, whose mean teaches those of a recipe.
TEACHERS = {
    "taught": (("fer_resnet", "strong-mix"), ("fer_cbam", "strong-mix")),
    "student": (("fer_resnet", "strong-mix"), ("fer_cbam", "strong-mix"), ("fer_resnet", "taught")),
}
TEACHERS["student-quick"] = TEACHERS["student"]

# Trainings of fewer epochs than their recipe's, for want of time.
SHORTER = {("fer_cbam", "strong-mix"): 30}


def needs(recipe: str) -> list[tuple[str, str]]:
    """The runs, network and recipe, that must be finished before those of a recipe, in such an order."""
    return list(dict.fromkeys(run for one in TEACHERS.get(recipe, ()) for run in (*needs(one[1]), one)))


def epochs(model: str, recipe: str) -> int:
    """How many such a run has."""
    return SHORTER.get((model, recipe)) or load_recipe(recipe).epochs
