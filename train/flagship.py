"""Trains fer_net and fer_net_tiny at length: seeds, teachers, students, FER+, and their scores.

    python train/flagship.py --data SOURCE --jobs 6      # six trainings side by side on one GPU
    python train/flagship.py --data SOURCE --jobs 6 --search train/searches/fer_net.toml    # the search first
    python train/flagship.py --data SOURCE --epochs 1    # a rehearsal

Five seeds learn the labels; so do five folds, and what each fold's network makes of the images that it never
saw is one teacher, the five seeds' mean the other. Students learn from either besides the labels. The first
seed goes on with FER+'s votes, and so does a fer_cbam. For each
network the run that is best on clean validation is packaged and read once on test; so are the seeds' mean and
ensemble. All of it lands in one folder; stopped and started again, it goes on where it was.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import create_parser, load_data, run
from train.cv import PREDICTIONS
from train.ferplus import need_votes
from train.reproduce import make_weights, score_seeds, table
from train.steps import Step, add_step_arguments, out_of_steps, run_all, step_options

MODEL, TINY = "fer_net", "fer_net_tiny"
CBAM = "fer_cbam"
FERPLUS = {MODEL: "flagship-ferplus", CBAM: "flagship-ferplus-full"}
RECIPE = {MODEL: "flagship", TINY: "flagship-tiny-alone", CBAM: "strong-mix"}
STUDENT = {MODEL: "flagship-student", TINY: "flagship-tiny"}
SEEDS, STUDENTS, FOLDS = 5, 3, 5


def label_steps(out: Path, common: dict) -> list[Step]:
    """What learns the labels alone: the seeds, the folds, and the fer_cbam that goes on with FER+."""
    steps = [_fit(out, MODEL, seed, {"recipe": RECIPE[MODEL]} | common) for seed in range(SEEDS)]
    steps.append(_fit(out, CBAM, 0, {"recipe": RECIPE[CBAM]} | common))
    for fold in range(1, FOLDS + 1):
        options = {"model": MODEL, "recipe": RECIPE[MODEL], "folds": FOLDS, "fold": fold, "out": out / "cv"}
        steps.append(Step(f"cv-{fold}", "cv.py", options | common))
    return steps


def vote_steps(out: Path, common: dict) -> list[Step]:
    """What goes on with FER+'s votes where its first seed ended."""
    steps = []
    for model, recipe in FERPLUS.items():
        options = {"recipe": recipe, "labels": "ferplus", "start": out / f"{model}-labels-0"}
        steps.append(_fit(out, model, 0, options | common, "ferplus"))
    return steps


def student_steps(out: Path, common: dict) -> list[Step]:
    """What learns from either teacher, and the tiny network from none for comparison."""
    steps = [_fit(out, TINY, seed, {"recipe": RECIPE[TINY]} | common) for seed in range(STUDENTS)]
    for teacher, file in teachers(out).items():
        for model in (MODEL, TINY):
            for seed in range(STUDENTS):
                options = {"recipe": STUDENT[model], "teacher": file} | common
                steps.append(_fit(out, model, seed, options, teacher))
    return steps


def teachers(out: Path) -> dict[str, Path]:
    """The parquet files of out-of-fold and of the ensemble's probabilities."""
    return {"folds": out / "cv" / MODEL / PREDICTIONS, "ensemble": out / "ensemble.parquet"}


def runs_of(out: Path, model: str, *kinds: str) -> list[Path]:
    """The run directories of a network, each kind by seed: "labels", "ferplus", or the name of a teacher."""
    return [path for kind in kinds for path in sorted(out.glob(f"{model}-{kind}-[0-9]"))]


def _fit(out: Path, model: str, seed: int, options: dict, kind: str = "labels") -> Step:
    """One training; its recipe is among the options."""
    name = f"{model}-{kind}-{seed}"
    given = {"model": model, "seed": seed, "out": out / name}
    return Step(name, "fit.py", given | options)


def main() -> None:
    parser = create_parser(__doc__)
    add_step_arguments(parser)
    parser.add_argument("--search", type=Path, help="what train/search.py is to try first")
    args = parser.parse_args()
    out = out_of_steps(args, "flagship")
    logs = out / "logs"
    data, common = step_options(args)
    need_votes(load_data(args, strict=False))
    for folder in ("weights", "results"):
        (out / folder).mkdir(parents=True, exist_ok=True)

    if args.search:
        options = {"out": out / "search", "results": out / "results", "jobs": args.jobs} | common
        run_all([Step("search", "search.py", options, (args.search,))], 1, logs)
    run_all(label_steps(out, common), args.jobs, logs)
    joined = {"model": MODEL, "recipe": RECIPE[MODEL], "folds": FOLDS, "out": out / "cv"}
    taught = {"out": teachers(out)["ensemble"]} | data
    seeds = tuple(runs_of(out, MODEL, "labels"))
    run_all([Step("cv", "cv.py", joined | common)], 1, logs)
    if not taught["out"].exists():  # made again it may differ in the last bits, and then its students would
        run_all([Step("teach", "teacher.py", taught, seeds)], 1, logs)
    run_all(student_steps(out, common) + vote_steps(out, common), args.jobs, logs)

    for model in (MODEL, TINY):
        for kind in ("labels", *teachers(out)):
            tag = "fer2013" if kind == "labels" else f"{kind}-student"
            score_seeds(out, model, tag, data, runs_of(out, model, kind), logs)
        runs = runs_of(out, model, "labels", *teachers(out))
        make_weights(out, model, "fer2013", data, runs, logs)
    for model in FERPLUS:
        make_weights(out, model, "ferplus", data, runs_of(out, model, "ferplus"), logs)
    print(table(out))


if __name__ == "__main__":
    run(main)
