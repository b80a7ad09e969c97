"""Batched augmentation on the device: one affine sampling does flip, rotation and random resized crop."""

import math

import torch
import torch.nn.functional as F

from train.recipe import Recipe


def random_affine(n: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Draws n maps from output to input coordinates, each in -1 to 1.

    Args:
        n: Images in the batch.
        recipe: Gives the chance of a flip, the largest rotation, and the crop's ranges of area and aspect.
        generator: On the CPU, so that the draws are the same on every device.

    Returns:
        float32 (n, 2, 3), what `torch.nn.functional.affine_grid` takes.
    """

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    area = uniform(*recipe.crop_scale)
    aspect = uniform(math.log(recipe.crop_ratio[0]), math.log(recipe.crop_ratio[1])).exp()
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    angle = uniform(-recipe.degrees, recipe.degrees).deg2rad()
    flip = 1 - 2 * (uniform(0, 1) < recipe.flip).float()
    shift_x = uniform(-1, 1) * (1 - width)
    shift_y = uniform(-1, 1) * (1 - height)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack(
        [
            torch.stack([flip * cos * width, -sin * height, shift_x], 1),
            torch.stack([flip * sin * width, cos * height, shift_y], 1),
        ],
        1,
    )


def augment(images: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Samples each image by its own affine map, bilinearly, the border's pixels continued outwards.

    Args:
        images: uint8 (B, 1, H, W).
        theta: float32 (B, 2, 3) of `random_affine`, on the same device.

    Returns:
        float32 (B, 1, H, W), 0 to 255.
    """
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
