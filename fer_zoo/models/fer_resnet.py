"""SimpleResNetFER, the course paper's residual network.

    gray 1x48x48 -> fixed kernels 5x48x48 -> conv + BN 32x48x48 -> pool 32x24x24
    -> residual blocks 64x24x24, 128x12x12, 256x6x6 -> global average pool -> 7

A block is He et al.'s basic block (arXiv:1512.03385): two 3x3 convolutions with BatchNorm around a shortcut,
which is a 1x1 convolution, as the width changes in each. What the paper leaves open:
- A 2x2 maximum follows the first convolution, as in He et al.'s stem. Without it the last block would see
  about 27 of the 48 pixels before the average, with it nearly the whole face, at a quarter of the cost.
- The second and third block halve the resolution in their first convolution.
"""

from typing import Any

import torch
from timm.layers import ClassifierHead, ConvNormAct
from timm.models import generate_default_cfgs, register_model
from torch import nn

from ._base import FaceNet, cfg, create
from .layers import FixedKernels

__all__ = ["FerResNet"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: (B, in_chs, H, W) -> (B, out_chs, H/stride, W/stride)."""

    def __init__(self, in_chs: int, out_chs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_chs, out_chs, 3, stride)
        self.conv2 = ConvNormAct(out_chs, out_chs, 3, apply_act=False)
        self.shortcut = ConvNormAct(in_chs, out_chs, 1, stride, apply_act=False)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv2(self.conv1(x)) + self.shortcut(x))


class FerResNet(FaceNet):
    """Kernel layer, one convolution and three residual blocks.

    Args:
        num_classes: Width of the classifier; 0 for none.
        in_chans: 1 for gray, 3 for RGB.
        stem_width: Channels of the first convolution.
        widths: Channels of the three blocks.
        global_pool: Pooling before the classifier, as in timm.
        drop_rate: Dropout before the classifier.
    """

    def __init__(
        self,
        num_classes: int = 7,
        in_chans: int = 1,
        stem_width: int = 32,
        widths: tuple[int, int, int] = (64, 128, 256),
        global_pool: str = "avg",
        drop_rate: float = 0.0,
    ) -> None:
        stem = nn.Sequential(
            FixedKernels(), ConvNormAct(FixedKernels.out_chs, stem_width, 3), nn.MaxPool2d(2)
        )
        stages = []
        in_chs = stem_width
        for out_chs in widths:
            stages.append(BasicBlock(in_chs, out_chs, stride=2 if stages else 1))
            in_chs = out_chs
        head = ClassifierHead(in_chs, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        super().__init__(stem, stages, head, widths, (2, 4, 8), num_classes, in_chans)


default_cfgs = generate_default_cfgs(
    {
        name: cfg(name, fixed_input_size=False, pool_size=(6, 6))
        for name in ("fer_resnet.fer2013", "fer_resnet.paper")
    }
)


@register_model
def fer_resnet(pretrained: bool = False, **kwargs: Any) -> FerResNet:
    """Residual blocks of 64, 128, 256 behind the fixed kernels."""
    return create(FerResNet, "fer_resnet", pretrained, **kwargs)
