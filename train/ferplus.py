"""FER+: the votes of ten annotators on each image of FER2013 (Barsoum et al. 2016, arXiv:1608.01041)."""

import numpy as np

from fer_zoo.data import DataError
from fer_zoo.labels import EXPRESSIONS
from train.dataset import Arrays, Fer2013

# Its columns are neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, not-a-face:
# the first seven of them in the order of EXPRESSIONS.
COLUMNS = [4, 5, 6, 1, 3, 2, 0]
NOT_A_FACE = 9
LEAST = 5  # votes for the seven together, or an image is left out


def votes_of(data: Fer2013, split: str) -> np.ndarray:
    """uint8 (N, 10), the votes on a split.

    Raises:
        DataError: The source has none.
    """
    if split not in data.votes:
        raise DataError(
            "this source of FER2013 has no column ferplus with the votes of FER+: "
            "model_cards/dataset.md says how to add it"
        )
    return data.votes[split]


def need_votes(data: Fer2013) -> None:
    """Says at once that a split lacks votes, not after the first trainings.

    Raises:
        DataError: One does.
    """
    for split in data.splits:
        votes_of(data, split)


def usable(votes: np.ndarray) -> np.ndarray:
    """Images with enough votes for the seven expressions, and not mostly for "not a face", bool (N,)."""
    mostly_none = 2 * votes[:, NOT_A_FACE].astype(int) > votes.sum(1)
    return (votes[:, COLUMNS].sum(1) >= LEAST) & ~mostly_none


def majority(votes: np.ndarray) -> np.ndarray:
    """What annotators saw most often, int64 (N,), an index of EXPRESSIONS; -1: a tie, or unusable.

    It need not be more than half of them.
    """
    ours = votes[:, COLUMNS]
    tie = (ours == ours.max(1, keepdims=True)).sum(1) > 1
    return np.where(usable(votes) & ~tie, ours.argmax(1), -1)


def learn_votes(data: Fer2013) -> tuple[Arrays, Arrays]:
    """What FER+ has to teach, and clean validation to choose the epoch on.

    Returns:
        Train, with the shares of the votes as targets: an image without any votes keeps its label of FER2013,
        an unusable one is left out. Clean validation, with the majority as labels; ties are left out.

    Raises:
        DataError: The source has no votes.
    """
    votes, train = votes_of(data, "train"), data["train"]
    ours = votes[:, COLUMNS].astype(np.float32)
    voted = votes.sum(1) > 0
    shares = ours / ours.sum(1, keepdims=True).clip(1)
    targets = np.where(voted[:, None], shares, np.eye(len(EXPRESSIONS), dtype=np.float32)[train.labels])
    taught = Arrays(train.images, targets.argmax(1), targets)[usable(votes) | ~voted]
    return taught, clean_validation(data, "ferplus")


def truth(data: Fer2013, split: str, labels: str) -> np.ndarray:
    """What weights are judged by that learnt such labels, int64 (N,).

    Those of "fer2013", or of "ferplus": its majority, -1 for ties and unusable images.

    Raises:
        DataError: Votes are asked for, and the source has none.
    """
    return data[split].labels if labels == "fer2013" else majority(votes_of(data, split))


def clean_validation(data: Fer2013, labels: str) -> Arrays:
    """Clean validation with the labels of "fer2013", or of "ferplus": its majority, ties left out.

    Raises:
        DataError: Votes are asked for, and the source has none.
    """
    seen = truth(data, "validation", labels)
    decided = (seen >= 0) & data.clean("validation")
    return Arrays(data["validation"].images[decided], seen[decided])


def parts(data: Fer2013, split: str, labels: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What figures are given of, for weights of such labels: rows, bool (N,), and labels, int64 (N,).

    The split whole and clean, by FER2013's labels; and where those of "ferplus" were learnt, `..._ferplus`,
    both by its majority.

    Raises:
        DataError: Votes are asked for, and the source has none.
    """
    seen = truth(data, split, labels)
    found = {key: (rows, data[split].labels) for key, rows in data.parts(split).items()}
    if labels == "ferplus":
        found |= {judging(key, labels): (rows & (seen >= 0), seen) for key, (rows, _) in found.items()}
    return found


def judging(key: str, labels: str) -> str:
    """The one of `parts`, of a split or its clean half, by the very labels that were learnt."""
    return f"{key}_ferplus" if labels == "ferplus" else key
