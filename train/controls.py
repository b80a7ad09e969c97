"""Controls: the zoo's networks with one idea taken out, so that cross-validation can say what it brings.

They are registered for the scripts in this folder only, and are no part of the zoo.
"""

from typing import Any

from timm.layers.cbam import CbamModule
from timm.models import generate_default_cfgs, register_model
from torch import nn

from fer_zoo.models._base import cfg
from fer_zoo.models.fer_cbam import FerCbam, fer_cbam
from fer_zoo.models.fer_cnn import FerCnn, fer_kernel_cnn
from fer_zoo.models.layers import FixedKernels

__all__ = ["control_learnt_kernels", "control_no_attention"]

default_cfgs = generate_default_cfgs({f"{name}.untrained": cfg(name, hf_hub_id=None) for name in __all__})


@register_model
def control_learnt_kernels(pretrained: bool = False, **kwargs: Any) -> FerCnn:
    """fer_kernel_cnn, whose five filters are learnt like any others."""
    model = fer_kernel_cnn(**kwargs)
    model.stem = nn.Conv2d(1, FixedKernels.out_chs, 3, padding=1, bias=False)
    return model


@register_model
def control_no_attention(pretrained: bool = False, **kwargs: Any) -> FerCbam:
    """fer_cbam without its attention."""
    model = fer_cbam(**kwargs)
    for stage in model.stages:
        assert isinstance(stage[-1], CbamModule)
        stage[-1] = nn.Identity()
    return model
