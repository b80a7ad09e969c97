"""Which images and which datasets are the same, by their pixels."""

import hashlib
from collections.abc import Mapping

import numpy as np


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


def fingerprint(splits: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """Name a dataset by its content: the sha256 of the sorted (split, label, pixel hash) of all its images.

    It is equal for all lossless sources of FER2013, whatever their order of rows.

    Args:
        splits: Labels, int (N,), and pixel hashes, (N,), of each split.

    Returns:
        64 hexadecimal digits.
    """
    rows = [
        f"{name} {label} {pixels}"
        for name, pair in splits.items()
        for label, pixels in zip(*pair, strict=True)
    ]
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()
