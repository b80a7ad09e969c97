"""The one way to make a model's input: training, evaluation, app and command line all pass here."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torch import nn


def normalize(pixels: torch.Tensor, cfg: Mapping[str, Any]) -> torch.Tensor:
    """Pixels to network input.

    Args:
        pixels: (B, C, H, W), uint8 or float, 0 to 255.
        cfg: A pretrained cfg, with `mean` and `std` in units of 0 to 1; of three channels, gray gets
            the averages.

    Returns:
        float32 of the same shape; mean 0.5 and std 0.5 give -1 to 1.
    """
    if pixels.shape[1] == 1:  # numbers: a GPU need not wait for tensors
        mean, std = (sum(cfg[key]) / len(cfg[key]) for key in ("mean", "std"))
    else:
        mean, std = (torch.tensor(cfg[key], device=pixels.device).view(-1, 1, 1) for key in ("mean", "std"))
    return (pixels.float() / 255 - mean) / std


def to_input(
    images: Sequence[Image.Image | np.ndarray], model: nn.Module | Mapping[str, Any]
) -> torch.Tensor:
    """Any images to one batch of network input.

    Args:
        images: PIL images of 8 bits without transparency, as `load_image` makes them of any, or uint8 arrays
            (H, W) or (H, W, 3) in RGB order; of any size.
        model: A model, or its pretrained cfg. With `in_chans` 3 it gets RGB, else gray by PIL's "L".

    Returns:
        float32 (N, C, H, W), of the cfg's size, resized by its interpolation where the image has another one.

    Raises:
        ValueError: An image is of another kind, such as floats of 0 to 1.
    """
    cfg = model if isinstance(model, Mapping) else model.pretrained_cfg
    chans, height, width = cfg["input_size"]
    chans = getattr(model, "in_chans", chans)
    mode, resample = ("L" if chans == 1 else "RGB"), str_to_pil_interp(cfg["interpolation"])
    pixels = np.empty((len(images), height, width, chans), np.uint8)
    for row, image in zip(pixels, images, strict=True):
        if not isinstance(image, Image.Image):
            if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
                kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
                raise ValueError(
                    f"Images must be PIL's or uint8 arrays, not {kind}; `load_image` makes them of paths, "
                    "bytes and other arrays."
                )
            image = Image.fromarray(image)
        if image.mode[0] in "IF":  # of more than 8 bits, which PIL would cut off
            raise ValueError(f"Images must have 8 bits, not mode {image.mode}; `load_image` makes them so.")
        image = image.convert(mode)
        if image.size != (width, height):
            image = image.resize((width, height), resample)
        row[...] = np.asarray(image).reshape(height, width, chans)
    return normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2), cfg)
