"""Networks by name: the zoo's own, and any other model of timm, brought to gray faces."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_zoo.errors import reason
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.models import ModelError, create_face_model
from train import controls, trials  # noqa: F401, registers them
from train.run_dir import finished, read_weights


def check_name(name: str) -> None:
    """Refuses names that timm does not know.

    Raises:
        ModelError: The message has the nearest names.
    """
    arch = name.partition(".")[0]
    if not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=3)
        zoo = ", ".join(timm.list_models("fer_*"))
        hint = f"did you mean {' or '.join(near)}?" if near else f"the zoo has {zoo}"
        raise ModelError(f"no model {name!r}: {hint}")
    tagged = timm.list_models(f"{arch}.*", pretrained=True)
    if "." in name and name not in tagged:
        raise ModelError(f"no weights {name!r}: {arch} has {', '.join(tagged) or 'none'}")


def create_network(
    name: str,
    *,
    pretrained: bool = False,
    labels: Sequence[str] = EXPRESSIONS,
    input_size: int | None = None,
    **kwargs: object,
) -> nn.Module:
    """A timm model for gray faces, whose pretrained cfg says what it takes.

    Args:
        name: Any of timm's names, with or without a tag.
        pretrained: Start from the named weights; a head of other labels starts anew.
        labels: The classes.
        input_size: Height and width in pixels; None is 48, or what a model of fixed size takes.
        kwargs: For the model, such as `drop_rate`; None leaves its default.

    Raises:
        ModelError: No such model or weights, or the model cannot take such images.
    """
    check_name(name)
    known = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if pretrained and not known.has_weights:
        raise ModelError(f"{name} has no pretrained weights")
    size = input_size or 48
    if known.fixed_input_size and input_size is None and known.input_size[1] != size:
        fixed = known.input_size[1]
        raise ModelError(f"{name} takes images of {fixed}x{fixed} pixels: add --input-size {fixed}")
    try:
        model = create_face_model(name, labels=labels, input_size=size, pretrained=pretrained, **kwargs)
    except Exception as error:  # the Hub's client, safetensors and timm raise a dozen kinds
        what = "weights of " if pretrained else ""
        raise ModelError(f"the {what}model {name!r} cannot be had: {reason(error)}") from error
    check_size(name, model, (size, size), f"try --input-size {2 * size}")
    return model


def network_of(run_dir: Path) -> nn.Module:
    """The network of a finished run, with the weights of its best epoch.

    Raises:
        RunError: It is not finished, or its weights are damaged.
        ModelError: timm no longer has such a model.
    """
    config, _ = finished(run_dir)
    model = create_network(config["model"], labels=config["label_names"], input_size=config["input_size"])
    model.load_state_dict(read_weights(run_dir))
    return model


def check_size(name: str, model: nn.Module, size: tuple[int, int], hint: str) -> None:
    """Refuses images that a network cannot take.

    Args:
        name: Of the network.
        model: On the CPU, for gray images; afterwards in training mode.
        size: Height and width in pixels.
        hint: What to do then, for the message.

    Raises:
        ModelError: It cannot.
    """
    height, width = size
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 1, height, width))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ModelError(
            f"{name} cannot take images of {width}x{height} pixels ({reason(error)}): {hint}"
        ) from error
    model.train()


def size_of(model: nn.Module, faces: torch.Tensor) -> dict:
    """How large a network is: its `parameters`, and `gmacs`, 1e9 multiply-adds, a face.

    Args:
        model: In eval mode.
        faces: float32 (N, 1, H, W).
    """
    with torch.inference_mode(), FlopCounterMode(display=False) as flops:
        model(faces)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gmacs": flops.get_total_flops() / 2 / len(faces) / 1e9,
    }
