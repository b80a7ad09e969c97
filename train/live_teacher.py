"""A teacher that is asked anew in every step, about just the images that the student sees."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fer_zoo.labels import EXPRESSIONS
from fer_zoo.loading import load_model
from fer_zoo.models import ModelError, label_names
from train.files import weights_sha256

CPU_BATCH = 32  # a fifth faster than all 128 at once: the features stay in the caches


class LiveTeacher:
    """The mean probabilities of networks, which are never trained.

    They see each face turned, cut and damaged as their student does: a consistent teacher (Beyer et al. 2021,
    arXiv:2106.05237), where those of `train/teacher.py` judge the untouched image once and for all.

    Args:
        names: Networks as `Recognizer` takes them, such as "fer_net.fer2013".

    Attributes:
        digests: Of the networks' weights, which tell whether a run goes on with the teacher it began with.

    Raises:
        ModelError: There is no such network, or it knows other labels than FER2013's.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.networks = {name: _load(name) for name in names}
        self.digests = [weights_sha256(model, name) for name, model in self.networks.items()]

    def check(self, cfg: Mapping[str, Any]) -> None:
        """Refuses a student, of that pretrained cfg, that takes other images.

        Raises:
            ModelError: It does.
        """
        for name, model in self.networks.items():
            for key in ("input_size", "mean", "std"):
                if tuple(cfg[key]) != tuple(model.pretrained_cfg[key]):
                    raise ModelError(
                        f"{name} cannot teach this network: its {key} is {model.pretrained_cfg[key]} and not "
                        f"{cfg[key]}"
                    )

    def to(self, device: torch.device) -> "LiveTeacher":
        """Moves its networks to a device."""
        for model in self.networks.values():
            model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Probabilities, float32 (B, 7), of normalized images, float32 (B, 1, H, W)."""
        parts = x.split(CPU_BATCH) if x.device.type == "cpu" else [x]
        logits = [torch.cat([model(part) for part in parts]) for model in self.networks.values()]
        return torch.stack(logits).float().softmax(2).mean(0)


def _load(name: str) -> nn.Module:
    if name.endswith(".onnx"):
        raise ModelError(f"{name} cannot teach: give the weights that it was exported from")
    model = load_model(name).eval()
    if label_names(model) != EXPRESSIONS:
        raise ModelError(f"{name} cannot teach: it knows {', '.join(label_names(model))}")
    return model
