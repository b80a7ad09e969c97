"""The course paper's figures and claims beside ours, as a page that the results files fill."""

from fer_zoo.metrics import half_interval
from train.claims import (
    BEST,
    CLEARLY,
    HELPED,
    NO_ATTENTION,
    PAPER,
    Interval,
    Share,
    difference,
    is_more,
    judge_claims,
    judge_pair,
    judge_shift,
    judge_studies,
)
from train.files import read_results
from train.summary import cells, published, unlike

PAGE = """\
# The course paper, checked

The architectures come from a course project on FER2013 (A. Rowson and A. Slotter, "Facial Expression
Recognition Project"). Here its figures and claims stand beside what this repository measures by the paper's
recipe ([paper.toml](../train/recipes/paper.toml), seed 0): one training on the training split, its epoch
chosen on clean validation, test read once. The table gives accuracy in percent.

{table}

*Both* is validation and test together, 7,178 images: Kaggle's folders have no validation split, so this is
probably what the paper tested on. The half of it that is validation also chose the epoch. *Clean* leaves out
images that stand in train too. ± is the 95 % interval of a split, and the standard deviation over the folds
of all seeds of the cross-validation: {seeds}.

*Less the paper's* is the 95 % interval of *both* less the paper's figure, had that been read from as many
images. {reproduced}
The paper names neither learning rate, batch size nor crop, and of its networks little more than the width of
each layer; what it leaves open is settled as paper.toml and the networks' docstrings say, so that a figure
which differs does not refute it.

## Its claims

Networks and expressions are judged over the folds of the cross-validation, each a training of its own, by
the images that it holds out; of expressions it is {best} that is judged. What is said of an expression
holds where it is so in every fold, and does not where it is so in none; recalls are mean ± standard
deviation over the folds. Two networks are compared over the paired folds of the seeds that both have
(below), so that the 95 % interval need not lie about the difference of their means above. A side study is
one training each: its interval is that of the images, as if two networks had read different ones (Agresti
and Caffo 2000, The American Statistician 54), and leaves out that trainings by one recipe differ, too: its
verdict is one on these two, and another pair may read otherwise. What an interval does not settle is
*undecided*. A loss has none; it and the numbers of images are judged by the bounds that stand beside them.
A map is that of a face's own label, whether or not the network reads it; it favours a band about eyes or
mouth when {clearly} times the band's share of the picture lies in it, or more. Three bands are tried, which
reach to either side by a quarter, a third and half of the way between eyes and mouth; where they disagree,
nothing is decided. They are as wide as the picture, and a map has 12x12 cells: it cannot tell the corners
of a mouth from its middle.

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
([figures](results/mean-gradcam.json), by `python train/mean_gradcam.py`). Over the folds {seldom} are
read as such: most of their maps explain an answer that the network did not give.
{compared}"""

STUDIES = """\
![Learning curves of the side studies](figures/studies.png)

The side studies are trainings of {models} on the training split, scored on clean validation
([figures](results/studies.json), by `python train/studies.py`). The training loss with class weights is
weighted, and not to be compared with the others; the first 20 of the 30 epochs are those of the 20.

"""

COMPARED = """
## What it leaves open

Does an idea help, at equal budget? Accuracy over the same folds and seeds, in points, with the 95 %
interval of the corrected resampled t-test (Nadeau and Bengio 2003, Machine Learning 52;
[figures](results/compare-paper.json), by `train/compare.py`). The intervals are not corrected for the
number of pairs.{precisions}

{answers}
{table}"""

PAIRS = """
| {folds} folds | seeds | difference | 95 % interval | beyond it |
|---|--:|--:|--:|---|
{rows}
"""

# What the paper could not say, and the networks that differ in nothing else.
OPEN = {
    "The fixed kernels in front help": ("fer_kernel_cnn", "fer_cnn"),
    "Fixed kernels are better than such a layer that learns": ("fer_kernel_cnn", "control_learnt_kernels"),
    "CBAM helps": (BEST, NO_ATTENTION),
}


# Of the side studies, by recipe.
VARIANTS = {
    "paper": "20 epochs",
    "paper-30": "30 epochs",
    "paper-l2": "L2: weight decay 1e-4",
    "paper-weights": "class weights (training loss: weighted)",
}


