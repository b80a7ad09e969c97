"""How confident the zoo's models must be before an answer is called sure; `train/threshold.py` found it."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import timm
from torch import nn

from .models import WEIGHTS_DIR

FILE = WEIGHTS_DIR / "thresholds.json"


@cache
def thresholds() -> dict[str, dict[str, Any]]:
    """By name, "arch.tag": the `threshold`, 0..1, from which on answers on clean validation are right often
    enough by the `labels` that the weights learnt, "fer2013" or "ferplus", with the `precision` and the
    `coverage` that it has there, in percent; None where none does it."""
    return json.loads(FILE.read_bytes())["models"]


def sure_from(model: str | Path | nn.Module) -> float:
    """The confidence from which on a model's answer is sure.

    Args:
        model: A name of the zoo's, with or without a tag; others, files and modules are not known.

    Returns:
        0..1; 0 where the model is not known, 2 where it is right often enough at no confidence.
    """
    named = isinstance(model, str) and not model.endswith((".safetensors", ".onnx"))
    cfg = timm.get_pretrained_cfg(model) if named else None
    if cfg is None:
        return 0.0
    found = thresholds().get(f"{cfg.architecture}.{cfg.tag}", {"threshold": 0.0})["threshold"]
    return 2.0 if found is None else found
