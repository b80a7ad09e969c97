"""Folds that do not leak: equal images always stand in the same one."""

import numpy as np


class FoldError(ValueError):
    """Folds that cannot be made; the message is one sentence for the user."""


def leak_free_folds(labels: np.ndarray, hashes: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Divides images into k folds, stratified by label and grouped by pixel hash.

    FER2013's training split holds 1,236 images that repeat another one pixel for pixel, some with another
    label; folds that ignore this score images that they have learnt.

    Args:
        labels: int (N,).
        hashes: (N,), as `fer_zoo.identity.pixel_hashes` gives them.
        k: Number of folds.
        seed: Of the shuffle.

    Returns:
        int64 (N,), the fold of each image, 0 to k - 1.

    Raises:
        FoldError: k is less than 2, or a class has fewer images than there are folds.
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise ImportError('folds need scikit-learn: pip install "fer-zoo[train]"') from error

    if k < 2:
        raise FoldError(f"cross-validation needs at least 2 folds, not {k}")
    values, counts = np.unique(labels, return_counts=True)
    if len(values) == 0 or counts.min() < k:
        rare = values[counts.argmin()] if len(values) else "any"
        raise FoldError(f"class {rare} has {counts.min(initial=len(labels))} images: too few for {k} folds")
    folds = np.empty(len(labels), np.int64)
    splitter = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(labels, labels, groups=hashes)):
        folds[held_out] = fold
    return folds
