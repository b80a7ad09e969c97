"""What every architecture of the zoo has in common: timm's model contract and the pretrained configs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, checkpoint_seq
from timm.models._features import feature_take_indices
from torch import nn

from ..labels import EXPRESSIONS
from .layers import create_luma

WEIGHTS_DIR = Path(__file__).resolve().parent.parent / "weights"
HUB_ORG = "fer-zoo"


class FaceNet(nn.Module):
    """Luma, stem, three stages, head, with timm's whole model contract on top.

    A subclass hands over its parts; this class only runs them. Every stage ends in a feature map that
    `feature_info` describes, and the last one is what `forward_features` returns.

    Args:
        stem: From gray (B, 1, H, W) to the first stage's input.
        stages: Three modules, run in order.
        head: `(x, pre_logits)` -> logits, with `num_features` and `reset(num_classes, pool_type)`.
        stage_chs: Channels of the three stages' outputs.
        reductions: Input size over feature-map size of the three stages.
        num_classes: Width of the classifier; 0 for none.
        in_chans: 1 for gray, 3 for RGB through a fixed luma.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        head: nn.Module,
        stage_chs: Sequence[int],
        reductions: Sequence[int],
        num_classes: int,
        in_chans: int,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = stage_chs[-1]
        self.head_hidden_size = head.num_features
        self.grad_checkpointing = False
        self.feature_info = [
            dict(num_chs=chs, reduction=reduction, module=f"stages.{i}")
            for i, (chs, reduction) in enumerate(zip(stage_chs, reductions, strict=True))
        ]
        self.luma = create_luma(in_chans)
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        stage, layer = r"^stages\.(\d+)", r"^stages\.(\d+)\.(\d+)"
        # a stage may be one block, without numbered layers
        return dict(stem=r"^stem", blocks=stage if coarse else [(layer, None), (stage, None)])

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.grad_checkpointing = enable

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """Forward features that also returns the outputs of the stages named by `indices`.

        Args:
            x: Input (B, in_chans, H, W).
            indices: The last n stages if int, all if None, else these.
            norm: Unused: no model here ends in a norm.
            stop_early: Skip the stages after the last one asked for.
            output_fmt: "NCHW".
            intermediates_only: Return the list alone.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt must be 'NCHW', not {output_fmt!r}")
        take_indices, max_index = feature_take_indices(len(self.stages), indices)
        intermediates = []
        x = self.stem(self.luma(x))
        for i, stage in enumerate(self.stages[: max_index + 1] if stop_early else self.stages):
            x = stage(x)
            if i in take_indices:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages after the last one asked for, and the head: the model then returns a feature map.

        Args:
            indices: As in `forward_intermediates`.
            prune_norm: Unused.
            prune_head: False keeps the head where no stage is dropped: it is sized for the last one.

        Returns:
            The kept indices.
        """
        take_indices, max_index = feature_take_indices(len(self.stages), indices)
        if prune_head or max_index < len(self.stages) - 1:
            self.num_classes = 0
            self.num_features = self.head_hidden_size = self.feature_info[max_index]["num_chs"]
            self.head = ClassifierHead(self.num_features, 0, pool_type="")
        self.stages = self.stages[: max_index + 1]
        return take_indices

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(self.luma(x))
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.stages, x)
        return self.stages(x)

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def cfg(name: str, **kwargs: Any) -> dict[str, Any]:
    """Pretrained config of the weights `name` ("arch.tag"): the packaged file if there is one, else the Hub.

    timm never falls back from a missing `file` to the Hub, hence the question whether it is there.
    """
    file = WEIGHTS_DIR / f"{name}.safetensors"
    common = dict(
        file=str(file) if file.is_file() else None,
        hf_hub_id=f"{HUB_ORG}/{name}",
        num_classes=len(EXPRESSIONS),
        label_names=EXPRESSIONS,
        input_size=(1, 48, 48),
        fixed_input_size=True,
        crop_pct=1.0,
        interpolation="bilinear",
        mean=(0.5,),
        std=(0.5,),
        first_conv=None,
        classifier="head.fc",
        license="apache-2.0",
    )
    return common | kwargs


def create(model_cls: type[FaceNet], variant: str, pretrained: bool, **kwargs: Any) -> FaceNet:
    """timm's builder with the feature levels of this zoo."""
    feature_cfg = dict(out_indices=(0, 1, 2), flatten_sequential=True)
    return build_model_with_cfg(model_cls, variant, pretrained, feature_cfg=feature_cfg, **kwargs)
