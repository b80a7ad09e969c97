"""Variants of fer_net and fer_net_tiny that `train/search.py` tries, each with one thing changed.

They are registered for the scripts in this folder only, and are no part of the zoo.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import BlurPool2d, ConvNormAct
from timm.layers.cbam import CbamModule
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from fer_zoo.models._base import cfg, create
from fer_zoo.models.fer_net import Block, FerNet, fer_net

__all__ = [
    "net_first",
    "tiny_blur_pool",
    "tiny_cbam",
    "tiny_first",
    "tiny_max_pool",
    "tiny_no_attention",
    "tiny_pair",
    "tiny_vgg_stem",
    "trial_attention",
    "trial_blur_pool",
    "trial_cbam",
    "trial_deep",
    "trial_max_pool",
    "trial_one_conv",
    "trial_pair",
    "trial_vit",
    "trial_wide",
]

# fer_net and fer_net_tiny as they were when they taught the others, before the search of fer_net_tiny
NET = dict(stem_width=32, stem_depth=1, widths=(64, 128, 256), attention=True)
TINY = dict(NET, stem_width=16, widths=(32, 56, 72), depths=(2, 2, 1))

default_cfgs = generate_default_cfgs(
    {f"{name}.untrained": cfg(name, hf_hub_id=None, fixed_input_size=False) for name in __all__}
)


def _with_pool(model: FerNet, pool: Callable[[int], nn.Module]) -> FerNet:
    """`pool` makes a module that halves so many channels' resolution, in place of the mean of 2x2 pixels."""
    for stage in model.stages:
        stage[0] = pool(stage[1].conv1.conv.in_channels)
    return model


def _with_attention(model: FerNet, attention: Callable[[int], nn.Module]) -> FerNet:
    """`attention` makes a block's from its channels, in place of squeeze-excitation or none."""
    for block in model.modules():
        if isinstance(block, Block):
            block.attn = attention(block.conv2.conv.out_channels)
    return model


@register_model
def net_first(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """One convolution before the first pool, squeeze-excitation, and stages of 64, 128, 256."""
    return fer_net(**dict(NET, **kwargs))


@register_model
def tiny_first(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """One convolution before the first pool, squeeze-excitation, and another width of the later stages."""
    return fer_net(**dict(TINY, **kwargs))


@register_model
def tiny_no_attention(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """tiny_first with blocks without squeeze-excitation."""
    return tiny_first(attention=False, **kwargs)


@register_model
def tiny_vgg_stem(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """tiny_first with two convolutions at full resolution (Simonyan and Zisserman, arXiv:1409.1556)."""
    return tiny_first(stem_depth=2, **kwargs)


@register_model
def trial_max_pool(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """Halves the resolution by maxima, as VGG does."""
    return _with_pool(fer_net(**kwargs), lambda chs: nn.MaxPool2d(2))


@register_model
def tiny_max_pool(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """tiny_first that halves the resolution by maxima."""
    return trial_max_pool(**dict(TINY, **kwargs))


@register_model
def trial_blur_pool(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """Halves the resolution behind a binomial blur (Zhang 2019, arXiv:1904.11486)."""
    return _with_pool(fer_net(**kwargs), BlurPool2d)


@register_model
def tiny_blur_pool(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """tiny_first that halves the resolution behind a blur."""
    return trial_blur_pool(**dict(TINY, **kwargs))


@register_model
def trial_one_conv(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """One convolution at full resolution."""
    return fer_net(stem_depth=1, **kwargs)


@register_model
def trial_attention(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """Blocks with squeeze-excitation."""
    return fer_net(attention=True, **kwargs)


@register_model
def trial_cbam(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """Blocks with CBAM."""
    return _with_attention(fer_net(**kwargs), CbamModule)


@register_model
def tiny_cbam(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """tiny_first with CBAM in place of squeeze-excitation."""
    return trial_cbam(**dict(TINY, **kwargs))


@register_model
def trial_wide(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """Half as many channels again."""
    return fer_net(stem_width=24, widths=(72, 144, 288), **kwargs)


@register_model
def trial_deep(pretrained: bool = False, **kwargs: Any) -> FerNet:
    """Three blocks a stage."""
    return fer_net(depths=(3, 3, 3), **kwargs)


class Pair(FerNet):
    """Two networks that learn side by side, from (B, 1, H, W) to (B, classes, 2); the first one is scored."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.peer = FerNet(**kwargs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        return torch.stack([logits, self.peer(x)], 2) if self.training else logits


@register_model
def trial_pair(pretrained: bool = False, **kwargs: Any) -> Pair:
    """Two of them, for co-teaching (arXiv:1804.06872)."""
    return create(Pair, "trial_pair", pretrained, **kwargs)


@register_model
def tiny_pair(pretrained: bool = False, **kwargs: Any) -> Pair:
    """Two of tiny_first, for co-teaching."""
    return trial_pair(**dict(TINY, **kwargs))


class ConvVit(VisionTransformer):
    """A vision transformer on 12x12 patches that convolutions make (Hassani et al., arXiv:2104.05704)."""

    def __init__(self, in_chans: int = 1, embed_dim: int = 192, **kwargs: Any) -> None:
        super().__init__(
            img_size=12,
            patch_size=1,
            in_chans=embed_dim,
            embed_dim=embed_dim,
            depth=7,
            num_heads=3,
            mlp_ratio=2,
            global_pool="avg",
            class_token=False,
            fc_norm=False,
            **kwargs,
        )
        self.convs = nn.Sequential(
            ConvNormAct(in_chans, embed_dim // 4, 3),
            nn.MaxPool2d(2),
            ConvNormAct(embed_dim // 4, embed_dim // 2, 3),
            nn.MaxPool2d(2),
            ConvNormAct(embed_dim // 2, embed_dim, 3),
        )
        self.score = nn.Linear(embed_dim, 1)

    def forward_features(self, x: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return super().forward_features(self.convs(x), **kwargs)

    def pool(self, x: torch.Tensor, pool_type: str | None = None) -> torch.Tensor:
        """The mean of the patches, weighed as the network learns to: (B, patches, C) -> (B, C)."""
        return (self.score(x).softmax(1) * x).sum(1)


@register_model
def trial_vit(pretrained: bool = False, **kwargs: Any) -> ConvVit:
    """A compact convolutional transformer of seven layers, 192 wide."""
    return build_model_with_cfg(ConvVit, "trial_vit", pretrained, **kwargs)
