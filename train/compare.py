"""Compares cross-validated models pair by pair: the same folds and seeds, and a confidence interval.

    python train/compare.py runs/cv-paper-0 runs/cv-paper-1 runs/cv-paper-2
    python train/compare.py FOLDER/cv-paper.json elsewhere/cv-paper-0 --results FOLDER    # adds its models

Each argument is a folder that `train/cv.py` filled, or a summary of one; those of a seed are joined, so that
models may be trained one after the other and on several machines. Models of a pair were trained on the same
images and scored on the same ones, so their difference is taken fold by fold. The folds share most of their
training images; the interval allows for that by the corrected resampled t-test (Nadeau and Bengio 2003,
Machine Learning 52). With --results a folder keeps the comparison, as compare-RECIPE.json, and beside it the
summaries, the lowest seed's as cv-RECIPE.json; the published ones lie in model_cards/results.
"""

import json
import math
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from train.cli import create_parser, run
from train.files import RESULTS_DIR, write_json
from train.recipe import load_recipe, settings_of

# What compared models have in common besides their settings, seed and precision apart.
CONDITIONS = ("recipe", "folds", "train_images", "data", "input_size", "pretrained")


def corrected_interval(differences: list[float], folds: int) -> tuple[float, float]:
    """Mean of paired differences, and the half width of its 95 % interval.

    Args:
        differences: One a fold and seed.
        folds: Of each cross-validation: a fold's test set is 1 / (folds - 1) of its training set.

    Raises:
        ValueError: There are fewer than two.
    """
    n = len(differences)
    if n < 2:
        raise ValueError("an interval needs at least two differences")
    variance = np.var(differences, ddof=1) * (1 / n + 1 / (folds - 1))
    return float(np.mean(differences)), float(stats.t.ppf(0.975, n - 1) * math.sqrt(variance))


def join(summaries: list[dict]) -> list[dict]:
    """One summary a seed, the lowest first, with the models of all that are of that seed.

    Args:
        summaries: What `train/cv.py` writes.

    Raises:
        ValueError: They differ in more than seed and models, or a model stands in two of one seed.
    """
    first = _conditions(summaries[0])
    for summary in summaries:
        other = _conditions(summary)
        for key in first | other:
            if first.get(key) != other.get(key):
                raise ValueError(
                    f"{key} is {first.get(key)!r} in one folder and {other.get(key)!r} in another"
                )
    joined: dict[int, dict] = {}
    for summary in summaries:
        seed = summary["settings"]["seed"]
        models = joined[seed]["models"] if seed in joined else {}
        if twice := sorted(models.keys() & summary["models"]):
            raise ValueError(f"{', '.join(twice)} of seed {seed} stands in two folders: give one of them")
        joined[seed] = joined.get(seed, summary) | {"models": models | summary["models"]}
    return [joined[seed] for seed in sorted(joined)]


def _conditions(summary: dict) -> dict:
    settings = settings_of(summary["settings"])
    settings = {key: value for key, value in settings.items() if key not in ("seed", "precision")}
    return {key: summary[key] for key in CONDITIONS} | settings


def compare(summaries: list[dict]) -> dict:
    """Every pair of models that a summary holds, over all seeds of which both are held.

    Args:
        summaries: Of `join`, one a seed.

    Returns:
        JSON-able: `recipe`, `folds`, `seeds`, and `pairs`, each with its two `models`, their `seeds`, the
        `differences` of accuracy (first less second, in points), their `mean` and `ci95`, and the same of
        each expression's recall.

    Raises:
        ValueError: No summary holds two models.
    """
    first = summaries[0]
    names = dict.fromkeys(name for summary in summaries for name in summary["models"])
    pairs = []
    for pair in combinations(names, 2):
        both = [summary for summary in summaries if summary["models"].keys() >= {*pair}]
        if not both:
            continue
        ours, theirs = ([fold for s in both for fold in s["models"][name]["folds"]] for name in pair)
        differences = [a["accuracy"] - b["accuracy"] for a, b in zip(ours, theirs, strict=True)]
        mean, ci95 = corrected_interval(differences, first["folds"])
        recall = {}
        for name in ours[0]["recall"]:
            gains = [a["recall"][name] - b["recall"][name] for a, b in zip(ours, theirs, strict=True)]
            recall[name] = dict(zip(("mean", "ci95"), corrected_interval(gains, first["folds"]), strict=True))
        found = {"models": list(pair), "seeds": _seeds(both), "differences": differences}
        pairs.append(found | {"mean": mean, "ci95": ci95, "recall": recall})
    if not pairs:
        raise ValueError("no seed has two models: there is nothing to compare")
    return {"recipe": first["recipe"], "folds": first["folds"], "seeds": _seeds(summaries), "pairs": pairs}


