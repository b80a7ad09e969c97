"""Tries changes of a model or its recipe, one at a time, and writes what each is worth on clean validation.

    python train/search.py train/searches/fer_net.toml --data SOURCE --jobs 6    # side by side on one GPU
    python train/search.py train/searches/fer_net.toml --data SOURCE --epochs 1  # a rehearsal

A trial is compared with the base of the same seed, by the mean accuracy of its last five epochs, which is
less a matter of luck than the best one's. Stopped and started again, it goes on where it was. The table goes
into model_cards/results/search-NAME.json, that of a rehearsal beside its runs.
"""

import dataclasses
import json
import re
import sys
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.benchmark import Timer

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import create_parser, load_data, run
from train.files import RESULTS_DIR, write_atomic, write_json
from train.hardware import cpu
from train.networks import check_name, create_network, size_of
from train.recipe import load_recipe
from train.run_dir import finished, read_history
from train.steps import Step, add_step_arguments, out_of_steps, run_all, step_options

BASE = "base"


@dataclass(frozen=True)
class Trial:
    """One change.

    Attributes:
        name: In words.
        model: A name of timm's, in place of the search's.
        change: Keys of the recipe that differ.
        teacher: Learn from the teacher's file, too.
    """

    name: str
    model: str
    change: dict[str, object] = field(default_factory=dict)
    teacher: bool = False

    @property
    def file_name(self) -> str:
        """Of what is written of it: its place in the search may change."""
        return re.sub(r"\W+", "-", self.name.lower()).strip("-")


@dataclass(frozen=True)
class Search:
    """What a search file says.

    Attributes:
        model: That of the base.
        recipe: That of the base.
        epochs: Of every trial that does not say otherwise.
        seeds: Each trial is run with all of them.
        trials: The base first.
    """

    model: str
    recipe: str
    epochs: int
    seeds: list[int]
    trials: list[Trial]

    def change(self, trial: Trial) -> dict[str, object]:
        """Keys of the recipe that differ from that of `recipe`."""
        return {"epochs": self.epochs} | trial.change


def load_search(file: Path) -> Search:
    """Reads and checks a search file.

    Raises:
        ValueError: It is no valid TOML, or lacks a key or has an unknown one.
        ModelError: timm does not know a model.
        RecipeError: A change is not one of a recipe.
    """
    try:
        values = tomllib.loads(file.read_text())
        trials = [{"name": BASE}, *values.pop("trials")]
        trials = [Trial(**({"model": values["model"]} | trial)) for trial in trials]
        search = Search(**values, trials=trials)
        if search.recipe.endswith(".toml"):  # the trials' recipes, which lie elsewhere, are based on it
            search = dataclasses.replace(search, recipe=str(Path(search.recipe).resolve()))
        names = [trial.file_name for trial in search.trials]
        for trial in search.trials:
            check_name(trial.model)
            load_recipe(search.recipe, **search.change(trial))
    except (OSError, tomllib.TOMLDecodeError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"{file} is not a search that can be read: {error}") from error
    if len(set(names)) < len(names):
        raise ValueError(f"{file} gives two trials one name")
    seeds = search.seeds
    if not (isinstance(seeds, list) and seeds and all(isinstance(seed, int) for seed in seeds)):
        raise ValueError(f"{file}: seeds are a list of whole numbers such as [0, 1], not {seeds!r}")
    return search


def steps(search: Search, out: Path, common: dict, teacher: list[Path]) -> list[Step]:
    """A training for each trial and seed; its recipe is written into `out`."""
    found = []
    for trial in search.trials:
        recipe = out / "recipes" / f"{trial.file_name}.toml"
        lines = [f"# {trial.name}", f"base = {json.dumps(search.recipe)}"]
        change = search.change(trial)
        change |= {"warmup_epochs": load_recipe(search.recipe, **change).warmup_epochs}  # of few epochs less
        lines += [f"{key} = {json.dumps(value)}" for key, value in change.items()]
        write_atomic(recipe, "\n".join(lines) + "\n")
        for seed in search.seeds:
            options = common | {"model": trial.model, "recipe": recipe, "seed": seed}
            options["out"] = run_dir(out, trial, seed)
            if trial.teacher:
                options["teacher"] = teacher
            found.append(Step(options["out"].name, "fit.py", options))
    return found


def run_dir(out: Path, trial: Trial, seed: int) -> Path:
    return out / f"{trial.file_name}-{seed}"