def page() -> str:
    """The page, as Markdown."""
    results = {name: read_results(f"{name}.paper") for name in PAPER}
    crossed, compared = published(), read_results("compare-paper")
    models = crossed["models"]
    maps, studies = read_results("mean-gradcam"), read_results("studies", {})
    counts = read_results("audit")["splits"]["train"]["classes"]
    claims = judge_claims(models, compared["pairs"], maps["shares"], counts) + judge_studies(studies)
    filled = [
        f"{row['of_train']} of the {row['faces']} of {name} are training faces, for want of others"
        for name, row in maps["shares"].items()
        if row["of_train"]
    ]
    return PAGE.format(
        table=_table(results, crossed),
        seeds=", ".join(f"{models[name]['seeds']} of {name}" for name in PAPER),
        reproduced=_reproduced(results),
        claims="\n".join(claims),
        best=BEST,
        clearly=CLEARLY,
        shift=judge_shift(models[BEST]["folds"], maps["shares"]),
        studies=STUDIES.format(models=" and ".join(studies)) if studies else "",
        map_model=maps["model"],
        detector=maps["detector"],
        filled="".join(f"; {each}" for each in filled),
        seldom=" and ".join(f"{models[BEST]['mean'][f'recall_{name}']:.0f} % of {name}" for name in HELPED),
        compared=_compared(compared, crossed),
    )


def study_curves(studies: dict) -> dict[str, list[list[dict]]]:
    """The studies' learning curves, as `train.curves.draw_curves` takes them."""
    return {
        f"{model}, {VARIANTS[name]}": [row["history"]]
        for model, found in studies.items()
        for name, row in found.items()
    }


def _table(results: dict[str, dict], crossed: dict) -> str:
    folds = crossed["folds"]
    rows = [
        f"| | paper | {folds}-fold cross-validation | both | less the paper's | test | clean test |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in results.items():
        splits = row["splits"]
        both = _both(splits)
        low, high = _less_the_papers(name, splits)
        rows.append(
            f"| `{name}` | {PAPER[name]} | {cells(crossed['models'][name])[0]} "
            f"| {both[0]:.2f} ± {half_interval(*both):.2f} | {low:+.1f} to {high:+.1f} "
            f"| {splits['test']['accuracy']:.2f} ± {splits['test']['accuracy_ci95']:.2f} "
            f"| {splits['test_clean']['accuracy']:.2f} ± {splits['test_clean']['accuracy_ci95']:.2f} |"
        )
    return "\n".join(rows)


def _both(splits: dict) -> Share:
    """Accuracy on validation and test together."""
    parts = [splits[key] for key in ("validation", "test")]
    n = sum(part["n"] for part in parts)
    return sum(part["n"] * part["accuracy"] for part in parts) / n, n


def _less_the_papers(name: str, splits: dict) -> Interval:
    both = _both(splits)
    return difference(both, (PAPER[name], both[1]))


def _reproduced(results: dict[str, dict]) -> str:
    """Which of the paper's figures are met, as sentences."""
    found = {name: is_more(_less_the_papers(name, row["splits"])) for name, row in results.items()}
    kinds = {None: "Within chance of it", True: "Higher", False: "Lower"}
    listed = {kind: [f"`{name}`" for name in found if found[name] is more] for more, kind in kinds.items()}
    return " ".join(f"{kind}: {', '.join(names)}." for kind, names in listed.items() if names)


def _compared(found: dict, crossed: dict) -> str:
    return COMPARED.format(
        answers="\n".join(judge_pair(idea, *pair, found["pairs"]) for idea, pair in OPEN.items()),
        table=_pairs(found),
        precisions="\n" + mixed if (mixed := unlike(crossed)) else "",
    )


def _pairs(found: dict) -> str:
    """All pairs that were compared."""
    rows = []
    for pair in found["pairs"]:
        first, second = pair["models"]
        better = first if pair["mean"] > 0 else second
        sure = f"`{better}` is better" if abs(pair["mean"]) > pair["ci95"] else "undecided"
        rows.append(
            f"| `{first}` less `{second}` | {len(pair['seeds'])} | {pair['mean']:+.2f} "
            f"| ± {pair['ci95']:.2f} | {sure} |"
        )
    return PAIRS.format(folds=found["folds"], rows="\n".join(rows))