def _seeds(summaries: list[dict]) -> list[int]:
    return [summary["settings"]["seed"] for summary in summaries]


def table(compared: dict) -> str:
    """The comparison for a terminal."""
    lines = [f"{'first less second':<46}{'seeds':>6}{'points':>8}{'± 95 %':>9}   sure?"]
    for pair in compared["pairs"]:
        sure = "yes" if abs(pair["mean"]) > pair["ci95"] else "no"
        lines.append(
            f"{' - '.join(pair['models']):<46}{len(pair['seeds']):>6}"
            f"{pair['mean']:>+8.2f}{pair['ci95']:>9.2f}   {sure}"
        )
    return "\n".join(lines)


def main() -> None:
    parser = create_parser(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of train/cv.py, or summaries of such")
    parser.add_argument("--results", type=Path, help="folder to keep the comparison in")
    args = parser.parse_args()
    summaries = join([_read(path) for path in args.runs])
    compared = compare(summaries)
    print(table(compared))
    if args.results is None:
        return
    recipe = compared["recipe"]
    if args.results.resolve() == RESULTS_DIR:
        for summary in summaries:
            _check_whole(summary)
    file = args.results / f"compare-{recipe}.json"
    if lost := set(json.loads(file.read_text())["seeds"] if file.exists() else ()) - set(compared["seeds"]):
        raise ValueError(f"{file} compares seed {min(lost)} as well: give a folder of that seed, too")
    kept = {args.results / _file_name(summary, summaries[0]): summary for summary in summaries}
    for path, summary in kept.items():
        models = json.loads(path.read_text())["models"] if path.exists() else {}
        if lost := models.keys() - summary["models"]:
            raise ValueError(f"{path} holds {', '.join(sorted(lost))}, too: give it, or their folder")
    for path, content in {file: compared, **kept}.items():
        write_json(path, content)


def _file_name(summary: dict, first: dict) -> str:
    seed = "" if summary is first else f"-seed{summary['settings']['seed']}"
    return f"cv-{summary['recipe']}{seed}.json"


def _read(path: Path) -> dict:
    """The summary in a folder of `train/cv.py`, or in a file of its own.

    Raises:
        ValueError: It is not there, or is no such summary.
    """
    file = path / "summary.json" if path.is_dir() else path
    try:
        summary = json.loads(file.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{path} has no summary.json: is its cross-validation finished?") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} is no summary of train/cv.py ({error})") from error
    if missing := sorted({*CONDITIONS, "settings", "models"} - {*summary}):
        raise ValueError(f"{file} is no summary of train/cv.py: it lacks {', '.join(missing)}")
    return summary


def _check_whole(summary: dict) -> None:
    """Refuses to publish rehearsals, and cross-validations of other data than FER2013's."""
    audited = json.loads((RESULTS_DIR / "audit.json").read_text())["data"]["fingerprint"]
    if summary["data"] != audited:
        raise ValueError("only cross-validations of FER2013 itself are published: give --results a folder")
    epochs, wanted = summary["settings"]["epochs"], load_recipe(summary["recipe"]).epochs
    if epochs != wanted:
        raise ValueError(f"{epochs} epochs are not the recipe's {wanted}: give --results a folder")


if __name__ == "__main__":
    run(main)
