"""The course paper's figures and claims beside ours, as a page that the results files fill."""

import json
import math
from itertools import combinations

import numpy as np

from fer_zoo.labels import EXPRESSIONS
from train.evaluate import RESULTS_DIR

# Test accuracy in percent as the paper gives it ("Final Test Accuracy").
PAPER = {"fer_cnn": 58.26, "fer_kernel_cnn": 59.72, "fer_resnet": 53.13, "fer_cbam": 62.18}
BEST = "fer_cbam"
LOWEST = 36.1  # the recall that it gives for "surprise"

# A map favours a band when so many times the band's share of the picture lies in it.
CLEARLY = 1.1

PAGE = """\
# The course paper, checked

The architectures come from a course project on FER2013 (A. Rowson and A. Slotter, "Facial Expression
Recognition Project"). Here its figures and claims stand beside what this repository measures by the paper's
recipe ([paper.toml](../train/recipes/paper.toml), seed 0): one training on the training split, its epoch
chosen on clean validation, test read once. All figures are accuracy in percent.

{table}

*Both* is validation and test together, 7,178 images: Kaggle's folders have no validation split, so this is
probably what the paper tested on. *Clean* leaves out images that stand in train too. ± is the 95 % interval
on test, and the standard deviation over the folds in cross-validation.

## Its claims

{claims}

{studies}![Mean Grad-CAM of each expression](figures/mean-gradcam.png)

The maps are means over the faces of clean validation; the shares are those of the map's mass in a band about
the eyes and one about the mouth ([figures](results/mean-gradcam.json), by `python train/mean_gradcam.py`).
{compared}"""

STUDIES = """\
![Learning curves of the side studies](figures/studies.png)

The side studies are trainings of fer_cbam on the training split, scored on clean validation
([figures](results/studies.json), by `python train/studies.py`). The training loss with class weights is
weighted, and not to be compared with the others.

"""

COMPARED = """
## What it leaves open

Does an idea help, at equal budget? Accuracy over the same folds and seeds, in points, with the 95 %
interval of the corrected resampled t-test ([figures](results/compare-paper.json), by
`python train/compare.py`). The intervals are not corrected for the number of pairs.

| {folds} folds, {seeds} | difference | 95 % interval | beyond it |
|---|--:|--:|---|
{rows}
"""


def page() -> str:
    """The page, as Markdown."""
    results = {name: _load(f"{name}.paper") for name in PAPER}
    claims, studies = _claims(results), load_studies()
    if studies:
        claims += judge_studies(studies)
    return PAGE.format(
        table=_table(results),
        claims="\n".join(claims),
        studies=STUDIES if studies else "",
        compared=_compared(),
    )


def load_studies() -> dict:
    """What `train/studies.py` found; empty where the studies were not run."""
    return _load("studies") if (RESULTS_DIR / "studies.json").exists() else {}


def curves_of(studies: dict) -> dict[str, list[list[dict]]]:
    """The studies' learning curves, as `train.curves.draw_curves` takes them."""
    return {name: [study["history"]] for name, study in studies.items()}


def judge_studies(studies: dict) -> list[str]:
    """What holds of the paper's claims about regularisation, epochs and class weights.

    Args:
        studies: Of `train/studies.py`: paper, paper-30, paper-l2 and paper-weights.

    Returns:
        A line of Markdown a claim.
    """
    base, longer, regularised, weighted = (
        studies[name] for name in ("paper", "paper-30", "paper-l2", "paper-weights")
    )
    without, with_l2 = _last(base, "val_loss"), _last(regularised, "val_loss")
    early, late = _last(base, "val_accuracy"), _last(longer, "val_accuracy")
    share = early / 100
    noise = 100 * math.sqrt(share * (1 - share) / base["validation_clean"]["n"])
    named = ("fear", "disgust")  # by the paper
    before, after = base["validation_clean"], weighted["validation_clean"]
    return [
        _claim(
            "L2 regularisation lowers the validation loss at epoch 20 from 1.8 to under 1.4",
            without - with_l2 > (1.8 - 1.4) / 2,
            f"over the last five epochs it is {without:.2f} without and {with_l2:.2f} with a weight decay of "
            f"{regularised['config']['recipe']['weight_decay']:g}; half of the paper's fall would do.",
        ),
        _claim(
            "30 epochs read no better than 20",
            late - early < noise,
            f"the last five of 20 have {early:.2f} % on average, the last five of 30 {late:.2f} %, where the "
            f"standard error is {noise:.2f} points.",
        ),
        _claim(
            "Class weights correct in part that fear and disgust are read badly",
            all(after["recall"][name] > before["recall"][name] for name in named),
            "recall without and with them is "
            + ", ".join(
                f"{before['recall'][name]:.1f} and {after['recall'][name]:.1f} % for {name}" for name in named
            )
            + f"; accuracy is {before['accuracy']:.2f} and {after['accuracy']:.2f} %.",
        ),
    ]


def _last(study: dict, key: str) -> float:
    """Mean of the last five epochs: single ones are noisy."""
    return float(np.mean([line[key] for line in study["history"][-5:]]))


def _compared() -> str:
    if not (RESULTS_DIR / "compare-paper.json").exists():
        return ""
    found = _load("compare-paper")
    rows = []
    for pair in found["pairs"]:
        first, second = pair["models"]
        better = first if pair["mean"] > 0 else second
        sure = f"`{better}` is better" if abs(pair["mean"]) > pair["ci95"] else "undecided"
        rows.append(f"| `{first}` less `{second}` | {pair['mean']:+.2f} | ± {pair['ci95']:.2f} | {sure} |")
    count = len(found["seeds"])
    seeds = "one seed" if count == 1 else f"{count} seeds"
    return COMPARED.format(folds=found["folds"], seeds=seeds, rows="\n".join(rows))


