"""Makes everything again: cross-validation, side studies, and all weight files with their scores.

    make reproduce DATA=path/to/fer2013
    python train/reproduce.py --data SOURCE --jobs 6        # six trainings side by side on one GPU
    python train/reproduce.py --data SOURCE --epochs 1      # a rehearsal

All of it lands in one folder, the packaged files of the zoo are not touched. Stopped and started again, it
goes on where it was. In the end its accuracies stand beside the published ones.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train import controls, studies
from train.cards import RECIPES, TAUGHT, TEACHER_RECIPE, TEACHERS
from train.cli import create_parser, run
from train.evaluate import RESULTS_DIR
from train.steps import Step, add_step_arguments, run_all, step_options

MODELS = tuple(RECIPES["paper"])
FOLDS = 3
TEACHER = "teacher.parquet"


def cv_steps(out: Path, seeds: int, common: dict) -> list[Step]:
    """A step a model, seed and fold; all of a seed share a folder."""
    steps = []
    for seed in range(seeds):
        options = {"seed": seed, "folds": FOLDS, "out": out / f"cv-paper-{seed}"} | common
        for model in (*MODELS, *controls.__all__):
            for fold in range(1, FOLDS + 1):
                name = f"cv-paper-{seed}-{model}-{fold}"
                steps.append(Step(name, "cv.py", {"model": model, "fold": fold} | options))
    return steps


def fit_steps(out: Path, seeds: int, common: dict) -> list[Step]:
    """The weights that no teacher helps, the teacher's networks, and the side studies."""
    wanted = [(model, "paper", 0) for model in MODELS]
    wanted += [(studies.MODEL, name, 0) for name in studies.RECIPES[1:]]
    wanted += [
        (model, recipe, seed)
        for model, recipe in RECIPES["fer2013"].items()
        if recipe != TAUGHT
        for seed in range(seeds)
    ]
    teachers = {(model, TEACHER_RECIPE, 0): {"epochs": epochs} | common for model, epochs in TEACHERS.items()}
    steps = dict.fromkeys(wanted, common) | teachers
    return [_fit(out, *wanted, options) for wanted, options in steps.items()]


def taught_steps(out: Path, seeds: int, common: dict) -> list[Step]:
    """The weights that a teacher helps."""
    options = common | {"teacher": out / TEACHER}
    return [
        _fit(out, model, TAUGHT, seed, options)
        for model, recipe in RECIPES["fer2013"].items()
        if recipe == TAUGHT
        for seed in range(seeds)
    ]


def teacher_step(out: Path, data: dict) -> Step:
    """What the teacher's networks, of `fit_steps`, make of the training images."""
    runs = tuple(out / f"{model}-{TEACHER_RECIPE}-0" for model in TEACHERS)
    return Step("teacher", "teacher.py", {"out": out / TEACHER} | data, runs)


def _fit(out: Path, model: str, recipe: str, seed: int, options: dict) -> Step:
    name = f"{model}-{recipe}-{seed}"
    given = {"model": model, "recipe": recipe, "seed": seed, "out": out / name}
    return Step(name, "fit.py", given | options)


def study_step(out: Path, data: dict) -> Step:
    """Gathers the side studies of `fit_steps`."""
    runs = tuple(out / f"{studies.MODEL}-{name}-0" for name in studies.RECIPES)
    return Step("studies", "studies.py", {"out": out / "results" / "studies.json"} | data, runs)


def weight_steps(out: Path, model: str, tag: str, data: dict, runs: Iterable[Path]) -> list[Step]:
    """Packages the run that is best on clean validation, and scores it, each split once."""
    best = max(runs, key=lambda run: json.loads((run / "result.json").read_text())["best"]["val_accuracy"])
    name = f"{model}.{tag}"
    weights, results = out / "weights", out / "results"
    calibrate = {} if tag == "paper" else data
    steps = [Step(f"package-{name}", "package.py", {"tag": tag, "folder": weights} | calibrate, (best,))]
    scored = results / f"{name}.json"
    done = json.loads(scored.read_text())["splits"] if scored.exists() else {}
    for split in ("validation", "test"):
        options = {"model": weights / f"{name}.safetensors", "split": split, "results": results} | data
        if split not in done:
            steps.append(Step(f"evaluate-{name}-{split}", "evaluate.py", options))
    return steps


def table(out: Path) -> str:
    """Accuracies made here beside the published ones."""
    lines = [f"{'weights':<24}{'clean validation %':>20}{'test %':>10}{'published %':>14}"]
    for file in sorted((out / "results").glob("fer_*.json")):
        splits = json.loads(file.read_text())["splits"]
        published = RESULTS_DIR / file.name
        theirs = (
            json.loads(published.read_text())["splits"]["test"]["accuracy"] if published.exists() else None
        )
        lines.append(
            f"{file.stem:<24}{splits['validation_clean']['accuracy']:>20.2f}{splits['test']['accuracy']:>10.2f}"
            + (f"{theirs:>14.2f}" if theirs else f"{'-':>14}")
        )
    return "\n".join(lines)


def main() -> None:
    parser = create_parser(__doc__)
    add_step_arguments(parser)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/reproduce"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="of every comparison (default: %(default)s)")
    args = parser.parse_args()
    out, logs = args.out, args.out / "logs"
    data, common = step_options(args)

    run_all(fit_steps(out, args.seeds, common) + cv_steps(out, args.seeds, common), args.jobs, logs)
    if not (out / TEACHER).exists():  # made again elsewhere, it would differ in the last bits
        run_all([teacher_step(out, data)], 1, logs)
    run_all(taught_steps(out, args.seeds, common), args.jobs, logs)
    summaries = []
    for seed in range(args.seeds):
        summaries.append(out / f"cv-paper-{seed}")
        options = {"model": [*MODELS, *controls.__all__], "seed": seed, "folds": FOLDS, "out": summaries[-1]}
        run_all([Step(f"cv-paper-{seed}", "cv.py", options | common)], 1, logs)
    (out / "weights").mkdir(exist_ok=True)
    for tag, recipes in RECIPES.items():
        for model, recipe in recipes.items():
            runs = out.glob(f"{model}-{recipe}-[0-9]")
            run_all(weight_steps(out, model, tag, data, runs), 1, logs)
    run_all([study_step(out, data)], 1, logs)
    compared = {"out": out / "results" / "compare.json"}
    run_all([Step("compare", "compare.py", compared, tuple(summaries))], 1, logs)
    print(table(out))


if __name__ == "__main__":
    run(main)
