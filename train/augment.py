"""Batched augmentation on the device: one affine sampling does flip, rotation, crop, shift and resize.

All is drawn on the CPU, for all processes, so that it depends neither on the device nor on how many processes
share a batch: maps, blur, tone, noise levels and erased boxes of an epoch at once, noise and mixing by batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F

from train.recipe import Recipe

GRAY = 127.5  # the middle of the range: what erased pixels become, and what contrast is stretched about


@dataclass(frozen=True)
class Augmentation:
    """What is done to each of B images.

    Attributes:
        theta: float32 (B, 2, 3), maps from output to input coordinates, each in -1 to 1.
        blur: float32 (B,), standard deviation of a Gaussian blur in pixels; None blurs nothing.
        tone: float32 (B, 2), factor of the contrast and offset in pixel values; None leaves them.
        noise: float32 (B,), standard deviation of what is added to the pixel values; None adds nothing.
        erase: float32 (B, 4), left, top, right, bottom of the erased rectangle, 0 to 1; None erases nothing.
    """

    theta: torch.Tensor
    blur: torch.Tensor | None = None
    tone: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    erase: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Augmentation":
        """The same on a device."""
        return self._each(lambda part: part.to(device))

    def __getitem__(self, rows: torch.Tensor) -> "Augmentation":
        """What is done to some of the images."""
        return self._each(lambda part: part[rows])

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Augmentation":
        parts = (self.theta, self.blur, self.tone, self.noise, self.erase)
        return Augmentation(*(None if part is None else change(part) for part in parts))


def draw_augmentation(n: int, recipe: Recipe, generator: torch.Generator) -> Augmentation:
    """Draws what happens to each of n images.

    Args:
        n: Images.
        recipe: Gives the chances and ranges.
        generator: On the CPU.
    """
    theta = random_affine(n, recipe, generator)
    blur = tone = noise = erase = None
    if recipe.blur > 0:
        blur = recipe.blur * every_third(n, generator)
    if recipe.jitter > 0:
        change = torch.empty(n, 2).uniform_(-recipe.jitter, recipe.jitter, generator=generator)
        tone = torch.stack([1 + change[:, 0], GRAY * change[:, 1]], 1)
    if recipe.noise > 0:
        noise = 2 * GRAY * recipe.noise * every_third(n, generator)
    if recipe.erasing > 0:
        erase = random_boxes(n, recipe, generator)
    return Augmentation(theta, blur, tone, noise, erase)


def every_third(n: int, generator: torch.Generator) -> torch.Tensor:
    """Uniform of 0 to 1 for about a third of n images, 0 for the others, float32 (n,)."""
    return torch.empty(n).uniform_(-2, 1, generator=generator).clamp_(min=0)


def random_affine(n: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Draws n maps of flip, rotation, crop and shift, float32 (n, 2, 3), as `affine_grid` takes them."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.empty(n).uniform_(low, high, generator=generator)

    largest = max(1.0, math.sqrt(recipe.crop_scale[1]))
    area = uniform(*recipe.crop_scale)
    aspect = uniform(math.log(recipe.crop_ratio[0]), math.log(recipe.crop_ratio[1])).exp()
    width = (area * aspect).sqrt().clamp(max=largest)
    height = (area / aspect).sqrt().clamp(max=largest)
    angle = uniform(-recipe.degrees, recipe.degrees).deg2rad()
    flip = 1 - 2 * (uniform(0, 1) < recipe.flip).float()
    shift_x = uniform(-1, 1) * (1 - width).abs()
    shift_y = uniform(-1, 1) * (1 - height).abs()
    if recipe.shift > 0:
        shift_x += uniform(-2 * recipe.shift, 2 * recipe.shift)
        shift_y += uniform(-2 * recipe.shift, 2 * recipe.shift)
    cos, sin = angle.cos(), angle.sin()
    return torch.stack(
        [
            torch.stack([flip * cos * width, -sin * height, shift_x], 1),
            torch.stack([flip * sin * width, cos * height, shift_y], 1),
        ],
        1,
    )


def random_boxes(n: int, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Draws n rectangles of aspect 1/3 to 3, float32 (n, 4) of 0 to 1; empty where nothing is erased."""
    u = torch.rand(5, n, generator=generator)
    low, high = recipe.erasing_scale
    area = (low + (high - low) * u[0]) * (u[4] < recipe.erasing)
    aspect = ((2 * u[1] - 1) * math.log(3)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    left, top = u[2] * (1 - width), u[3] * (1 - height)
    return torch.stack([left, top, left + width, top + height], 1)


def augment(
    images: torch.Tensor,
    how: Augmentation,
    size: tuple[int, int] | None = None,
    noise: torch.Tensor | None = None,
) -> torch.Tensor:
    """Samples each image by its own affine map, bilinearly, the border's pixels continued outwards.

    Args:
        images: uint8 (B, 1, H, W).
        how: What is done, on the same device.
        size: Height and width of the output; None keeps them.
        noise: float32 (B, 1, *size), of standard deviation 1; needed where `how` has noise.

    Returns:
        float32 (B, 1, *size), 0 to 255.
    """
    n = len(images)
    height, width = size or images.shape[2:]
    x = F.grid_sample(
        images.float(), sampling_grid(how.theta, height, width), padding_mode="border", align_corners=False
    )
    if how.blur is not None:
        x = blurred(x, how.blur)
    if how.tone is not None:
        gain, offset = how.tone.view(n, 2, 1, 1, 1).unbind(1)
        x.sub_(GRAY).mul_(gain).add_(offset + GRAY).clamp_(0, 255)
    if how.noise is not None:
        x.addcmul_(how.noise.view(n, 1, 1, 1), noise).clamp_(0, 255)
    if how.erase is not None:
        x.masked_fill_(inside(how.erase, height, width), GRAY)
    return x


def sampling_grid(theta: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """`F.affine_grid` without its matrix product, which costs a CPU four times the sampling itself.

    Args:
        theta: float32 (B, 2, 3).
        height: Of the output, in pixels.
        width: Of the output, in pixels.

    Returns:
        float32 (B, height, width, 2).
    """
    x, y = _centres(width, theta.device), _centres(height, theta.device)
    along_x, along_y, offset = theta[:, None, None].unbind(-1)
    return x.view(1, 1, width, 1) * along_x + (y.view(1, height, 1, 1) * along_y + offset)


@lru_cache
def _centres(n: int, device: torch.device) -> torch.Tensor:
    """Where n pixels lie in -1 to 1, float32 (n,)."""
    return (2 * torch.arange(n, device=device) + 1) / n - 1


def blurred(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blurs each image of (B, 1, H, W) by its own Gaussian, `sigma` float32 (B,) in pixels, 0 for none."""
    n, radius = len(x), 5
    steps = torch.arange(-radius, radius + 1, device=x.device)
    kernels = (-(steps**2) / (2 * sigma.clamp(min=0.1)[:, None] ** 2)).softmax(1).view(n, 1, 1, -1)
    x = F.pad(x.view(1, *x.shape[:1], *x.shape[2:]), [radius] * 4, mode="replicate")
    x = F.conv2d(F.conv2d(x, kernels, groups=n), kernels.mT, groups=n)
    return x.view(n, 1, *x.shape[2:])


def inside(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Which pixels lie in each box: (B, 4), 0 to 1, -> bool (B, 1, height, width)."""
    left, top, right, bottom = boxes.view(-1, 4, 1, 1).unbind(1)
    x = ((torch.arange(width, device=boxes.device) + 0.5) / width).view(1, 1, width)
    y = ((torch.arange(height, device=boxes.device) + 0.5) / height).view(1, height, 1)
    return ((x >= left) & (x < right) & (y >= top) & (y < bottom)).unsqueeze(1)


@dataclass(frozen=True)
class Mix:
    """How each image of a batch is mixed with the one that stands in its place when the batch is reversed.

    Attributes:
        share: Of the image itself, and of its label; 0 to 1.
        box: float32 (1, 4), where CutMix puts the other image's pixels; None for mixup.
    """

    share: float
    box: torch.Tensor | None

    def __call__(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) and (B, C, H, W) -> (B, C, H, W)."""
        if self.box is None:
            return torch.lerp(other, x, self.share)
        box = self.box.to(x.device, non_blocking=x.is_cuda)  # a GPU would be waited for
        return torch.where(inside(box, *x.shape[2:]), other, x)


def draw_mix(recipe: Recipe, generator: torch.Generator, size: tuple[int, int]) -> Mix | None:
    """Draws mixup or CutMix for a batch; None where the recipe has neither."""
    if not (recipe.mixup or recipe.cutmix):
        return None
    cut = bool(recipe.cutmix) and (not recipe.mixup or torch.rand((), generator=generator).item() < 0.5)
    alpha = recipe.cutmix if cut else recipe.mixup
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    share = rng.beta(alpha, alpha)
    if not cut:
        return Mix(share, None)
    side = math.sqrt(1 - share)
    centre = torch.rand(2, generator=generator)
    x, y = centre.tolist()
    box = torch.tensor([[x - side / 2, y - side / 2, x + side / 2, y + side / 2]])
    # the label's share is that of the pixels, also where the box is cut off at the border
    return Mix(1 - inside(box, *size).float().mean().item(), box)
