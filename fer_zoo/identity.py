"""Which images and which datasets are the same, by their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .data import to_arrays

if TYPE_CHECKING:
    import datasets


def pixel_hashes(images: np.ndarray) -> np.ndarray:
    """Hash every image by its pixels.

    Args:
        images: uint8 (N, H, W).

    Returns:
        Strings of 64 hexadecimal digits, (N,); two are equal if and only if the pixels are.

    Raises:
        ValueError: The array has another dtype or shape.
    """
    if images.dtype != np.uint8 or images.ndim != 3:
        raise ValueError(f"images must be uint8 (N, H, W), not {images.dtype} {images.shape}")
    return np.array([hashlib.sha256(image.tobytes()).hexdigest() for image in images], dtype="<U64")


def seen_in(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Tell which images stand in another set, pixel for pixel.

    The clean part of a split is `~seen_in(split, train)`; 280 validation and 288 test images are not clean.

    Args:
        images: uint8 (N, H, W).
        reference: uint8 (M, H, W).

    Returns:
        bool (N,).
    """
    return np.isin(pixel_hashes(images), pixel_hashes(reference))


def fingerprint(dataset: datasets.DatasetDict) -> str:
    """Name a dataset by its content: the sha256 of the sorted (split, label, pixel hash) of all its images.

    It is equal for all lossless sources of FER2013, whatever their order of rows.

    Returns:
        64 hexadecimal digits.
    """
    splits = {}
    for name, split in dataset.items():
        images, labels = to_arrays(split)
        splits[name] = labels, pixel_hashes(images)
    return digest(splits)


def digest(splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """The `fingerprint` of splits whose labels and pixel hashes are at hand, as such pairs of (N,)."""
    rows = [
        f"{name} {label} {pixels}"
        for name, pair in splits.items()
        for label, pixels in zip(*pair, strict=True)
    ]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