def summarize(search: Search, out: Path) -> list[dict]:
    """What the finished trials are worth, the base first, then the best accuracy first.

    Returns:
        A dict a trial: `name`, `model`, `change`; `accuracy` in percent and its difference to the base's,
        `gain`, a value a seed; `minutes` of a run; and the network's `parameters`, `gmacs` and `milliseconds`
        a face, of `cost_of`.
    """
    rows = []
    for trial in search.trials:
        folders = [run_dir(out, trial, seed) for seed in search.seeds]
        results = [finished(folder)[1] for folder in folders]
        last = [read_history(folder)[-5:] for folder in folders]
        rows.append(
            {
                "name": trial.name,
                "model": trial.model,
                "change": trial.change,
                "accuracy": [float(np.mean([line["val_accuracy"] for line in lines])) for lines in last],
                "minutes": sum(result["train_seconds"] for result in results) / 60 / len(results),
            }
            | cost_of(trial.model)
        )
    base = rows[0]
    for row in rows:
        row["gain"] = np.subtract(row["accuracy"], base["accuracy"]).tolist()
    return [base, *sorted(rows[1:], key=lambda row: -np.mean(row["gain"]))]


@cache
def cost_of(name: str) -> dict:
    """What a network costs: `parameters`, `gmacs`, and `milliseconds` a face, alone on the CPU, in fp32."""
    model = create_network(name).eval().to(memory_format=torch.channels_last)  # as `Recognizer` has it
    face = torch.zeros(1, 1, 48, 48)
    with torch.inference_mode():
        timer = Timer("model(face)", globals={"model": model, "face": face}, num_threads=2)
        milliseconds = 1e3 * timer.blocked_autorange(min_run_time=0.5).median
    return size_of(model, face) | {"milliseconds": milliseconds}


def table(rows: list[dict]) -> str:
    """The trials as Markdown."""
    seeds = len(rows[0]["accuracy"])
    several = seeds > 1  # only then there is a least and a most
    trained, span = (f"mean of {seeds} seeds", "| least to most ") if several else ("one seed", "")
    lines = [
        f"| change; {trained} | accuracy % | against base {span}| parameters | GMACs | ms a face | minutes |",
        "|---" + "|--:" * (7 if several else 6) + "|",
    ]
    for row in rows:
        span = f"| {min(row['gain']):+.2f} to {max(row['gain']):+.2f} " if several else ""
        lines.append(
            f"| {row['name']} | {np.mean(row['accuracy']):.2f} | {np.mean(row['gain']):+.2f} {span}"
            f"| {row['parameters']:,} | {row['gmacs']:.3f} | {row['milliseconds']:.1f} "
            f"| {row['minutes']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("search", type=Path, help="a TOML file, such as train/searches/fer_net.toml")
    add_step_arguments(parser)
    parser.add_argument(
        "--teacher",
        nargs="+",
        type=Path,
        default=[],
        help="for trials with a teacher; else they are left out",
    )
    parser.add_argument(
        "--results",
        type=Path,
        help="folder of the results file (default: that of the zoo's, for rehearsals that of the runs)",
    )
    args = parser.parse_args()
    search = load_search(args.search)
    if not args.teacher:
        for trial in (trial for trial in search.trials if trial.teacher):
            print(f"left out: {trial.name}: it needs --teacher", file=sys.stderr)
        search = dataclasses.replace(search, trials=[trial for trial in search.trials if not trial.teacher])
    name = f"search-{args.search.stem}"
    out = out_of_steps(args, name)
    file = (args.results or (out if args.epochs else RESULTS_DIR)) / f"{name}.json"
    if file.parent.resolve() == RESULTS_DIR:
        if args.epochs:
            raise ValueError("rehearsals are not published: give --results another folder")
        load_data(args)  # what is published is of the real data
        published = json.loads(file.read_text())["trials"] if file.exists() else []
        if lost := {row["name"] for row in published} - {trial.name for trial in search.trials}:
            raise ValueError(f"{file} holds {', '.join(sorted(lost))}, too: give --results a folder")
    _, common = step_options(args)
    run_all(steps(search, out, common, args.teacher), args.jobs, out / "logs")
    rows = summarize(search, out)
    config, result = finished(run_dir(out, search.trials[0], search.seeds[0]))
    common = {key: config[key] for key in ("data", "versions", "hardware", "git", "recipe")}
    results = {"model": search.model, "epochs": args.epochs or search.epochs, "seeds": search.seeds}
    results |= {"validation_images": result["validation_images"], "timed_on": f"{cpu()}, 2 threads"}
    write_json(file, results | common | {"trials": rows})
    print(table(rows))


if __name__ == "__main__":
    run(main)