def _load(name: str) -> dict:
    return json.loads((RESULTS_DIR / f"{name}.json").read_text())


def _table(results: dict[str, dict]) -> str:
    crossed = _load("cv-paper")
    folds = crossed["folds"]
    rows = [
        f"| | paper | {folds}-fold cross-validation | both | test | clean test |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in results.items():
        splits = row["splits"]
        both = np.average(
            [splits[key]["accuracy"] for key in ("validation", "test")],
            weights=[splits[key]["n"] for key in ("validation", "test")],
        )
        cv = crossed["models"].get(name)
        cell = f"{cv['mean']['accuracy']:.2f} ± {cv['sd']['accuracy']:.2f}" if cv else "not run yet"
        rows.append(
            f"| `{name}` | {PAPER[name]} | {cell} | {both:.2f} "
            f"| {splits['test']['accuracy']:.2f} ± {splits['test']['accuracy_ci95']:.2f} "
            f"| {splits['test_clean']['accuracy']:.2f} |"
        )
    return "\n".join(rows)


def _claims(results: dict[str, dict]) -> list[str]:
    test = {name: row["splits"]["test"] for name, row in results.items()}
    best = test[BEST]
    recall = best["recall"]
    accuracy = {name: row["accuracy"] for name, row in test.items()}
    ranked = sorted(accuracy, key=accuracy.get, reverse=True)
    over = [name for name in EXPRESSIONS if recall[name] > 70]
    lowest = min(recall, key=recall.get)
    confusion = np.array(best["confusion"])
    confused = {
        (a, b): int(confusion[i, j] + confusion[j, i])
        for (i, a), (j, b) in combinations(enumerate(EXPRESSIONS), 2)
    }
    most = max(confused, key=confused.get)
    shares = _load("mean-gradcam")["shares"]
    return [
        _claim(
            "The network with CBAM is the best of the four",
            ranked[0] == BEST,
            ", ".join(f"{name} {accuracy[name]:.2f}" for name in ranked)
            + f"; the first two differ by {accuracy[ranked[0]] - accuracy[ranked[1]]:.2f} points, where the "
            f"95 % interval of each is ± {best['accuracy_ci95']:.2f}.",
        ),
        _claim(
            "The residual network is the worst of the four, at 53.13",
            ranked[-1] == "fer_resnet",
            f"it reaches {accuracy['fer_resnet']:.2f} by the same recipe.",
        ),
        _claim(
            "Most confusion is between sad and neutral",
            set(most) == {"sad", "neutral"},
            f"{BEST} takes {most[0]} for {most[1]} or the reverse {confused[most]} times, more than any "
            f"other two; sad and neutral {confused['sad', 'neutral']} times.",
        ),
        _claim(
            "Only happy and neutral are read in more than 70 % of cases",
            set(over) == {"happy", "neutral"},
            f"over 70 % are {', '.join(f'{name} ({recall[name]:.1f})' for name in over)}.",
        ),
        _claim(
            f"Surprise is read worst, at {LOWEST} %",
            lowest == "surprise",
            f"the lowest is {lowest} ({recall[lowest]:.1f}), surprise has {recall['surprise']:.1f}.",
        ),
        _order(test),
        _claim(
            "CBAM improves fear and disgust",
            all(recall[name] > test["fer_kernel_cnn"]["recall"][name] for name in ("fear", "disgust")),
            "against fer_kernel_cnn, which has fixed kernels and no attention: "
            + ", ".join(
                f"{name} {recall[name]:.1f} and {test['fer_kernel_cnn']['recall'][name]:.1f}"
                for name in ("fear", "disgust")
            )
            + ". The two differ in more than the attention.",
        ),
        _look("Happy is seen at the corners of the mouth", shares, "happy", "mouth"),
        _look("Surprise is seen at the eyes", shares, "surprise", "eyes"),
        _look("Anger is seen at the open mouth", shares, "angry", "mouth"),
    ]


def _order(test: dict[str, dict]) -> str:
    """Whether the paper's classes make more sense as alphabetical folders under FER2013's numbers."""
    read_as = dict(zip(EXPRESSIONS, sorted(EXPRESSIONS), strict=True))  # what stands under the paper's name
    low, high = read_as["surprise"], read_as["neutral"]
    recall = {name: [row["recall"][name] for row in test.values()] for name in EXPRESSIONS}
    nearer = abs(np.mean(recall[low]) - LOWEST) < abs(np.mean(recall["surprise"]) - LOWEST)
    return _claim(
        "Suspicion: its class names are shifted, alphabetical folders under the order of the CSV file, so "
        f'that its "surprise" is {low} and its "neutral" is {high}',
        None,
        f"our four networks read surprise in {_range(recall['surprise'])} % of cases, {low} in "
        f"{_range(recall[low])}, "
        f"where the paper's lowest has {LOWEST}; {high}, which would be its second class over 70 %, has "
        f"{test[BEST]['recall'][high]:.1f} in {BEST}. "
        + ("This speaks for the shift, and proves nothing." if nearer else "No sign of a shift."),
    )


def _range(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def _look(claim: str, shares: dict, name: str, where: str) -> str:
    row = shares[name]
    more = row[where] / row[f"area_{where}"]
    return _claim(
        claim,
        more > CLEARLY,
        f"{row[where]:.0f} % of its map lie in the band of the {where}, which is "
        f"{row[f'area_{where}']:.0f} % of the picture: {more:.2f} times its share (n = {row['faces']}).",
    )


def _claim(claim: str, holds: bool | None, found: str) -> str:
    verdict = {True: " Holds: ", False: " Does not hold: ", None: " "}[holds]
    return f"- **{claim}.**{verdict}{found}"
