"""CustomFERCNN, the course paper's best network: fixed kernels, convolution blocks and CBAM attention.

    gray 1x48x48 -> fixed kernels 5x48x48 -> block 64x48x48 + CBAM -> pool, block 128x24x24 + CBAM
    -> pool, block 256x12x12 + CBAM -> pool 256x6x6 -> flatten 9216 -> 512 -> 7

CBAM is Woo et al. 2018 (arXiv:1807.06521) as timm builds it: channel attention, then spatial attention.
What the paper leaves open:
- A block is two 3x3 convolutions, each with BatchNorm and ReLU: the paper says "block" here and "layer" of
  the first two networks, and BatchNorm is named for the deeper models. In the first block the fixed kernels
  are the first of the two.
- Attention stands before the pool, on the block's full resolution.
- Dropout, 0.5, surrounds the hidden layer, where nearly all parameters are.
"""

from typing import Any

from timm.layers import ConvNormAct, to_2tuple
from timm.layers.cbam import CbamModule
from timm.models import generate_default_cfgs, register_model
from torch import nn

from ._base import FaceNet, cfg, create
from .layers import FixedKernels, FlattenHead

__all__ = ["FerCbam"]


class FerCbam(FaceNet):
    """Kernel layer, three convolution blocks with CBAM, two fully connected layers.

    Args:
        num_classes: Width of the classifier; 0 for none.
        in_chans: 1 for gray, 3 for RGB.
        img_size: Input height and width in pixels, multiples of 8.
        widths: Channels of the three blocks.
        hidden_size: Width of the hidden layer.
        global_pool: "flatten" or "": features are flattened, not pooled.
        drop_rate: Dropout before and after the hidden layer.
    """

    def __init__(
        self,
        num_classes: int = 7,
        in_chans: int = 1,
        img_size: int | tuple[int, int] = 48,
        widths: tuple[int, int, int] = (64, 128, 256),
        hidden_size: int = 512,
        global_pool: str = "flatten",
        drop_rate: float = 0.5,
    ) -> None:
        stages = []
        in_chs = FixedKernels.out_chs
        for out_chs in widths:
            convs = [ConvNormAct(in_chs, out_chs, 3)]
            if stages:
                convs = [nn.MaxPool2d(2), *convs, ConvNormAct(out_chs, out_chs, 3)]
            stages.append(nn.Sequential(*convs, CbamModule(out_chs)))
            in_chs = out_chs
        height, width = to_2tuple(img_size)
        size = height // 4, width // 4
        head = FlattenHead(in_chs, size, hidden_size, num_classes, drop_rate, global_pool)
        super().__init__(FixedKernels(), stages, head, widths, (1, 2, 4), num_classes, in_chans)


default_cfgs = generate_default_cfgs(
    {name: cfg(name) for name in ("fer_cbam.fer2013", "fer_cbam.ferplus", "fer_cbam.paper")}
)


@register_model
def fer_cbam(pretrained: bool = False, **kwargs: Any) -> FerCbam:
    """Blocks of 64, 128, 256 with attention and a hidden layer of 512, behind the fixed kernels."""
    return create(FerCbam, "fer_cbam", pretrained, **kwargs)
