"""EmotionCNN, the course paper's baseline, plain and behind fixed kernels.

    gray 1x48x48 -> [fixed kernels 5x48x48] -> conv 32x48x48 -> pool, conv 64x24x24 -> pool, conv 128x12x12
    -> pool 128x6x6 -> flatten 4608 -> 256 -> 7

Every convolution is 3x3 with padding 1 and a ReLU; every pool is a 2x2 maximum followed by dropout.
What the paper leaves open:
- No BatchNorm: the paper names it only for its "deeper models", the third and the fourth.
- Behind the kernels the raw image does not pass beside the five maps: the paper feeds the first convolution
  "enhanced inputs", and the sharpen and Laplacian kernels together hold the image anyway.
- One dropout rate for the convolutions and the hidden layer, 0.25.
"""

from typing import Any

from timm.layers import to_2tuple
from timm.models import generate_default_cfgs, register_model
from torch import nn

from ._base import FaceNet, cfg, create
from .layers import FixedKernels, FlattenHead

__all__ = ["FerCnn"]


class FerCnn(FaceNet):
    """Three convolutions, each pooled, and two fully connected layers.

    Args:
        num_classes: Width of the classifier; 0 for none.
        in_chans: 1 for gray, 3 for RGB.
        img_size: Input height and width in pixels, multiples of 8.
        widths: Channels of the three convolutions.
        hidden_size: Width of the hidden layer.
        kernels: Put the fixed kernel layer in front.
        global_pool: "flatten" or "": features are flattened, not pooled.
        drop_rate: Dropout after each pool and before the classifier.
    """

    def __init__(
        self,
        num_classes: int = 7,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 48,
        widths: tuple[int, int, int] = (32, 64, 128),
        hidden_size: int = 256,
        kernels: bool = False,
        global_pool: str = "flatten",
        drop_rate: float = 0.25,
    ) -> None:
        stem = FixedKernels() if kernels else nn.Identity()
        in_chs = FixedKernels.out_chs if kernels else 1
        stages = []
        for out_chs in widths:
            # each stage ends before its pool, so that its features keep their resolution
            pool = [nn.MaxPool2d(2), nn.Dropout(drop_rate)] if stages else []
            stages.append(nn.Sequential(*pool, nn.Conv2d(in_chs, out_chs, 3, padding=1), nn.ReLU()))
            in_chs = out_chs
        height, width = to_2tuple(img_size)
        size = height // 4, width // 4
        head = FlattenHead(in_chs, size, hidden_size, num_classes, drop_rate, global_pool)
        super().__init__(stem, stages, head, widths, (1, 2, 4), num_classes, in_chans)


default_cfgs = generate_default_cfgs(
    {
        "fer_cnn.fer2013": cfg("fer_cnn.fer2013"),
        "fer_cnn.paper": cfg("fer_cnn.paper"),
        "fer_kernel_cnn.fer2013": cfg("fer_kernel_cnn.fer2013"),
        "fer_kernel_cnn.paper": cfg("fer_kernel_cnn.paper"),
    }
)


@register_model
def fer_cnn(pretrained: bool = False, **kwargs: Any) -> FerCnn:
    """The paper's baseline: convolutions of 32, 64, 128 and a hidden layer of 256."""
    return create(FerCnn, "fer_cnn", pretrained, **kwargs)


@register_model
def fer_kernel_cnn(pretrained: bool = False, **kwargs: Any) -> FerCnn:
    """The baseline behind five fixed edge and shape filters."""
    return create(FerCnn, "fer_kernel_cnn", pretrained, **dict(kwargs, kernels=True))
