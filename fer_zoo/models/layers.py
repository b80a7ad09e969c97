"""Layers that several architectures share."""

import torch
import torch.nn.functional as F
from torch import nn

# Sobel x, Sobel y, Laplacian, sharpen, emboss, each scaled so that a unit step answers with about one.
# Sharpen plus four times the Laplacian is the image itself, so the five maps lose nothing of it.
KERNELS = (
    ((-0.25, 0.0, 0.25), (-0.5, 0.0, 0.5), (-0.25, 0.0, 0.25)),
    ((-0.25, -0.5, -0.25), (0.0, 0.0, 0.0), (0.25, 0.5, 0.25)),
    ((0.0, 0.25, 0.0), (0.25, -1.0, 0.25), (0.0, 0.25, 0.0)),
    ((0.0, -1.0, 0.0), (-1.0, 5.0, -1.0), (0.0, -1.0, 0.0)),
    ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0)),
)

# ITU-R 601, the weights of PIL's mode "L".
LUMA = (0.299, 0.587, 0.114)


class Luma(nn.Module):
    """RGB to gray inside the network: (B, 3, H, W) -> (B, 1, H, W).

    The weights sum to one and all channels share mean and std, so a gray image given as RGB keeps its logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(1, 3, 1, 1), persistent=False)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """timm's hook, for loaders such as transformers' that build a model without memory."""
        self.weight.copy_(torch.tensor(LUMA).view(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.weight).sum(1, keepdim=True)


def create_luma(in_chans: int) -> nn.Module:
    """First child of every model: nothing for gray input, a fixed luma for RGB.

    Raises:
        ValueError: `in_chans` is neither 1 nor 3.
    """
    if in_chans not in (1, 3):
        raise ValueError(f"in_chans must be 1 (gray) or 3 (RGB), not {in_chans}")
    return Luma() if in_chans == 3 else nn.Identity()


class FixedKernels(nn.Module):
    """The five edge and shape filters of `KERNELS`, never trained: (B, 1, H, W) -> (B, 5, H, W)."""

    out_chs = len(KERNELS)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(self.out_chs, 1, 3, 3), persistent=False)
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """timm's hook, as in `Luma`."""
        self.weight.copy_(torch.tensor(KERNELS).unsqueeze(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, self.weight, padding=1)


class FlattenHead(nn.Module):
    """Pool, flatten, one hidden layer, classifier: (B, C, H, W) -> (B, num_classes).

    Args:
        in_chs: Channels of the feature map.
        feat_size: Height and width of the feature map; both even.
        hidden_size: Width of the hidden layer.
        num_classes: Width of the classifier; 0 for none.
        drop_rate: Dropout after the pool and before the classifier.
        pool_type: "flatten" or "", since this head flattens.
    """

    def __init__(
        self,
        in_chs: int,
        feat_size: tuple[int, int],
        hidden_size: int,
        num_classes: int,
        drop_rate: float,
        pool_type: str = "flatten",
    ) -> None:
        super().__init__()
        self.num_features = hidden_size
        self.pool = nn.MaxPool2d(2)
        self.flatten = nn.Flatten()
        self.drop1 = nn.Dropout(drop_rate)
        self.hidden = nn.Linear(in_chs * (feat_size[0] // 2) * (feat_size[1] // 2), hidden_size)
        self.act = nn.ReLU()
        self.drop2 = nn.Dropout(drop_rate)
        self.reset(num_classes, pool_type)

    def reset(self, num_classes: int, pool_type: str | None = None) -> None:
        """Replaces the classifier; `pool_type` may be None, "" or "flatten", since this head flattens."""
        if pool_type not in (None, "", "flatten"):
            raise ValueError(f"this head flattens its features: global_pool={pool_type!r} cannot apply")
        like = dict(device=self.hidden.weight.device, dtype=self.hidden.weight.dtype)
        self.fc = nn.Linear(self.num_features, num_classes, **like) if num_classes > 0 else nn.Identity()

    def forward(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        x = self.drop1(self.flatten(self.pool(x)))  # (B, C * H/2 * W/2)
        x = self.drop2(self.act(self.hidden(x)))  # (B, hidden_size)
        return x if pre_logits else self.fc(x)
