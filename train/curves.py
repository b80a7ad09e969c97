"""Learning curves of cross-validated models, as a picture."""

import json
import os
from pathlib import Path

PANELS = (
    ("loss", "training loss"),
    ("val_loss", "validation loss"),
    ("val_accuracy", "validation accuracy, %"),
)


def draw_curves(runs: dict[str, list[Path]], file: Path) -> None:
    """A panel a figure, a colour a model, thin lines its folds and a thick one their mean.

    Args:
        runs: The run directories of each model's folds.
        file: The PNG to write.
    """
    from matplotlib.figure import Figure  # not pyplot: it would want to know of a screen

    figure = Figure(figsize=(4.5 * len(PANELS), 4), layout="constrained", dpi=120)
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for number, (name, folds) in enumerate(runs.items()):
            curves = [[line[key] for line in _history(run_dir)] for run_dir in folds]
            epochs = range(1, len(curves[0]) + 1)
            mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
            for curve in curves:
                axes.plot(epochs, curve, color=f"C{number}", alpha=0.35, linewidth=1)
            axes.plot(epochs, mean, color=f"C{number}", linewidth=2.2, label=name)
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend()
    partial = file.with_suffix(".tmp.png")
    figure.savefig(partial)
    os.replace(partial, file)


def _history(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
