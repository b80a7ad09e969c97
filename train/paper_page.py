"""The course paper's figures and claims beside ours, as a page that the results files fill."""

from fer_zoo.metrics import half_interval
from train.claims import (
    BEST,
    CLEARLY,
    NO_ATTENTION,
    PAPER,
    judge_claims,
    judge_pair,
    judge_shift,
    judge_studies,
)
from train.files import read_results
from train.summary import unlike

PAGE = """\
# The course paper, checked

The architectures come from a course project on FER2013 (A. Rowson and A. Slotter, "Facial Expression
Recognition Project"). Here its figures and claims stand beside what this repository measures by the paper's
recipe ([paper.toml](../train/recipes/paper.toml), seed 0): one training on the training split, its epoch
chosen on clean validation, test read once. The table gives accuracy in percent.

{table}

*Both* is validation and test together, 7,178 images: Kaggle's folders have no validation split, so this is
probably what the paper tested on. The half of it that is validation also chose the epoch. *Clean* leaves out
images that stand in train too. ± is the 95 % interval of a split, and the standard deviation over the folds.
{leaders}

## Its claims

*Undecided* is what the 95 % interval does not settle. On one split it is that of the images, as if two
networks had read different ones, which is cautious (Agresti and Caffo 2000, The American Statistician 54).
That another training might come out otherwise is in it only where folds are compared. Recalls and mix-ups are
those of {best} on test. A map is that of a face's own label; it favours a band about eyes or mouth, which is
as wide as the picture, when {clearly} times the band's share of the picture lies in it.

{claims}

### Are its class names shifted?

The paper may have taken folders in alphabetical order and named them in the order of the CSV file. Then its
"surprise" is sad, its "neutral" surprise and its "sad" neutral. What it says of these, and whether that holds
of {best} under either reading:

{shift}

{studies}![Mean Grad-CAM of each expression](figures/mean-gradcam.png)

The maps are means of {map_model} over the faces of clean validation on which the detector `{detector}` finds
eyes and mouth{filled}.
The shares are those of a map's mass in a band about the eyes and one about the mouth
([figures](results/mean-gradcam.json), by `python train/mean_gradcam.py`).
{compared}"""

STUDIES = """\
![Learning curves of the side studies](figures/studies.png)

The side studies are trainings of {models} on the training split, scored on clean validation
([figures](results/studies.json), by `python train/studies.py`). The training loss with class weights is
weighted, and not to be compared with the others; the first 20 epochs of paper-30 are those of paper.

"""

COMPARED = """
## What it leaves open

Does an idea help, at equal budget? Accuracy over the same folds and seeds, in points, with the 95 %
interval of the corrected resampled t-test ([figures](results/compare-paper.json), by
`python train/compare.py`). The intervals are not corrected for the number of pairs.{precisions}

{answers}
{table}"""

PAIRS = """
| {folds} folds, {seeds} | difference | 95 % interval | beyond it |
|---|--:|--:|---|
{rows}
"""

# What the paper could not say, and the networks that differ in nothing else.
OPEN = {
    "The fixed kernels in front help": ("fer_kernel_cnn", "fer_cnn"),
    "Fixed kernels are better than such a layer that learns": ("fer_kernel_cnn", "control_learnt_kernels"),
    "CBAM helps": (BEST, NO_ATTENTION),
}


def page() -> str:
    """The page, as Markdown."""
    results = {name: read_results(f"{name}.paper") for name in PAPER}
    test = {name: row["splits"]["test"] for name, row in results.items()}
    maps, studies = read_results("mean-gradcam"), read_results("studies", {})
    claims = judge_claims(test, maps["shares"]) + judge_studies(studies)
    filled = [
        f"{row['of_train']} of the {row['faces']} of {name} are training faces, for want of others"
        for name, row in maps["shares"].items()
        if row["of_train"]
    ]
    return PAGE.format(
        table=_table(results),
        leaders=_leaders(results),
        claims="\n".join(claims),
        best=BEST,
        clearly=CLEARLY,
        shift=judge_shift(test[BEST], maps["shares"]),
        studies=STUDIES.format(models=" and ".join(studies)) if studies else "",
        map_model=maps["model"],
        detector=maps["detector"],
        filled="".join(f"; {each}" for each in filled),
        compared=_compared(),
    )


def study_curves(studies: dict) -> dict[str, list[list[dict]]]:
    """The studies' learning curves, as `train.curves.draw_curves` takes them."""
    return {
        f"{model}, {name}": [row["history"]]
        for model, found in studies.items()
        for name, row in found.items()
    }


def _table(results: dict[str, dict]) -> str:
    crossed = read_results("cv-paper")
    folds = crossed["folds"]
    rows = [
        f"| | paper | {folds}-fold cross-validation | both | test | clean test |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in results.items():
        splits = row["splits"]
        share, half = _both(splits)
        cv = crossed["models"].get(name)
        cell = f"{cv['mean']['accuracy']:.2f} ± {cv['sd']['accuracy']:.2f}" if cv else "not run yet"
        rows.append(
            f"| `{name}` | {PAPER[name]} | {cell} | {share:.2f} ± {half:.2f} "
            f"| {splits['test']['accuracy']:.2f} ± {splits['test']['accuracy_ci95']:.2f} "
            f"| {splits['test_clean']['accuracy']:.2f} ± {splits['test_clean']['accuracy_ci95']:.2f} |"
        )
    return "\n".join(rows)


def _both(splits: dict) -> tuple[float, float]:
    """Accuracy on validation and test together, and half its 95 % interval."""
    parts = [splits[key] for key in ("validation", "test")]
    n = sum(part["n"] for part in parts)
    share = sum(part["n"] * part["accuracy"] for part in parts) / n
    return share, half_interval(share, n)


def _leaders(results: dict[str, dict]) -> str:
    """Which network is ahead may depend on the split."""
    both = {name: _both(row["splits"])[0] for name, row in results.items()}
    test = {name: row["splits"]["test"]["accuracy"] for name, row in results.items()}
    ahead, on_test = (max(column, key=column.get) for column in (both, test))
    return f"`{ahead}` is ahead on validation and test together, `{on_test}` on test alone."


def _compared() -> str:
    return COMPARED.format(
        answers="\n".join(judge_pair(idea, *pair) for idea, pair in OPEN.items()),
        table=_pairs(read_results("compare-paper", {})),
        precisions="\n" + mixed if (mixed := unlike(read_results("cv-paper"))) else "",
    )


def _pairs(found: dict) -> str:
    """All pairs that were compared."""
    if not found:
        return ""
    rows = []
    for pair in found["pairs"]:
        first, second = pair["models"]
        better = first if pair["mean"] > 0 else second
        sure = f"`{better}` is better" if abs(pair["mean"]) > pair["ci95"] else "undecided"
        rows.append(f"| `{first}` less `{second}` | {pair['mean']:+.2f} | ± {pair['ci95']:.2f} | {sure} |")
    count = len(found["seeds"])
    seeds = "one seed" if count == 1 else f"{count} seeds"
    return PAIRS.format(folds=found["folds"], seeds=seeds, rows="\n".join(rows))
