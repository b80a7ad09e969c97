"""Judges what the course paper claims by the results files: it holds, it does not, or it is undecided."""

import math
from collections.abc import Iterable
from itertools import combinations

import numpy as np

from fer_zoo.labels import EXPRESSIONS
from train.files import read_results

# Test accuracy in percent as the paper gives it ("Final Test Accuracy").
PAPER = {"fer_cnn": 58.26, "fer_kernel_cnn": 59.72, "fer_resnet": 53.13, "fer_cbam": 62.18}
BEST = "fer_cbam"
NO_ATTENTION = "control_no_attention"  # the same without CBAM
HELPED = ("fear", "disgust")  # by CBAM, and by class weights
LOWEST = 36.1  # the recall that it gives for "surprise"
OVER = 70  # that of two classes

# A map favours a band when so many times the band's share of the picture lies in it; a class is
# underrepresented when an even share is so many times its own.
CLEARLY = 1.1

# Of the side studies: below this loss nothing overfits that L2 could mend, and so many points are no gain.
LOSS_WITH_L2 = 1.4
NO_GAIN = 1.0

Share = tuple[float, int]  # percent, and of how many cases
Interval = tuple[float, float]

# Of the side studies, in the order in which `_judge_study` judges them.
STUDIED = (
    "L2 regularisation lowers the validation loss at epoch 20 from 1.8 to under 1.4",
    "30 epochs read no better than 20",
    "Class weights correct in part that fear and disgust are read badly",
)


def difference(first: Share, second: Share) -> Interval:
    """95 % interval of `first` less `second`, in points.

    By Agresti and Caffo: Wald's, with one hit and one miss more in each.
    """
    p, q = ((percent / 100 * cases + 1) / (cases + 2) for percent, cases in (first, second))
    half = 1.96 * math.sqrt(p * (1 - p) / (first[1] + 2) + q * (1 - q) / (second[1] + 2))
    return 100 * (p - q - half), 100 * (p - q + half)


def is_more(interval: Interval) -> bool | None:
    """Whether what lies in the interval is positive; None where it may be."""
    low, high = interval
    return True if low > 0 else False if high < 0 else None


def every(verdicts: Iterable[bool | None]) -> bool | None:
    """Whether all hold; None where none fails and some are undecided."""
    found = set(verdicts)
    return False if False in found else None if None in found else True


def in_all(folds: Iterable[bool]) -> bool | None:
    """Whether something is so in every fold; None where it is in some."""
    found = set(map(bool, folds))  # numpy's own are not the constants that verdicts are counted by
    return None if len(found) > 1 else found.pop()


def judge_studies(studies: dict) -> list[str]:
    """What holds of the paper's claims about regularisation, epochs and class weights.

    Args:
        studies: Of `train/studies.py`, by network; empty while not run.

    Returns:
        A line of Markdown a claim and network, those of `BEST`, of which the paper speaks, also unmeasured.
    """
    judged = {model: _judge_study(found) for model, found in studies.items()}
    judged.setdefault(BEST, ["Not measured yet: `train/studies.py` would"] * len(STUDIED))
    return [
        f"- **{claim} ({model}).** {verdicts[number]}."
        for number, claim in enumerate(STUDIED)
        for model, verdicts in judged.items()
    ]


def _judge_study(found: dict) -> list[str]:
    """The verdicts on `STUDIED` of one network's trainings: paper, paper-30, paper-l2 and paper-weights."""
    base, longer, regularised, weighted = (
        found[name] for name in ("paper", "paper-30", "paper-l2", "paper-weights")
    )
    without, with_l2 = _last(base, "val_loss"), _last(regularised, "val_loss")
    fell = without - with_l2 > (1.8 - LOSS_WITH_L2) / 2
    before, later, after = (study["validation_clean"] for study in (base, longer, weighted))
    # not of the best epochs: those of 30, the first 20 among them, cannot be worse
    read, read_later = (_last(study, "val_accuracy") for study in (base, longer))
    gain = difference((read_later, later["n"]), (read, before["n"]))
    # FER2013's clean validation has so many of each, whatever reads it
    confusion = read_results(f"{BEST}.paper")["splits"]["validation_clean"]["confusion"]
    cases = {name: sum(confusion[EXPRESSIONS.index(name)]) for name in HELPED}
    gains = {
        name: difference(*((split["recall"][name], cases[name]) for split in (after, before)))
        for name in HELPED
    }
    return [
        _verdict(
            fell if fell or without > LOSS_WITH_L2 else None,
            f"over the last five epochs it is {without:.2f} without and {with_l2:.2f} with a weight decay of "
            f"{regularised['config']['recipe']['weight_decay']:g}; half of the paper's fall would do, and "
            f"below {LOSS_WITH_L2} without it nothing overfits that it could mend",
        ),
        _verdict(
            is_more((NO_GAIN - gain[1], NO_GAIN - gain[0])),
            f"the last five of 20 epochs have {read:.2f} %, those of 30 {read_later:.2f} %: "
            f"{_points(gain)}, where less than {NO_GAIN:g} is none",
        ),
        _verdict(
            every(map(is_more, gains.values())),
            "recall without and with them is "
            + ", ".join(
                f"{before['recall'][name]:.1f} and {after['recall'][name]:.1f} % for {name} ({_points(gain)})"
                for name, gain in gains.items()
            )
            + f"; accuracy is {before['accuracy']:.2f} and {after['accuracy']:.2f} %",
        ),
    ]


