"""The pictures beside the results; each holds the digest of what it shows, so that an old one is found."""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fer_zoo.files import atomic
from fer_zoo.labels import COLORS, EXPRESSIONS
from train.evaluate import RESULTS_DIR

FIGURES_DIR = RESULTS_DIR.parent / "figures"
DIGEST = "Source"  # PNG text that holds the digest
DRAWING = 2  # part of the digest: one more when what draws changes, and every older figure is old


def digest(*shown: object) -> str:
    """Names what a figure shows, and how it is drawn."""
    return hashlib.sha256(json.dumps([DRAWING, *shown], sort_keys=True).encode()).hexdigest()


def is_current(file: Path, *shown: object) -> bool:
    """Whether the figure in `file` shows just this."""
    if not file.exists():
        return False
    with Image.open(file) as image:
        return image.info.get(DIGEST) == digest(*shown)


def draw_model(results: dict, file: Path) -> None:
    """Confusion matrix and recall on clean test, and reliability where the results have it.

    Args:
        results: A results file's content.
        file: The PNG to write.
    """
    splits = results["splits"]
    clean = splits["test_clean"]
    figure = new_figure(15, 4.8)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1, 0.9))

    confusion = np.array(clean["confusion"])
    shares = 100 * confusion / confusion.sum(1, keepdims=True)
    left.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        left.text(
            column, row, f"{share:.0f}", ha="center", va="center", color="white" if share > 55 else "black"
        )
    left.set_xticks(range(len(EXPRESSIONS)), EXPRESSIONS, rotation=40, ha="right")
    left.set_yticks(range(len(EXPRESSIONS)), EXPRESSIONS)
    left.set(title="Confusion, % of each true expression", xlabel="predicted", ylabel="true")

    recalls = [clean["recall"][name] for name in EXPRESSIONS]
    bars = middle.barh(EXPRESSIONS, recalls, color=[COLORS[name] for name in EXPRESSIONS])
    middle.bar_label(bars, fmt="%.0f", padding=3)
    middle.invert_yaxis()
    middle.set(title="Recall, %", xlim=(0, 100))

    split = "test_clean" if "reliability" in clean else "validation_clean"
    right.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as sure as right")
    uncalibrated = splits[split]["uncalibrated"]
    if uncalibrated["nll"] != splits[split]["nll"]:
        _reliability(right, uncalibrated, "before the temperature", "0.5")
    _reliability(right, splits[split], "as shipped", "C0")
    right.set(title=f"Reliability, {split.replace('_clean', '')}", xlabel="confidence", ylabel="accuracy")
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))  # below: no corner is free of points
    figure.suptitle(f"{results['model']} on clean test: {clean['accuracy']:.2f} % of {clean['n']:,} images")
    save(figure, file, results)


def draw_costs(results: list[dict], peers: list[dict], file: Path) -> None:
    """Accuracy on the whole test split against parameters, ours and other packages'.

    Args:
        results: Results files' contents.
        peers: Of model_cards/results/peers.json.
        file: The PNG to write.
    """
    figure = new_figure(9, 6)
    axes = figure.subplots()
    names = []
    for row in results:
        test, at = row["splits"]["test"], (row["parameters"], row["splits"]["test"]["accuracy"])
        axes.errorbar(*at, test["accuracy_ci95"], fmt="o", color="C0", capsize=3)
        names.append((at, test["accuracy_ci95"], row["model"], dict(color="C0", weight="bold")))
    for peer in peers:
        at = peer["parameters"], peer["accuracy"]
        axes.plot(*at, "s", color="0.55")
        which = "" if peer["weights"] == "default" else f"\n{peer['weights']}"
        names.append((at, 0, peer["package"] + which, dict(color="0.4")))
    axes.plot([], [], "o", color="C0", label="fer-zoo, with the 95 % interval")
    axes.plot([], [], "s", color="0.55", label="other packages, measured by us")
    axes.set(xscale="log", xlabel="parameters", ylabel="accuracy on test (3,589 images), %")
    axes.set_title("FER2013: accuracy against size, fer-zoo and other packages")
    left, right = axes.get_xlim()
    axes.set_xlim(left / 2, right * 3)  # room for names
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    _write_names(axes, names)
    save(figure, file, results, peers)


def draw_mean_maps(results: dict, means: dict[str, tuple[np.ndarray, np.ndarray]], file: Path) -> None:
    """A face an expression: the mean of its faces, and on it the mean Grad-CAM.

    Args:
        results: Of `train/mean_gradcam.py`.
        means: Mean face, 0 to 255, and mean map, both float (H, W), by expression.
        file: The PNG to write.
    """
    figure = new_figure(2.1 * len(means), 2.9)
    for axes, (name, (face, heat)) in zip(figure.subplots(1, len(means)), means.items(), strict=True):
        axes.imshow(face, cmap="gray")
        axes.imshow(heat, cmap="inferno", alpha=0.55)
        shares = results["shares"][name]
        axes.set_title(name)
        count = f"n = {shares['faces']}" + (f", {shares['of_train']} of train" if shares["of_train"] else "")
        axes.set_xlabel(f"eyes {shares['eyes']:.0f} %, mouth {shares['mouth']:.0f} %\n{count}")
        axes.set(xticks=[], yticks=[])
    figure.suptitle(
        f"Mean Grad-CAM of {results['model']} on the mean face of each expression, "
        "and its shares in the bands of eyes and mouth"
    )
    save(figure, file, results)


def need_faces(results: dict, file: Path) -> None:
    """In place of `draw_mean_maps` where the faces are not at hand.

    Raises:
        ValueError: Always; the message says what draws the figure.
    """
    raise ValueError(f"{file.name} is old, and shows faces: run python train/mean_gradcam.py --data SOURCE")


def save(figure: object, file: Path, *shown: object) -> None:
    """Writes a figure with the digest of what it shows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(file) as partial:
        figure.savefig(partial, format="png", metadata={DIGEST: digest(*shown)})


def new_figure(width: float, height: float) -> object:
    """A figure of so many inches."""
    from matplotlib.figure import Figure  # not pyplot: it would want to know of a screen

    return Figure(figsize=(width, height), layout="constrained", dpi=110)


def _reliability(axes: object, figures: dict, label: str, color: str) -> None:
    curve = figures["reliability"]
    axes.plot(
        curve["confidence"],
        curve["accuracy"],
        "o-",
        color=color,
        label=f"{label}: ECE {figures['ece']:.1f} %",
    )


# Where a name may stand beside its point, in points: to the right or left, level, higher or lower.
_BESIDE = [(dx, dy) for dy in (0, 7, -7, 14, -14, 21, -21) for dx in (8, -8, 16, -16)]


def _write_names(axes: object, names: list[tuple[tuple[float, float], float, str, dict]]) -> None:
    """Writes each point's name where it covers neither a point nor another name nor the legend.

    Args:
        axes: With all points, limits and the legend.
        names: Of each point: x and y, half the height of its interval, the name, and the text's style.
    """
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # lays it out, so that pixels are known
    taken = [axes.get_legend().get_window_extent()]
    for (x, y), half, _, _ in names:
        ends = axes.transData.transform([(x, y - half), (x, y + half)])
        taken.append(Bbox(ends).padded(6))
    for at, _, name, style in names:
        text = axes.annotate(
            name, at, _BESIDE[0], textcoords="offset points", fontsize=8, va="center", **style
        )
        for text.xyann in _BESIDE:
            text.set_ha("left" if text.xyann[0] > 0 else "right")
            box = text.get_window_extent()
            inside = axes.bbox.x0 < box.x0 and box.x1 < axes.bbox.x1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
