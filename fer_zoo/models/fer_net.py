"""FerNet, the zoo's own network: residual blocks, downsampled by averages.

    gray 1x48x48 -> convs        -> pool, blocks -> pool, blocks -> pool, blocks -> global average pool -> 7
    fer_net         2 x 16x48x48    2 x 48x24x24    2 x 96x12x12    2 x 192x6x6
    fer_net_tiny    2 x 16x48x48    2 x 32x24x24    2 x 64x12x12    1 x 64x6x6

A block is two 3x3 convolutions with BatchNorm (He et al., arXiv:1512.03385), its residual branch dropped at
random in training (Huang et al., arXiv:1603.09382). Resolution is halved by averages of 2x2 pixels before a
stage, as He et al.'s bag of tricks has it for the shortcut (arXiv:1812.01187), here for both branches: a
strided convolution would skip pixels, of which a face of 48x48 has few. At full resolution there are two
convolutions, as in VGG (Simonyan and Zisserman, arXiv:1409.1556). Squeeze-excitation (Hu et al.,
arXiv:1709.01507) can weigh the residual branches.
"""

from typing import Any

import torch
from timm.layers import ClassifierHead, ConvNormAct, DropPath, SEModule, calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import nn

from ._base import FaceNet, cfg, create

__all__ = ["FerNet"]

TINY = dict(widths=(32, 64, 64), depths=(2, 2, 1))


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut: (B, in_chs, H, W) -> (B, out_chs, H, W)."""

    def __init__(self, in_chs: int, out_chs: int, drop_path: float, attention: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormAct(in_chs, out_chs, 3)
        self.conv2 = ConvNormAct(out_chs, out_chs, 3, apply_act=False)
        self.attn = SEModule(out_chs) if attention else nn.Identity()
        self.drop_path = DropPath(drop_path)
        self.shortcut = (
            nn.Identity() if in_chs == out_chs else ConvNormAct(in_chs, out_chs, 1, apply_act=False)
        )
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.attn(self.conv2(self.conv1(x)))
        return self.act(self.drop_path(branch) + self.shortcut(x))


class FerNet(FaceNet):
    """Convolutions at full resolution and three stages of residual blocks.

    Args:
        num_classes: Width of the classifier; 0 for none.
        in_chans: 1 for gray, 3 for RGB.
        stem_width: Channels of the convolutions at full resolution.
        stem_depth: How many of these there are, 1 or 2.
        widths: Channels of the three stages.
        depths: Blocks of the three stages.
        attention: Whether the blocks' residual branches are weighed by squeeze-excitation.
        global_pool: Pooling before the classifier, as in timm.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Chance that the last block's residual branch is dropped; it rises linearly to there.
    """

    def __init__(
        self,
        num_classes: int = 7,
        in_chans: int = 1,
        stem_width: int = 16,
        stem_depth: int = 2,
        widths: tuple[int, int, int] = (48, 96, 192),
        depths: tuple[int, int, int] = (2, 2, 2),
        attention: bool = False,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages = []
        in_chs = stem_width
        drop_paths = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        for out_chs, rates in zip(widths, drop_paths, strict=True):
            blocks = [
                Block(in_chs if i == 0 else out_chs, out_chs, rate, attention) for i, rate in enumerate(rates)
            ]
            stages.append(nn.Sequential(nn.AvgPool2d(2), *blocks))
            in_chs = out_chs
        head = ClassifierHead(in_chs, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        stem: nn.Module = ConvNormAct(1, stem_width, 3)
        if stem_depth == 2:
            stem = nn.Sequential(stem, ConvNormAct(stem_width, stem_width, 3))
        super().__init__(stem, stages, head, widths, (2, 4, 8), num_classes, in_chans)


default_cfgs = generate_default_cfgs(
    {
        name: cfg(name, fixed_input_size=False, pool_size=(6, 6))
        for name in ("fer_net.fer2013", "fer_net.ferplus", "fer_net_tiny.fer2013")
    }
)


@register_model
def fer_net(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """Stages of 48, 96, 192 with two blocks each."""
    return create(FerNet, "fer_net", pretrained, **kwargs)


@register_model
def fer_net_tiny(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """A quarter of a million parameters: stages of 32, 64, 64, the last of one block."""
    return create(FerNet, "fer_net_tiny", pretrained, **dict(TINY, **kwargs))