def _last(study: dict, key: str) -> float:
    """Mean of the last five epochs: single ones are noisy."""
    return float(np.mean([line[key] for line in study["history"][-5:]]))


def judge_claims(models: dict[str, dict], pairs: list[dict], shares: dict, counts: dict) -> list[str]:
    """What holds of the paper's claims about the four networks, classes, and where they look.

    Args:
        models: Of `train/cv.py`'s summary, the four networks among them.
        pairs: Of `train/compare.py`.
        shares: Of `train/mean_gradcam.py`.
        counts: How many training images each expression has.

    Returns:
        A line of Markdown a claim.
    """
    best = models[BEST]["folds"]
    ahead, ahead_by = _beside_others(BEST, models, pairs)
    resnet, resnet_by = _beside_others("fer_resnet", models, pairs)
    return [
        _claim("The network with CBAM is the best of the four", every(map(is_more, ahead)), ahead_by),
        _claim(
            "The residual network is the worst of the four, at 53.13",
            every(is_more((-high, -low)) for low, high in resnet),
            resnet_by,
        ),
        _claim("Most confusion is between sad and neutral", *_most_confused(best, "sad", "neutral")),
        _claim(
            f"Only happy and neutral are read in more than {OVER} % of cases",
            *_only_over(best, "happy", "neutral"),
        ),
        _claim(f"Surprise is read worst, at {LOWEST} %", *_lowest(best, "surprise")),
        _attention(pairs),
        _claim("Disgust and fear are underrepresented", *_underrepresented(counts, *HELPED)),
        _claim("Happy is seen at the corners of the mouth", *_seen_at(shares, "happy", "mouth")),
        _claim("Surprise is seen at the eyes", *_seen_at(shares, "surprise", "eyes")),
        _claim("Anger is seen at the open mouth", *_seen_at(shares, "angry", "mouth")),
    ]


def judge_shift(best: list[dict], shares: dict) -> str:
    """The paper's statements on classes, as written and with alphabetical folders under FER2013's numbers.

    Args:
        best: The scores of each fold of `BEST`.
        shares: Of `train/mean_gradcam.py`.
    """
    statements = {
        f"surprise is read worst, at {LOWEST} %": lambda read: _lowest(best, read["surprise"]),
        f"only happy and neutral are over {OVER} %": lambda read: _only_over(best, "happy", read["neutral"]),
        "sad and neutral are confused most": lambda read: _most_confused(best, read["sad"], read["neutral"]),
        "surprise is seen at the eyes": lambda read: _seen_at(shares, read["surprise"], "eyes"),
    }
    readings = [dict(zip(EXPRESSIONS, names, strict=True)) for names in (EXPRESSIONS, sorted(EXPRESSIONS))]
    judged = {said: [judge(read) for read in readings] for said, judge in statements.items()}
    rows = ["| the paper says | as written | shifted |", "|---|---|---|"]
    rows += [f"| {said} | {' | '.join(_verdict(*each) for each in pair)} |" for said, pair in judged.items()]
    written, shifted = (
        {verdict: sum(holds is verdict for holds, _ in column) for verdict in (True, None)}
        for column in zip(*judged.values(), strict=True)
    )
    found = "fits better" if shifted[True] > written[True] else "does not fit better"
    return "\n".join(rows) + (
        f"\n\nOf these {len(judged)}, {written[True]} hold as written and {shifted[True]} shifted; "
        f"{written[None]} and {shifted[None]} are undecided. The shifted reading {found}. The paper's "
        f"{LOWEST} % stand beside our {_figures(best, ('surprise', 'sad'), ' and ')}."
    )


def judge_pair(idea: str, first: str, second: str, pairs: list[dict]) -> str:
    """Whether the first of two networks, which differ in one idea, reads better over the folds; Markdown."""
    gap = _paired(pairs, first, second)
    if gap is None:
        return _unmeasured(idea, first, second)
    return _claim(idea, is_more(gap), f"`{first}` against `{second}` is {_points(gap)} over the folds")


def _lowest(folds: list[dict], name: str) -> tuple[bool | None, str]:
    """Whether this expression is read worst."""
    lowest = [min(fold["recall"], key=fold["recall"].get) for fold in folds]
    return (
        in_all(each == name for each in lowest),
        f"{_figures(folds, [name])}; the lowest is {_figures(folds, set(lowest), ' or ')}",
    )


def _only_over(folds: list[dict], *names: str) -> tuple[bool | None, str]:
    """Whether these expressions and no others are read in more than 70 % of cases."""
    over = [{name for name, recall in fold["recall"].items() if recall > OVER} for fold in folds]
    found = f"so in {over.count({*names})} of {len(over)} folds; over it are, in one or more, "
    return in_all(each == {*names} for each in over), found + _figures(folds, set.union(*over))


