"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): which places of a face speak for an expression.

A pure function over timm's `forward_features` and `forward_head`. There are no hooks, so a model can be
explained from many threads at once, and nothing is left behind in it.
"""

from __future__ import annotations

import torch
from torch import nn

# A map whose values all lie within this share of the face's strongest place shows nothing to the eye.
FLAT = 0.01


def gradcam(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of every image of a batch for every class.

    Each map is relu(sum_k w_k A_k), where A is the last feature map and w_k the mean over all places of the
    gradient of the class's logit with respect to A_k. May be called under `torch.no_grad` or
    `torch.inference_mode`.

    Args:
        model: Any timm-style convolutional classifier in eval mode: `forward_features` gives (B, D, h, w) and
            `forward_head` turns that into logits. No gradient of a parameter is computed.
        x: Model input (B, C, H, W).

    Returns:
        float32 (B, K, h, w), not negative, unscaled, at the resolution of the features.

    Raises:
        ValueError: The model has no such feature maps, is in training mode, or gives values that are not
            finite.
    """
    if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
        raise ValueError(
            f"Grad-CAM needs a model with forward_features and forward_head, as timm's have; "
            f"{type(model).__name__} has not."
        )
    if model.training:
        raise ValueError("Grad-CAM explains a model in eval mode: call model.eval() first.")
    # inference_mode(False): a caller's inference tensors and mode allow no gradient at all
    with torch.inference_mode(False), torch.no_grad():
        features = model.forward_features(x.clone() if x.is_inference() else x)
    if features.ndim != 4 or str(getattr(model, "output_fmt", "")).endswith("NHWC"):
        raise ValueError(
            f"Grad-CAM needs feature maps (B, D, h, w); {type(model).__name__} gives {tuple(features.shape)}."
        )
    with torch.inference_mode(False), torch.enable_grad():
        features = features.detach().requires_grad_()
        logits = model.forward_head(features)
        # The sum over the batch comes apart in the gradient: no logit depends on another image's features.
        gradients = [
            torch.autograd.grad(logits[:, c].sum(), features, retain_graph=True)[0].mean((2, 3))
            for c in range(logits.shape[1])
        ]
    weights = torch.stack(gradients, dim=1)
    maps = torch.einsum("bkd,bdhw->bkhw", weights.float(), features.detach().float()).relu()
    if not maps.isfinite().all():
        raise ValueError(
            "Grad-CAM met values that are not finite: the input or the model's weights hold NaN."
        )
    return maps


def scale_maps(maps: torch.Tensor) -> torch.Tensor:
    """Scale the maps of each face by the maximum over all its classes, so that its classes compare.

    Args:
        maps: (B, K, h, w), not negative.

    Returns:
        The same shape, 0..1; all zero where a face has no evidence for any class.
    """
    top = maps.amax(dim=(1, 2, 3), keepdim=True)
    return maps / top.clamp_min(torch.finfo(maps.dtype).tiny)


def flat_maps(maps: torch.Tensor) -> torch.Tensor:
    """Which maps point nowhere: no evidence for the class, or the same everywhere.

    Args:
        maps: (B, K, h, w) of all classes of each face, scaled or not.

    Returns:
        bool (B, K).
    """
    contrast = maps.amax((2, 3)) - maps.amin((2, 3))
    return contrast <= FLAT * maps.amax(dim=(1, 2, 3)).unsqueeze(1)
