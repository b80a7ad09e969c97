"""What cross-validated models amount to: mean and standard deviation over the folds."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.metrics import scores
from train.files import read_results
from train.run_dir import finished, read_history

FIGURES = ("accuracy", "macro_f1", "nll", "brier", "ece")
TRAINING = ("versions", "hardware", "git")


def summarize(runs: dict[str, list[Path]], predictions: dict[str, pa.Table]) -> dict[str, dict]:
    """Figures of every model.

    Args:
        runs: The run directories of each model's folds.
        predictions: Each model's out-of-fold probabilities, a row an image.

    Returns:
        For each model: `folds`, the scores of each one with its best epoch, its `history` and what it was
        trained with; `mean` and `sd` (n - 1) of each figure over the folds; `pooled`, the scores over all
        images; and `train_seconds`.
    """
    models = {}
    for name, table in predictions.items():
        fold = table["fold"].to_numpy()
        rows = []
        for i, run_dir in enumerate(runs[name], start=1):
            config, result = finished(run_dir)
            run = {"best_epoch": result["best"]["epoch"], "train_seconds": result["train_seconds"]}
            run |= {key: config[key] for key in TRAINING} | {"precision": config["recipe"]["precision"]}
            rows.append(_scores(table.filter(fold == i)) | run | {"history": read_history(run_dir)})
        models[name] = _spread(rows) | {
            "train_seconds": sum(row["train_seconds"] for row in rows),
            "folds": rows,
            "pooled": _scores(table),
        }
    return models


def _spread(folds: list[dict]) -> dict[str, dict[str, float]]:
    """`mean` and `sd` of `summarize`."""
    values = {key: [fold[key] for fold in folds] for key in FIGURES}
    recalls = {f"recall_{key}": [fold["recall"][key] for fold in folds] for key in EXPRESSIONS}
    return mean_and_sd(values | recalls)


def mean_and_sd(columns: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The `mean` of each column, and its standard deviation `sd` (n - 1)."""
    return {
        "mean": {key: float(np.mean(values)) for key, values in columns.items()},
        "sd": {key: float(np.std(values, ddof=1)) for key, values in columns.items()},
    }


def published() -> dict:
    """The cross-validations that `train/compare.py` published, as one summary.

    Returns:
        `recipe` and the number of `folds`, and `models`, each with the number of `seeds` that it was trained
        with, the `folds` of all, and their `mean` and `sd`.
    """
    _, *more = read_results("compare-paper")["seeds"]  # the lowest is cv-paper itself
    summaries = [read_results("cv-paper"), *(read_results(f"cv-paper-seed{seed}") for seed in more)]
    folds: dict[str, list[dict]] = {}
    for summary in summaries:
        for name, model in summary["models"].items():
            folds[name] = folds.get(name, []) + model["folds"]
    first = summaries[0]
    models = {
        name: {"seeds": len(rows) // first["folds"], "folds": rows} | _spread(rows)
        for name, rows in folds.items()
    }
    return {key: first[key] for key in ("recipe", "folds")} | {"models": models}


def curves_of(summary: dict) -> dict[str, list[list[dict]]]:
    """The learning curves of a cross-validation, as `train.curves.draw_curves` takes them.

    A model of before they were kept is left out.
    """
    return {
        name: [fold["history"] for fold in model["folds"]]
        for name, model in summary["models"].items()
        if all("history" in fold for fold in model["folds"])
    }


def table(summary: dict) -> str:
    """The summary for a terminal."""
    lines = [
        f"{summary['folds']} folds of {summary['train_images']:,} images, recipe {summary['recipe']}, "
        f"seed {summary['settings']['seed']}: mean ± standard deviation over the folds",
        f"{'model':<18}{'accuracy %':>16}{'macro-F1 %':>16}{'NLL':>16}{'Brier':>16}{'minutes':>10}",
    ]
    for name, model in summary["models"].items():
        lines.append(f"{name:<18}" + "".join(f"{cell:>16}" for cell in cells(model)))
        lines[-1] += f"{model['train_seconds'] / 60:>10.1f}"
    return "\n".join(lines)


def cells(model: dict) -> list[str]:
    """Mean ± standard deviation of a model's accuracy, macro-F1, NLL and Brier score, as text."""
    return [
        f"{model['mean'][key]:.{digits}f} ± {model['sd'][key]:.{digits}f}"
        for key, digits in (("accuracy", 2), ("macro_f1", 2), ("nll", 3), ("brier", 3))
    ]


def unlike(summary: dict) -> str:
    """How the folds were trained, as a sentence; empty where all are alike in precision and versions."""
    trained: dict[str, list[str]] = {}
    for name, model in summary["models"].items():
        how = Counter(
            f"in {fold['precision']} by torch {fold['versions']['torch']} and timm {fold['versions']['timm']}"
            for fold in model["folds"]
        )
        for group, count in sorted(how.items()):
            part = "" if len(how) < 2 else f" ({count} of {len(model['folds'])})"
            trained.setdefault(group, []).append(f"`{name}`{part}")
    if len(trained) < 2:
        return ""
    groups = "; ".join(f"{group} {', '.join(names)}" for group, names in sorted(trained.items()))
    return f"Not all were trained alike: {groups}."


def _scores(table: pa.Table) -> dict:
    probs = torch.from_numpy(np.stack([table[name].to_numpy() for name in EXPRESSIONS], 1))
    # the logarithm of a probability is a logit
    return scores(probs.clamp_min(1e-12).log(), torch.tensor(table["label"].to_pylist()))
