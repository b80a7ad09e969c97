"""Makes everything again: cross-validation, side studies, all weight files with their scores, the audit.

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
from train.cards import RECIPES, SHORTER, TAUGHT, TEACHER_RECIPE, TEACHERS
from train.cli import create_parser, run
from train.evaluate import RESULTS_DIR
from train.run_dir import finished
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
    wanted += [(model, TEACHER_RECIPE, 0) for model in TEACHERS]
    return [_fit(out, *each, common) for each in dict.fromkeys(wanted)]


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
    if (model, recipe) in SHORTER:
        given["epochs"] = SHORTER[model, recipe]
    return Step(name, "fit.py", given | options)


def study_step(out: Path, data: dict) -> Step:
    """Gathers the side studies of `fit_steps`."""
    runs = tuple(out / f"{studies.MODEL}-{name}-0" for name in studies.RECIPES)
    return Step("studies", "studies.py", {"out": out / "results" / "studies.json"} | data, runs)


def make_weights(out: Path, model: str, tag: str, data: dict, runs: Iterable[Path], logs: Path) -> None:
    """Packages the run that is best on clean validation, and scores the file, each split once."""
    best = max(runs, key=lambda run: finished(run)[1]["best"]["val_accuracy"])
    config, result = finished(best)
    name = f"{model}.{tag}"
    file, scored = out / "weights" / f"{name}.safetensors", out / "results" / f"{name}.json"
    calibrate = {} if tag == "paper" else data
    package = Step(f"package-{name}", "package.py", {"tag": tag, "folder": file.parent} | calibrate, (best,))
    results = json.loads(scored.read_text()) if scored.exists() else {}
    # a file packaged again is another to its sha256: its metadata come in any order
    same = file.exists() and results.get("run") == {"config": config, "result": result}
    done = results["splits"] if same else {}
    if not same:
        run_all([package], 1, logs)
    options = {"model": file, "results": scored.parent} | data
    again = {"reason": "another run is the best"} if results and not done else {}
    run_all(
        [
            Step(f"evaluate-{name}-{split}", "evaluate.py", {"split": split} | options | again)
            for split in ("validation", "test")
            if split not in done
        ],
        1,
        logs,
    )


def score_seeds(out: Path, model: str, tag: str, data: dict, runs: Iterable[Path], logs: Path) -> None:
    """Scores several seeds and their ensemble, once."""
    runs, results = tuple(sorted(runs)), out / "results"
    if len(runs) > 1 and not (results / f"seeds-{model}.{tag}.json").exists():
        options = {"tag": tag, "results": results} | data
        run_all([Step(f"seeds-{model}.{tag}", "seeds.py", options, runs)], 1, logs)


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
    for folder in ("weights", "results"):
        (out / folder).mkdir(exist_ok=True)
    for tag, recipes in RECIPES.items():
        for model, recipe in recipes.items():
            runs = list(out.glob(f"{model}-{recipe}-[0-9]"))
            make_weights(out, model, tag, data, runs, logs)
            score_seeds(out, model, tag, data, runs, logs)
    run_all([study_step(out, data)], 1, logs)
    results = out / "results"
    looked_at = {"model": out / "weights" / f"{studies.MODEL}.paper.safetensors"}
    steps = [
        Step("audit", "audit.py", {"out": results / "audit.json"} | data),
        Step("mean-gradcam", "mean_gradcam.py", {"out": results / "mean-gradcam.json"} | looked_at | data),
        Step("compare", "compare.py", {"results": results}, tuple(summaries)),
    ]
    run_all(steps, 1, logs)
    print(table(out))


if __name__ == "__main__":
    run(main)
