"""Any model of timm, brought to gray faces and to classes with names."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import nn

from ..labels import EXPRESSIONS


class ModelError(ValueError):
    """A model cannot be had or does not read expressions; the message is one sentence."""


def create_face_model(
    name: str, *, labels: Sequence[str] = EXPRESSIONS, input_size: int = 48, **kwargs: Any
) -> nn.Module:
    """A timm model whose pretrained cfg says what faces it takes and what its classes are called.

    Args:
        name: Any of timm's names.
        labels: The classes.
        input_size: Height and width in pixels.
        kwargs: For `timm.create_model`.

    Returns:
        A model of one channel. Where its own cfg has three, mean and std are their averages: timm then sums
        the first convolution's weights over its channels. Images of another size are resized bilinearly, as
        for its training.

    Raises:
        Exception: Whatever timm raises for a name, weights or a size that it cannot provide.
    """
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if known.fixed_input_size and known.input_size[1] != input_size:
        kwargs["img_size"] = (input_size, input_size)
    model = timm.create_model(name, in_chans=1, num_classes=len(labels), **kwargs)
    if kwargs.get("pretrained") and known.num_classes == len(labels):
        sort_classifier(model, tuple(known.label_names or ()), labels)
    mean, std = (sum(model.pretrained_cfg[key]) / len(model.pretrained_cfg[key]) for key in ("mean", "std"))
    model.pretrained_cfg = model.pretrained_cfg | {
        "input_size": (1, input_size, input_size),
        "mean": (mean,),
        "std": (std,),
        "interpolation": "bilinear",
        "num_classes": len(labels),
        "label_names": tuple(labels),
    }
    return model


def sort_classifier(model: nn.Module, learnt: tuple[str, ...], labels: Sequence[str]) -> None:
    """Puts the rows of a classifier that learnt some classes in the order of `labels`, or starts it anew.

    Args:
        model: With a classifier of as many classes as labels.
        learnt: What these are called; nothing if nobody knows.
        labels: What they are to be.

    Raises:
        ModelError: They have to be sorted, and the classifier is not one layer.
    """
    if learnt == tuple(labels):
        return
    if set(learnt) != set(labels):
        model.reset_classifier(len(labels))
        return
    classifier = model.get_classifier()
    if not isinstance(classifier, nn.Linear | nn.Conv2d):
        order = ", ".join(learnt)
        raise ModelError(f"The labels of {type(model).__name__} can only be in the order {order}.")
    rows = torch.tensor([learnt.index(label) for label in labels])
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.copy_(parameter[rows])


def label_names(model: nn.Module) -> tuple[str, ...]:
    """What a model's classes are called: its pretrained cfg says, else seven are the expressions.

    Raises:
        ModelError: It has another number of classes than of names.
    """
    labels = tuple(getattr(model, "pretrained_cfg", {}).get("label_names") or ())
    count = getattr(model, "num_classes", None)
    if not labels and count == len(EXPRESSIONS):
        return EXPRESSIONS
    if not labels or len(labels) != count:
        raise ModelError(
            f"{type(model).__name__} has {count} classes and {len(labels)} names for them; a model of "
            f"expressions has {len(EXPRESSIONS)} classes, or pretrained_cfg['label_names'] for all it has."
        )
    return labels