def _most_confused(folds: list[dict], *names: str) -> tuple[bool | None, str]:
    """Whether these two are taken for one another more often than any other two."""
    confusion = np.array([fold["confusion"] for fold in folds])
    pairs = list(combinations(range(len(EXPRESSIONS)), 2))
    counts = np.stack([confusion[:, one, two] + confusion[:, two, one] for one, two in pairs])
    ours = pairs.index(tuple(sorted(EXPRESSIONS.index(name) for name in names)))
    most = counts.sum(1).argsort()[::-1]
    listed = (
        f"{' and '.join(EXPRESSIONS[label] for label in pairs[pair])} {counts[pair].sum():,} times"
        for pair in (ours, next(pair for pair in most if pair != ours))
    )
    return in_all(counts.argmax(0) == ours), f"{', '.join(listed)}, of {confusion.sum():,} answers"


def _underrepresented(counts: dict[str, int], *names: str) -> tuple[bool, str]:
    """Whether each of these has clearly less than an even share of the training images."""
    even = sum(counts.values()) / len(counts)
    listed = ", ".join(f"{name} has {counts[name]:,}" for name in names)
    return (
        all(even > CLEARLY * counts[name] for name in names),
        f"{listed} of {sum(counts.values()):,} training images; an even share is {even:,.0f}, "
        f"clearly less is below {even / CLEARLY:,.0f}",
    )


def _seen_at(shares: dict, name: str, where: str) -> tuple[bool | None, str]:
    """Whether the map of an expression clearly favours a band, be it narrow or wide."""
    row = shares[name]
    times = {
        part: [
            (band[part] / band[f"area_{part}"], band[f"{part}_ci95"] / band[f"area_{part}"])
            for band in row["bands"]
        ]
        for part in ("eyes", "mouth")
    }
    verdicts = {is_more((more - half - CLEARLY, more + half - CLEARLY)) for more, half in times[where]}
    listed = ", ".join(
        f"the {part} " + ", ".join(f"{more:.2f} ± {half:.2f}" for more, half in found)
        for part, found in times.items()
    )
    return (
        verdicts.pop() if len(verdicts) == 1 else None,
        f"of the map of {name}, {listed} times the share of their bands (n = {row['faces']})",
    )


def _beside_others(name: str, models: dict[str, dict], pairs: list[dict]) -> tuple[list[Interval], str]:
    """A network's accuracy over the folds, less that of each other of the four."""
    gaps = {other: _paired(pairs, name, other) for other in PAPER if other != name}
    against = ", ".join(
        f"{_points(gap)} against {other} ({models[other]['mean']['accuracy']:.2f})"
        for other, gap in gaps.items()
    )
    return list(gaps.values()), f"{name} has {models[name]['mean']['accuracy']:.2f}, {against}"


def _attention(pairs: list[dict]) -> str:
    """Whether CBAM helps where it is said to, by the folds of the control."""
    claim = f"CBAM improves {' and '.join(HELPED)}"
    gains = {name: _paired(pairs, BEST, NO_ATTENTION, name) for name in HELPED}
    if None in gains.values():
        return _unmeasured(claim, BEST, NO_ATTENTION)
    found = ", ".join(f"{name} {_points(gain)}" for name, gain in gains.items())
    return _claim(claim, every(map(is_more, gains.values())), f"{found}, against `{NO_ATTENTION}`")


def _paired(pairs: list[dict], first: str, second: str, expression: str | None = None) -> Interval | None:
    """95 % interval of `first` less `second` over the folds, in accuracy or a recall; None: not compared."""
    for pair in pairs:
        if set(pair["models"]) == {first, second}:
            row = pair["recall"][expression] if expression else pair
            mean = row["mean"] if pair["models"][0] == first else -row["mean"]
            return mean - row["ci95"], mean + row["ci95"]
    return None


def _figures(folds: list[dict], names: Iterable[str], separator: str = ", ") -> str:
    """The recall of these expressions over the folds, the lowest first, as text."""
    recall = {name: [fold["recall"][name] for fold in folds] for name in names}
    return separator.join(
        f"{name} ({np.mean(recall[name]):.1f} ± {np.std(recall[name], ddof=1):.1f})"
        for name in sorted(recall, key=lambda name: np.mean(recall[name]))
    )


def _points(interval: Interval) -> str:
    return f"{interval[0]:+.1f} to {interval[1]:+.1f} points"


def _verdict(holds: bool | None, found: str) -> str:
    return {True: "Holds: ", False: "Does not hold: ", None: "Undecided: "}[holds] + found


def _claim(claim: str, holds: bool | None, found: str) -> str:
    return f"- **{claim}.** {_verdict(holds, found)}."


def _unmeasured(claim: str, first: str, second: str) -> str:
    return f"- **{claim}.** Not measured yet: `{first}` and `{second}` over the same folds would tell."
