"""Makes everything again: cross-validation, side studies, all weight files with their scores, the audit.

    make reproduce DATA=path/to/fer2013
    python train/reproduce.py --data SOURCE --jobs 6        # six trainings side by side on one GPU
    python train/reproduce.py --data SOURCE --epochs 1      # a rehearsal
    python train/reproduce.py --data SOURCE --only fer_net.fer2013 --seeds 1    # one file and its lineage

All of it lands in one folder, the packaged files of the zoo are not touched. Stopped and started again, it
goes on where it was. Its accuracies are printed beside the published ones; robustness and mean Grad-CAMs,
which want the votes of FER+ and real faces, are measured after that.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train import controls, studies
from train.claims import BEST
from train.cli import create_parser, load_data, run
from train.evaluate import EvaluationError, check_test_read, judged
from train.ferplus import need_votes
from train.files import RESULTS_DIR, sha256
from train.lineage import LIVE, RECIPES, TEACHERS, epochs, labels, needs, run_name, start
from train.run_dir import RESULT, WEIGHTS, finished
from train.steps import Step, add_step_arguments, out_of_steps, run_all, step_options

MODELS = tuple(RECIPES["paper"])
FOLDS = 3


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


def fit_rounds(out: Path, wanted: list[tuple[str, str, int]], common: dict) -> list[list[Step]]:
    """Trainings, those that they go on from, and those that teach them; each round needs those before it.

    Args:
        out: The folder.
        wanted: Network, recipe and seed.
        common: Options of every training.
    """
    runs = [(*run, 0) for model, recipe, _ in wanted for run in needs(model, recipe)] + wanted
    rounds: list[list[Step]] = []
    for model, recipe, seed in dict.fromkeys(runs):
        place = _depth(model, recipe)
        rounds += [[] for _ in range(place + 1 - len(rounds))]
        rounds[place].append(_fit(out, model, recipe, seed, common))
    return rounds


def _depth(model: str, recipe: str) -> int:
    return max((1 + _depth(*earlier) for earlier in needs(model, recipe)), default=0)


def teacher_steps(out: Path, fits: list[Step], data: dict) -> list[Step]:
    """The teachers of a round's trainings, but those that are there: made again they might differ in the
    last bits."""
    recipes = {step.options["teacher"]: step.options["recipe"] for step in fits if "teacher" in step.options}
    return [_teach(out, recipe, data) for file, recipe in recipes.items() if not file.exists()]


def _teach(out: Path, recipe: str, data: dict) -> Step:
    name, file = f"teacher-{recipe}", teacher_file(out, recipe)
    if recipe in LIVE:  # the network itself, calibrated
        options = {"tag": LIVE[recipe][1], "folder": file.parent} | data
        return Step(name, "package.py", options, (out / run_name(*LIVE[recipe]),))
    runs = tuple(out / run_name(*earlier) for earlier in TEACHERS[recipe])
    return Step(name, "teacher.py", {"out": file} | data, runs)


def teacher_file(out: Path, recipe: str) -> Path:
    """What --teacher gets: a network's weights, or the probabilities of several."""
    if recipe in LIVE:
        return out / "teachers" / f"{'.'.join(LIVE[recipe])}.safetensors"
    return out / f"teacher-{recipe}.parquet"


def _fit(out: Path, model: str, recipe: str, seed: int, common: dict) -> Step:
    name = run_name(model, recipe, seed)
    options = {"model": model, "recipe": recipe, "seed": seed, "out": out / name}
    options |= {"epochs": epochs(model, recipe), "labels": labels(recipe)}
    if recipe in TEACHERS or recipe in LIVE:
        options["teacher"] = teacher_file(out, recipe)
    if first := start(model, recipe):
        options["start"] = out / run_name(*first)
    return Step(name, "fit.py", options | common)


def finished_runs(out: Path, model: str, recipe: str) -> list[Path]:
    """Of all seeds: the folder may hold more than are asked for now."""
    found = {file.parent for file in out.glob(f"{model}-{recipe}-*/{RESULT}")}  # of paper-30, too
    return sorted(folder for folder in found if folder.name.removeprefix(f"{model}-{recipe}-").isdigit())


def study_step(out: Path, data: dict) -> Step:
    """Gathers the side studies of `fit_rounds`."""
    runs = tuple(out / run_name(model, name) for model in studies.MODELS for name in studies.RECIPES)
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
    # a file packaged again may be another to its sha256: its temperature may differ in the last bits
    same = file.exists() and results.get("run") == {"config": config, "result": result}
    done = results["splits"] if same else {}
    if not same:
        run_all([package], 1, logs)
    options = {"model": file, "results": scored.parent} | data
    try:
        check_test_read(name, sha256(file), None, scored.parent)
        again = {}
    except EvaluationError:
        again = {"reason": "another run is the best"}
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
    """Scores several seeds and their ensemble, once for the same runs."""
    runs, results = tuple(runs), out / "results"
    file = results / f"seeds-{model}.{tag}.json"
    scored = set(json.loads(file.read_text())["sha256"].values()) if file.exists() else set()
    if len(runs) > 1 and scored != {sha256(run / WEIGHTS) for run in runs}:
        options = {"tag": tag, "results": results} | data
        if scored:
            more = len(runs) != len(scored)
            options["reason"] = (
                f"{len(runs)} seeds in place of {len(scored)}" if more else "other runs of the seeds"
            )
        run_all([Step(f"seeds-{model}.{tag}", "seeds.py", options, runs)], 1, logs)


