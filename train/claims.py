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

# A map favours a band when so many times the band's share of the picture lies in it.
CLEARLY = 1.1

Share = tuple[float, int]  # percent, and of how many cases
EXACT = 10**9  # cases of a share that is no estimate
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
    early, late = _last(base, "val_accuracy"), _last(longer, "val_accuracy")
    n = base["validation_clean"]["n"]
    gain = difference((late, n), (early, n))
    noise = 100 * math.sqrt(early / 100 * (1 - early / 100) / n)
    before, after = base["validation_clean"], weighted["validation_clean"]
    # FER2013's clean validation has so many of each, whatever reads it
    cases = _recall(read_results(f"{BEST}.paper")["splits"]["validation_clean"])
    gains = {
        name: difference(*((split["recall"][name], cases[name][1]) for split in (after, before)))
        for name in HELPED
    }
    return [
        _verdict(
            without - with_l2 > (1.8 - 1.4) / 2,
            f"over the last five epochs it is {without:.2f} without and {with_l2:.2f} with a weight decay of "
            f"{regularised['config']['recipe']['weight_decay']:g}; half of the paper's fall would do",
        ),
        _verdict(
            True if late - early < noise else False if is_more(gain) else None,
            f"the last five of 20 have {early:.2f} % on average, the last five of 30 {late:.2f} %: "
            f"{_points(gain)}, where a gain within the standard error, {noise:.2f} points, is none",
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


def judge_claims(test: dict[str, dict], shares: dict) -> list[str]:
    """What holds of the paper's claims about the four networks, classes, and where they look.

    Args:
        test: Each network's scores on test, of its results file.
        shares: Of `train/mean_gradcam.py`.

    Returns:
        A line of Markdown a claim.
    """
    best = test[BEST]
    ahead, ahead_by = _beside_others(BEST, test)
    resnet, resnet_by = _beside_others("fer_resnet", test)
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
        _claim("CBAM improves fear and disgust", *_attention(test)),
        _claim("Happy is seen at the corners of the mouth", *_seen_at(shares, "happy", "mouth")),
        _claim("Surprise is seen at the eyes", *_seen_at(shares, "surprise", "eyes")),
        _claim("Anger is seen at the open mouth", *_seen_at(shares, "angry", "mouth")),
    ]


def judge_shift(best: dict, shares: dict) -> str:
    """The paper's statements on classes, as written and with alphabetical folders under FER2013's numbers."""
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
    recall = _recall(best)
    return "\n".join(rows) + (
        f"\n\nOf these {len(judged)}, {written[True]} hold as written and {shifted[True]} shifted; "
        f"{written[None]} and {shifted[None]} are undecided. The shifted reading {found}. The paper's "
        f"{LOWEST} % stand beside our {recall['surprise'][0]:.1f} (surprise), {recall['sad'][0]:.1f} (sad)."
    )


def judge_pair(idea: str, first: str, second: str) -> str:
    """Whether the first of two networks, which differ in one idea, reads better over the folds; Markdown."""
    gap = _paired(first, second)
    if gap is None:
        return f"- **{idea}.** Not measured yet: `{first}` and `{second}` over the same folds would tell."
    return _claim(idea, is_more(gap), f"`{first}` against `{second}` is {_points(gap)} over the folds")


def _lowest(split: dict, name: str) -> tuple[bool | None, str]:
    """Whether every other expression is read better than this one."""
    recall = _recall(split)
    worst = min(recall.values())
    bottom = [key for key in sorted(recall, key=recall.get) if not is_more(difference(recall[key], worst))]
    return (
        every(is_more(difference(recall[other], recall[name])) for other in recall if other != name),
        f"{name} has {recall[name][0]:.1f}, the lowest is " + " or ".join(_figures(recall, bottom)),
    )


def _only_over(split: dict, *names: str) -> tuple[bool | None, str]:
    """Whether these expressions and no others are read in more than 70 % of cases."""
    recall, bar = _recall(split), (OVER, EXACT)
    over = [name for name in recall if is_more(difference(recall[name], bar)) is not False]
    return (
        every(
            is_more(difference(row, bar) if name in names else difference(bar, row))
            for name, row in recall.items()
        ),
        "over it are, or may be, " + ", ".join(_figures(recall, over)),
    )


def _most_confused(split: dict, *names: str) -> tuple[bool | None, str]:
    """Whether these two are taken for one another more often than any other two."""
    confusion = np.array(split["confusion"])
    counts = {pair: confusion[pair, pair[::-1]].sum() for pair in combinations(range(len(EXPRESSIONS)), 2)}
    ours = tuple(sorted(EXPRESSIONS.index(name) for name in names))
    count = counts.pop(ours)
    other = max(counts, key=counts.get)
    half = 1.96 * math.sqrt(count + counts[other])  # as Poisson's
    gap = count - counts[other]
    first, second = (" and ".join(EXPRESSIONS[label] for label in pair) for pair in (ours, other))
    return is_more((gap - half, gap + half)), f"{first} {count} times, {second} {counts[other]} times"


def _seen_at(shares: dict, name: str, where: str) -> tuple[bool | None, str]:
    """Whether the map of an expression clearly favours a band."""
    row = shares[name]
    more, half = (row[key] / row[f"area_{where}"] for key in (where, f"{where}_ci95"))
    return (
        is_more((more - half - CLEARLY, more + half - CLEARLY)),
        f"{row[where]:.0f} % of the map of {name} lie in the band of the {where}, {more:.2f} ± {half:.2f} "
        f"times its share (n = {row['faces']})",
    )


def _beside_others(name: str, test: dict[str, dict]) -> tuple[list[Interval], str]:
    """A network's accuracy less that of each other: over folds where all were compared, else on test."""
    ours, others = test[name], {other: row for other, row in test.items() if other != name}
    gaps, where = [_paired(name, other) for other in others], "over the folds "
    if None in gaps:
        where = ""
        gaps = [
            difference((ours["accuracy"], ours["n"]), (row["accuracy"], row["n"])) for row in others.values()
        ]
    against = ", ".join(
        f"{_points(gap)} against {other} ({row['accuracy']:.2f})"
        for gap, (other, row) in zip(gaps, others.items(), strict=True)
    )
    return gaps, f"{name} has {ours['accuracy']:.2f} on test, {where}{against}"


def _attention(test: dict[str, dict]) -> tuple[bool | None, str]:
    """Whether CBAM helps, by the folds of the control; networks that differ in more decide nothing."""
    gains = [_paired(BEST, NO_ATTENTION, name) for name in HELPED]
    against, measured = "the same network without attention, over the folds", None not in gains
    if not measured:
        ours, theirs = (_recall(test[name]) for name in (BEST, "fer_kernel_cnn"))
        gains = [difference(ours[name], theirs[name]) for name in HELPED]
        against = (
            "fer_kernel_cnn on test, one training each, which differs in more than the attention: "
            "of CBAM alone it says nothing"
        )
    found = ", ".join(f"{name} {_points(gain)}" for name, gain in zip(HELPED, gains, strict=True))
    return every(map(is_more, gains)) if measured else None, f"{found}, against {against}"


def _paired(first: str, second: str, expression: str | None = None) -> Interval | None:
    """95 % interval of `first` less `second` over the folds, in accuracy or a recall; None: not compared."""
    for pair in read_results("compare-paper", {}).get("pairs", []):
        if set(pair["models"]) == {first, second}:
            row = pair["recall"][expression] if expression else pair
            mean = row["mean"] if pair["models"][0] == first else -row["mean"]
            return mean - row["ci95"], mean + row["ci95"]
    return None


def _recall(split: dict) -> dict[str, Share]:
    cases = np.sum(split["confusion"], 1).tolist()
    return {name: (split["recall"][name], count) for name, count in zip(EXPRESSIONS, cases, strict=True)}


def _figures(recall: dict[str, Share], names: list[str]) -> list[str]:
    return [f"{name} ({recall[name][0]:.1f})" for name in names]


def _points(interval: Interval) -> str:
    return f"{interval[0]:+.1f} to {interval[1]:+.1f} points"


def _verdict(holds: bool | None, found: str) -> str:
    return {True: "Holds: ", False: "Does not hold: ", None: "Undecided: "}[holds] + found


def _claim(claim: str, holds: bool | None, found: str) -> str:
    return f"- **{claim}.** {_verdict(holds, found)}."
