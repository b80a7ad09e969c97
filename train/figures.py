"""The pictures beside the results; each holds the digest of what it shows, so that an old one is found."""

import hashlib
import json
from pathlib import Path

import numpy as np
from PIL import Image

from fer_zoo.files import atomic
from fer_zoo.labels import COLORS, EXPRESSIONS
from fer_zoo.metrics import half_interval
from train.evaluate import judged
from train.files import RESULTS_DIR

FIGURES_DIR = RESULTS_DIR.parent / "figures"
DIGEST = "Source"  # PNG text that holds the digest
DRAWING = 3  # part of the digest: one more when what draws changes, and every older figure is old


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

    Weights that learnt the votes of FER+ are shown against their majority.

    Args:
        results: A results file's content.
        file: The PNG to write.
    """
    clean = judged(results, "test_clean")
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
    rows = [f"{name}\nn = {count}" for name, count in zip(EXPRESSIONS, confusion.sum(1), strict=True)]
    bars = middle.barh(rows, recalls, color=[COLORS[name] for name in EXPRESSIONS])
    middle.bar_label(bars, fmt="%.0f", padding=3)
    middle.invert_yaxis()
    middle.set(title="Recall, %", xlim=(0, 100))

    split = "test_clean" if "reliability" in clean else "validation_clean"
    shown = judged(results, split)
    right.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="as sure as right")
    uncalibrated = shown["uncalibrated"]
    if uncalibrated["nll"] != shown["nll"]:
        _reliability(right, uncalibrated, "before the temperature", "0.5")
    _reliability(right, shown, "as shipped", "C0")
    where = {"test_clean": "clean test", "validation_clean": "clean validation"}[split]
    right.set(title=f"Reliability on {where}", xlabel="confidence", ylabel="accuracy")
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14))  # below: no corner is free of points
    labels = "" if clean is results["splits"]["test_clean"] else ", by FER+'s majority"
    figure.suptitle(
        f"{results['model']} on clean test: {clean['accuracy']:.2f} % of {clean['n']:,} images{labels}"
    )
    save(figure, file, results)


def draw_costs(results: list[dict], peers: list[dict], times: dict[str, float], file: Path) -> None:
    """Accuracy on the whole test split against parameters and time, ours and other packages'.

    Args:
        results: Results files' contents.
        peers: Of model_cards/results/peers.json.
        times: Milliseconds a face of ours, by ONNX; those that were not measured are not in the second panel.
        file: The PNG to write.
    """
    from adjustText import adjust_text

    n = results[0]["splits"]["test"]["n"]
    ours = {row["model"]: row["splits"]["test"]["accuracy"] for row in results}
    others = {peer_name(peer, "\n"): peer["accuracy"] for peer in peers}
    costs = {
        "parameters": {row["model"]: row["parameters"] for row in results}
        | {name: peer["parameters"] for name, peer in zip(others, peers, strict=True)},
        "ms a face, one at a time (fer-zoo: the network by ONNX;\n"
        "others: with their preprocessing, in another run)": times
        | {name: peer["batch1_ms"] for name, peer in zip(others, peers, strict=True)},
    }
    figure = new_figure(15, 6.4)
    figure.suptitle("FER2013: accuracy against size and time, fer-zoo and other packages")
    panels = figure.subplots(1, 2, sharey=True)
    halves = [half_interval(accuracy, n) for accuracy in (ours | others).values()]
    panels[0].set_ylabel(f"accuracy on test, %, each ± {min(halves):.1f} to {max(halves):.1f} (95 %)")
    for axes, (title, cost) in zip(panels, costs.items(), strict=True):
        for points, marker, color, label in (
            (ours, "o", "C0", "fer-zoo"),
            (others, "s", "0.45", "other packages, measured by us"),
        ):
            measured = [name for name in points if name in cost]
            at = [cost[name] for name in measured], [points[name] for name in measured]
            axes.plot(*at, marker, color=color, label=label)
            for x, y, name in zip(*at, measured, strict=True):
                axes.text(x, y, name, color=color, fontsize=8)
        left, right = min(cost.values()) / 3, max(cost.values()) * 4  # room for names, as above and below
        axes.margins(y=0.15)
        axes.set(xscale="log", xlabel=title, xlim=(left, right))
        axes.grid(alpha=0.3)
    panels[0].legend(loc="lower left")
    figure.draw_without_rendering()  # lays it out, so that pixels are known
    for axes, cost in zip(panels, costs.values(), strict=True):
        line = dict(arrowstyle="-", color="0.7", lw=0.7)
        at = list(cost.values()), [(ours | others)[name] for name in cost]
        adjust_text(
            axes.texts,
            *at,
            ax=axes,
            expand=(1.1, 1.5),
            force_text=(0.3, 0.6),
            iter_lim=3000,
            arrowprops=line,
        )
    save(figure, file, results, peers, times)


def peer_name(peer: dict, separator: str = ", ") -> str:
    """Another package, and which of its weights where it has several."""
    return peer["package"] + ("" if peer["weights"] == "default" else separator + peer["weights"])


def draw_mean_maps(results: dict, means: dict[str, tuple[np.ndarray, ...]], file: Path) -> None:
    """A face an expression: the mean of its faces, on it the mean Grad-CAM, and the bands of eyes and mouth.

    Args:
        results: Of `train/mean_gradcam.py`.
        means: By expression: the mean face, 0 to 255, and the mean map, both float (H, W), and how often a
            row of pixels lies in each band, float (2, H), 0 to 1.
        file: The PNG to write.
    """
    figure = new_figure(2.1 * len(means), 3.7)
    for axes, (name, (face, heat, inside)) in zip(figure.subplots(1, len(means)), means.items(), strict=True):
        axes.imshow(face, cmap="gray")
        axes.imshow(heat, cmap="inferno", alpha=0.55)
        for rows, style in zip(inside, ("--", ":"), strict=True):
            band = np.flatnonzero(rows >= rows.max() / 2)
            for edge in (band[0] - 0.5, band[-1] + 0.5):
                axes.axhline(edge, color="white", linestyle=style, linewidth=1)
        row = results["shares"][name]
        shown = row["bands"][results["shown"]]
        axes.set_title(name)
        count = f"n = {row['faces']}" + (f", {row['of_train']} of train" if row["of_train"] else "")
        shares = [
            f"{part} {shown[part]:.0f} % (even: {shown[f'area_{part}']:.0f} %)" for part in ("eyes", "mouth")
        ]
        axes.set_xlabel("\n".join([*shares, count]))
        axes.set(xticks=[], yticks=[])
    figure.suptitle(
        f"Mean Grad-CAM of {results['model']} for its own label on the mean face of each expression of clean "
        "validation, each in its own colours;\n"
        "its share in the bands of eyes (dashed) and mouth (dotted), and what an even map would have",
        fontsize=10,
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
