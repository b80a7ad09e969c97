"""Learning curves, as a picture."""

from pathlib import Path

from train.figures import new_figure, save

PANELS = (
    ("loss", "training loss"),
    ("val_loss", "loss on clean validation"),
    ("val_accuracy", "accuracy on clean validation, %"),
)


def draw_curves(histories: dict[str, list[list[dict]]], title: str, file: Path) -> None:
    """A panel a figure, a colour a name, thin lines its runs, a thick one their mean, dots their best epochs.

    Args:
        histories: Of each name's runs, those of one name of equal length; an epoch has `loss`, `val_loss` and
            `val_accuracy`.
        title: Of all.
        file: The PNG to write.
    """
    most = max(len(runs) for runs in histories.values())
    figure = new_figure(4.5 * len(PANELS), 4.8)
    for axes, (key, panel) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for number, (name, runs) in enumerate(histories.items()):
            curves = [[line[key] for line in run] for run in runs]
            best = [max(range(len(run)), key=lambda epoch: run[epoch]["val_accuracy"]) for run in runs]
            epochs = range(1, len(curves[0]) + 1)
            above = 2 + 1 / len(epochs)  # a shorter run may be the beginning of a longer one
            mean = [sum(values) / len(values) for values in zip(*curves, strict=True)]
            for curve, chosen in zip(curves, best, strict=True):
                axes.plot(epochs, curve, color=f"C{number}", alpha=0.35, linewidth=1, zorder=above)
                axes.plot(chosen + 1, curve[chosen], "o", color=f"C{number}", markersize=4, zorder=above)
            axes.plot(epochs, mean, color=f"C{number}", linewidth=2.2, label=name, zorder=above)
        axes.set(title=panel, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    if most > 1:
        axes.plot([], [], color="0.6", linewidth=1, label="thin: one run (fold)")
        axes.plot([], [], color="0.4", linewidth=2.2, label="thick: mean of its runs")
    axes.plot([], [], "o", color="0.4", markersize=4, label="dot: a run's best epoch")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"{title}: learning curves, {'one run' if most == 1 else f'{most} runs (folds)'} each")
    save(figure, file, histories, title)
