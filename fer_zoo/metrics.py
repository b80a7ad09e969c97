"""What a table of expression models needs to say, from logits and labels, by torchmetrics."""

import math

import torch

from .labels import EXPRESSIONS

BINS = 15  # equal-width, of confidence


def scores(logits: torch.Tensor, labels: torch.Tensor) -> dict:
    """Every figure of one model on one split.

    Args:
        logits: float (N, 7).
        labels: int64 (N,), 0 to 6.

    Returns:
        JSON-able: `n`; `accuracy`, `accuracy_ci95` (half width, normal approximation), `macro_f1` and
        `recall` (by expression), all in percent; `ece` (15 equal-width bins, percent), `nll` (nats), `brier`
        (0 to 2); `reliability` (mean `confidence` and `accuracy`, 0 to 1, of each of those bins that is not
        empty); `confusion` (7 rows of true expression, 7 columns of predicted, counts).

    Raises:
        ImportError: torchmetrics is not installed.
    """
    try:
        from sklearn.calibration import calibration_curve
        from torchmetrics import functional as metrics
    except ImportError as error:
        raise ImportError('scores need torchmetrics: pip install "fer-zoo[train]"') from error

    task = dict(task="multiclass", num_classes=len(EXPRESSIONS))
    probs = logits.float().softmax(1)
    accuracy = metrics.accuracy(probs, labels, **task, average="micro").item()
    recall = metrics.recall(probs, labels, **task, average="none")
    top, predicted = probs.max(1)
    hits, confidence = calibration_curve(predicted == labels, top, n_bins=BINS)
    one_hot = torch.nn.functional.one_hot(labels, len(EXPRESSIONS))
    return {
        "n": len(labels),
        "accuracy": 100 * accuracy,
        "accuracy_ci95": half_interval(100 * accuracy, len(labels)),
        "macro_f1": 100 * metrics.f1_score(probs, labels, **task, average="macro").item(),
        "recall": {name: 100 * value for name, value in zip(EXPRESSIONS, recall.tolist(), strict=True)},
        "ece": 100 * metrics.calibration_error(probs, labels, **task, n_bins=BINS).item(),
        "nll": torch.nn.functional.cross_entropy(logits.float(), labels).item(),
        "brier": (probs - one_hot).square().sum(1).mean().item(),
        "reliability": {"confidence": confidence.tolist(), "accuracy": hits.tolist()},
        "confusion": metrics.confusion_matrix(probs, labels, **task).tolist(),
    }


def half_interval(percent: float, n: int) -> float:
    """Half the 95 % interval of a share of n cases, in points, by the normal approximation."""
    return 1.96 * math.sqrt(percent * (100 - percent) / n)
