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
        "fer_cnn": "student-live-short",
        "fer_kernel_cnn": "student",
        "fer_resnet": "student-live-again",
        "fer_cbam": "student-live-again",
        "fer_net": "student-full",
        "fer_net_tiny": "student-live",
    },
    "ferplus": {
        "fer_cbam": "ferplus-full",
        "fer_net": "ferplus-long",
    },
}

# The runs, network and recipe, whose mean teaches those of a recipe.
TEACHERS = {
    "taught": (("fer_resnet", "strong-mix"), ("fer_cbam", "strong-mix")),
    "student": (("fer_resnet", "strong-mix"), ("fer_cbam", "strong-mix"), ("fer_resnet", "taught")),
}
TEACHERS["student-quick"] = TEACHERS["student"]
TEACHERS["student-again"] = (
    ("fer_cbam", "strong-mix"),
    ("tiny_first", "student"),
    ("net_first", "student-quick"),
    ("fer_cnn", "strong"),
)
TEACHERS["student-again-full"] = (
    ("fer_cbam", "strong-mix"),
    ("tiny_first", "student"),
    ("net_first", "student-again"),
    ("fer_cnn", "strong"),
)
TEACHERS["student-long"] = (
    ("fer_cbam", "student-again-full"),
    ("tiny_first", "student"),
    ("net_first", "student-again"),
    ("fer_cnn", "strong"),
)
TEACHERS["student-full"] = (
    ("fer_cbam", "student-again-full"),
    ("fer_net_tiny", "student-long"),
    ("net_first", "student-again"),
    ("fer_cnn", "strong"),
)

# Recipes whose teacher is one network that is asked in every step, and its run.
LIVE = {"student-live": ("fer_net", "student-full")}
LIVE["student-live-short"] = LIVE["student-live-again"] = LIVE["student-live"]

# Runs that go on with one of the same network, and that run's recipe.
STARTS = {
    ("fer_cnn", "student-live-short"): "strong",
    ("fer_kernel_cnn", "student-live-short"): "student",
    ("fer_resnet", "student-live-short"): "taught",
    ("fer_resnet", "student-live-again"): "student-live-short",
    ("fer_cbam", "student-again-full"): "strong-mix",
    ("fer_cbam", "student-live-short"): "student-again-full",
    ("fer_cbam", "student-live-again"): "student-live-short",
    ("fer_cbam", "ferplus-full"): "strong-mix",
    ("net_first", "student-again"): "student-quick",
    ("fer_net", "ferplus-long"): "student-full",
    ("fer_net_tiny", "student-live"): "student-long",
}

# Trainings of fewer epochs than their recipe's, for want of time.
SHORTER = {
    ("fer_cbam", "strong-mix"): 30,
    ("fer_cbam", "student-live-short"): 30,
    ("fer_cbam", "student-live-again"): 37,
}


def run_name(model: str, recipe: str, seed: int = 0) -> str:
    """What the directory of such a run is called, in the folder of all runs."""
    return f"{model}-{recipe}-{seed}"


def start(model: str, recipe: str) -> tuple[str, str] | None:
    """The run, network and recipe, whose weights such a run goes on with, if there is one."""
    return (model, STARTS[model, recipe]) if (model, recipe) in STARTS else None


def own_runs(model: str, recipe: str) -> list[tuple[str, str]]:
    """Such a run and those of the same network that it goes on with, the last first."""
    first = start(model, recipe)
    return [(model, recipe), *(own_runs(*first) if first else ())]


def needs(model: str, recipe: str) -> list[tuple[str, str]]:
    """The runs, network and recipe, that must be finished before such a run, in such an order."""
    first = start(model, recipe)
    live = [LIVE[recipe]] if recipe in LIVE else []
    earlier = (*TEACHERS.get(recipe, ()), *live, *([first] if first else []))
    return list(dict.fromkeys(run for one in earlier for run in (*needs(*one), one)))


def labels(recipe: str) -> str:
    """Whose labels such a run learns: "fer2013" or "ferplus"."""
    return "ferplus" if recipe in RECIPES["ferplus"].values() else "fer2013"


def epochs(model: str, recipe: str) -> int:
    """How many such a run has."""
    return SHORTER.get((model, recipe)) or load_recipe(recipe).epochs