def table(out: Path) -> str:
    """Accuracies made here beside the published ones, each by the labels that the weights learnt."""
    lines = [f"{'weights':<24}{'clean validation %':>20}{'test %':>10}{'published %':>14}"]
    for file in sorted((out / "results").glob("fer_*.json")):
        results, published = json.loads(file.read_text()), RESULTS_DIR / file.name
        if "test" not in results["splits"]:
            continue  # another command was stopped before it was read
        clean, test = (judged(results, split)["accuracy"] for split in ("validation_clean", "test"))
        theirs = "-"
        if published.exists():
            theirs = f"{judged(json.loads(published.read_text()), 'test')['accuracy']:.2f}"
        lines.append(f"{file.stem:<24}{clean:>20.2f}{test:>10.2f}{theirs:>14}")
    return "\n".join(lines)


def measure(out: Path, seeds: int, voted: bool, data: dict, common: dict) -> None:
    """All figures but those of the weight files' own accuracy."""
    logs, results = out / "logs", out / "results"
    summaries = [out / f"cv-paper-{seed}" for seed in range(seeds)]
    earlier = {file.parent for file in out.glob("cv-paper-*/summary.json")}  # of a run of more seeds
    models = [*MODELS, *controls.__all__]
    steps = [
        Step(folder.name, "cv.py", {"model": models, "seed": seed, "folds": FOLDS, "out": folder} | common)
        for seed, folder in enumerate(summaries)
    ]
    of_all = {"weights": out / "weights"} | data
    of_one = {"model": out / "weights" / f"{BEST}.paper.safetensors"} | data
    steps += [
        study_step(out, data),
        Step("audit", "audit.py", {"out": results / "audit.json"} | data),
        Step("compare", "compare.py", {"results": results}, tuple(sorted({*summaries, *earlier}))),
        Step("thresholds", "threshold.py", {"out": results / "thresholds.json"} | of_all),
        # these two want more of the data than labels: the votes of FER+, and faces with eyes and a mouth
        Step("robustness", "robustness.py", {"out": results / "robustness.json"} | of_all),
        Step("mean-gradcam", "mean_gradcam.py", {"out": results / "mean-gradcam.json"} | of_one),
    ]
    run_all([step for step in steps if voted or step.name != "robustness"], 1, logs)


def main() -> None:
    parser = create_parser(__doc__)
    add_step_arguments(parser)
    parser.add_argument("--seeds", type=int, default=3, help="of every comparison (default: %(default)s)")
    names = [f"{model}.{tag}" for tag, recipes in RECIPES.items() for model in recipes]
    parser.add_argument("--only", choices=names, metavar="FILE", help="one weight file: %(choices)s")
    args = parser.parse_args()
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1, not {args.seeds}")
    out = out_of_steps(args, "reproduce")
    logs = out / "logs"
    data, common = step_options(args)
    source = load_data(args, strict=False)
    voted = {"train", "validation", "test"} <= source.votes.keys()
    if args.only:
        names = [args.only]
        if args.only.endswith(".ferplus"):
            need_votes(source)
    elif not voted:
        print(
            "robustness and the .ferplus weights will be left out: this source of FER2013 has no column "
            "ferplus with FER+'s votes"
        )
        names = [name for name in names if not name.endswith(".ferplus")]
    runs = {}  # by network and tag
    for name in names:
        model, _, tag = name.partition(".")
        seeds = args.seeds if tag == "fer2013" else 1
        runs[model, tag] = [(model, RECIPES[tag][model], seed) for seed in range(seeds)]
    wanted = [run for several in runs.values() for run in several]

    others = []
    if not args.only:
        wanted += [(model, recipe, 0) for model in studies.MODELS for recipe in studies.RECIPES]
        others = cv_steps(out, args.seeds, common)
    first, *later = fit_rounds(out, wanted, common)
    run_all(first + others, args.jobs, logs)
    for fits in later:
        run_all(teacher_steps(out, fits, data), 1, logs)
        run_all(fits, args.jobs, logs)
    for folder in ("weights", "results"):
        (out / folder).mkdir(exist_ok=True)
    for model, tag in runs:
        folders = finished_runs(out, model, RECIPES[tag][model])
        make_weights(out, model, tag, data, folders, logs)
        score_seeds(out, model, tag, data, folders, logs)
    print(table(out))
    if not args.only:
        measure(out, args.seeds, voted, data, common)


if __name__ == "__main__":
    run(main)
