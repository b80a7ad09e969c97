"""Models with their weights: by name, from a file, from the Hub or a folder as the Hub has them."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from .errors import reason
from .models import ModelError, create_face_model, label_names
from .onnx_model import OnnxModel

# The default is the first of these whose weights are installed.
PREFERRED = (
    "fer_net.ferplus",
    "fer_cbam.ferplus",
    "fer_net.fer2013",
    "fer_cbam.fer2013",
    "fer_resnet.fer2013",
    "fer_net_tiny.fer2013",
    "fer_kernel_cnn.fer2013",
    "fer_cnn.fer2013",
)

# What of a module's pretrained cfg is asked for to make its input.
CFG = {"input_size", "mean", "std", "interpolation"}


def load_model(model: str | Path | nn.Module) -> nn.Module:
    """Get a model with its weights from a name, a file or a module; see `Recognizer`.

    Weights lie channels last: safetensors wants them `.contiguous()` before it saves them.

    Raises:
        ModelError: It cannot be had; the message says what would work.
    """
    if isinstance(model, nn.Module):
        if missing := CFG - (getattr(model, "pretrained_cfg", None) or {}).keys():
            raise ModelError(
                f"{type(model).__name__} does not say what pictures it takes: its pretrained_cfg, a dict as "
                f"timm's models have it, lacks {', '.join(sorted(missing))}."
            )
        return model
    if not isinstance(model, (str, Path)):
        raise ModelError(f"A model is a name, a file or a timm-style module, not {model!r}.")
    if str(model).endswith(".onnx"):
        return OnnxModel(model)
    if isinstance(model, Path) or str(model).endswith(".safetensors"):
        loaded = _load_file(Path(model))
    else:
        loaded = _load_named(model)
    # so convolutions take a tenth to a half less time on a CPU
    return loaded.to(memory_format=torch.channels_last)


def _hint(name: str, known: Sequence[str]) -> str:
    """What may be meant by a name that is none."""
    if Path(name).suffix in (".pt", ".pth", ".bin", ".ckpt") or os.path.isfile(name):
        return "a model file ends in .safetensors or .onnx."
    if os.path.isdir(name):
        return f"a folder as the Hub has them is named 'local-dir:{name}'."
    if name.count("/") == 1 and name[0] not in "./~":
        return f"a model of the Hub is named 'hf-hub:{name}', a file ends in .safetensors or .onnx."
    if os.sep in name:
        return "a model file ends in .safetensors or .onnx."
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else "`fer-zoo models` lists them."


def default_model() -> str:
    """Name of the first preferred model whose weights are installed.

    Raises:
        ModelError: None is.
    """
    for name in PREFERRED:
        if timm.get_pretrained_cfg(name).file:
            return name
    raise ModelError("No model's weights are installed in fer_zoo/weights; name a model or a file.")


def _load_named(name: str) -> nn.Module:
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        known = timm.list_models("fer_*") + timm.list_models("fer_*", pretrained=True)
        if name not in known:
            raise ModelError(f"There is no model '{name}'; {_hint(name, known)}")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # the Hub's client, safetensors and timm raise a dozen kinds
        raise ModelError(f"The model '{name}' cannot be loaded: {_why(error)}.") from error
    trained = _trained_labels(name)
    if not (trained or model.pretrained_cfg.get("label_names")):  # seven may be others, or in any order
        raise ModelError(f"'{name}' has no names for its classes: its config.json needs label_names.")
    if trained and trained != label_names(model):
        raise ModelError(
            f"The config.json of '{name}' calls its classes {', '.join(label_names(model))}, "
            f"but its weights were trained with {', '.join(trained)}."
        )
    return model


def _why(error: Exception) -> str:
    """What is wrong with a repository, a folder or the way to the Hub, and what helps."""
    not_cached = isinstance(error, LocalEntryNotFoundError)
    cause = error.__cause__ if not_cached and error.__cause__ else error
    status = getattr(getattr(cause, "response", None), "status_code", None)
    if status in (401, 403, 404):
        return (
            f"the Hub ({status}) has no such repository, revision or file, or hides it from this token: "
            "check the name and HF_TOKEN"
        )
    if status == 429:
        return f"the Hub has had too many requests ({status}): wait some minutes"
    if status:
        return f"the Hub is at fault ({status}): try again later"
    if not_cached:
        return f"it is not in the cache, and the Hub cannot be reached ({reason(cause)})"
    if isinstance(error, HTTPError):
        return f"the connection to the Hub broke off ({reason(error)}): try again"
    if isinstance(error, SafetensorError):
        return f"its model.safetensors is damaged ({reason(error)})"
    if isinstance(error, json.JSONDecodeError):
        return f"its config.json is damaged ({reason(error)})"
    return reason(error)


def _trained_labels(name: str) -> tuple[str, ...]:
    """The labels in the metadata of a loaded repository's or folder's weights; empty where there are none."""
    scheme, _, place = name.partition(":")
    if scheme == "local-dir":
        path = Path(place) / "model.safetensors"
    else:
        repo, _, revision = place.partition("@")
        path = try_to_load_from_cache(repo, "model.safetensors", revision=revision or None) if repo else None
    if not isinstance(path, (str, Path)) or not Path(path).is_file():
        return ()
    with safe_open(path, framework="pt") as file:
        return tuple(json.loads((file.metadata() or {}).get("label_names", "[]")))


def _folder_hint(folder: Path) -> str:
    """What to name in place of a file in it, if it is a folder as the Hub has them."""
    try:
        on_hub = "architecture" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        on_hub = False
    return f"; its folder is read as 'local-dir:{folder}'" if on_hub else ""


def _load_file(path: Path) -> nn.Module:
    if not os.path.isfile(path):  # Path.is_file raises where a name is too long
        raise ModelError(f"There is no model file '{path}'.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"'{path}' is not a safetensors file that can be read ({reason(error)}).") from error
    arch = metadata.get("architecture", "")
    if not timm.is_model(arch):
        raise ModelError(
            f"'{path}' does not name an architecture in its metadata, as files of train/package.py do"
            f"{_folder_hint(path.parent)}."
        )
    try:
        labels = json.loads(metadata["label_names"])
        model = create_face_model(arch, labels=labels, input_size=int(metadata.get("input_size", 48)))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"The weights in '{path}' do not fit the architecture {arch}.") from error
    return model
