"""Models as ONNX files: written from PyTorch, quantised to int8, and run by onnxruntime without any of it."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from .files import atomic
from .models import ModelError, label_names
from .preprocess import to_input

# What of the pretrained cfg travels in the file's metadata, as JSON: what the model's input and output mean.
META = ("input_size", "mean", "std", "interpolation", "label_names", "architecture")

INPUT, OUTPUT = "image", "logits"
CALIBRATION_BATCH = 64


def export_onnx(model: nn.Module, file: str | Path) -> None:
    """Write a model as ONNX: input `image`, float32 (B, C, H, W) for any B, output `logits` (B, classes).

    Args:
        model: A timm-style model; it is put in eval mode.
        file: The file to write; its metadata say what `OnnxModel` needs.

    Raises:
        ModelError: The extra "onnx" is not installed, the file cannot be written, or the model is ONNX
            already or has no names for its classes.
    """
    if isinstance(model, OnnxModel):
        raise ModelError("This model is ONNX already: copy its file.")
    _write(_to_bytes(model), file)


def as_onnx(model: nn.Module) -> OnnxModel:
    """A model to be run by onnxruntime from now on; one that is so already stays as it is.

    Raises:
        ModelError: The extra "onnx" is not installed, or the model has no names for its classes.
    """
    return model if isinstance(model, OnnxModel) else OnnxModel(_to_bytes(model))


def quantize_onnx(source: str | Path, file: str | Path, faces: Sequence[Image.Image | np.ndarray]) -> None:
    """Write an int8 twin of an exported model: weights and activations in 8 bits, by static quantisation.

    Args:
        source: What `export_onnx` wrote.
        file: The file to write.
        faces: A hundred or more faces, to measure the ranges of the activations on.

    Raises:
        ModelError: The extra "onnx" is not installed, a file cannot be read or written, or it has 8 bits
            already.
    """
    onnx, quantization = _module("onnx"), _module("onnxruntime.quantization")
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = OnnxModel(source)
    if any(node.op_type == "QuantizeLinear" for node in onnx.load(source).graph.node):
        raise ModelError(f"'{source}' has 8 bits already.")
    starts = range(0, len(faces), CALIBRATION_BATCH)
    batches = iter(
        {INPUT: to_input(faces[start : start + CALIBRATION_BATCH], model).numpy()} for start in starts
    )

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        prepared, written = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        # Unsigned, for signed weights saturate on CPUs without VNNI, which cost up to 5 points there, and
        # signed activations keep a ReLU out of the convolution before it, which then runs in float32.
        unsigned = quantization.QuantType.QUInt8
        quantization.quantize_static(
            prepared, written, Reader(), per_channel=True, activation_type=unsigned, weight_type=unsigned
        )
        proto = onnx.load(written)
    _set_meta(proto, model.pretrained_cfg)
    _write(proto.SerializeToString(), file)


class OnnxModel(nn.Module):
    """An exported model in the place of a PyTorch one: the same call, the same `pretrained_cfg`.

    It can be asked for logits from many threads at once. It has no gradients, so nothing explains it.

    Args:
        file: The path of an ONNX file of this project, or its bytes.

    Raises:
        ModelError: It cannot be read, is not one of this project, or onnxruntime is not installed.
    """

    def __init__(self, file: str | Path | bytes) -> None:
        super().__init__()
        self._file = file if isinstance(file, bytes) else os.path.abspath(file)
        name = "This" if isinstance(file, bytes) else f"'{file}'"
        runtime = _module("onnxruntime")
        if not isinstance(file, bytes) and not os.path.isfile(file):
            raise ModelError(f"There is no model file '{file}'.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = runtime.InferenceSession(
                file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a dozen kinds, all of them of its own
            raise ModelError(f"{name} is not an ONNX file that can be read.") from error
        meta = self.session.get_modelmeta().custom_metadata_map
        if not set(META) <= meta.keys():
            raise ModelError(f"{name} does not say what faces it takes, as ONNX files of fer-zoo do.")
        self.pretrained_cfg: dict[str, Any] = {key: json.loads(meta[key]) for key in META}
        self.in_chans = self.pretrained_cfg["input_size"][0]
        self.num_classes = len(self.pretrained_cfg["label_names"])

    def __reduce__(self) -> tuple:
        return OnnxModel, (self._file,)  # onnxruntime's session cannot go to another process

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (B, C, H, W) on the CPU -> logits, float32 (B, classes)."""
        (logits,) = self.session.run([OUTPUT], {INPUT: x.numpy()})
        return torch.from_numpy(logits)


_MISSING = 'ONNX needs packages that are not installed: pip install "fer-zoo[onnx]".'


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(_MISSING) from error


def _write(content: bytes, file: str | Path) -> None:
    with atomic(file, ModelError) as partial:
        partial.write_bytes(content)


def _to_bytes(model: nn.Module) -> bytes:
    _module("onnxscript")
    cfg = model.pretrained_cfg | {"label_names": label_names(model)}
    x = torch.zeros(2, getattr(model, "in_chans", cfg["input_size"][0]), *cfg["input_size"][1:])
    # the exporter speaks of its own inner life on every channel it finds
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            (x.to(next(model.parameters()).device),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )
    proto = program.model_proto
    _set_meta(proto, {key: cfg.get(key) for key in META} | {"input_size": tuple(x.shape[1:])})
    return proto.SerializeToString()


def _set_meta(proto: Any, meta: dict[str, Any]) -> None:
    _module("onnx").helper.set_model_props(proto, {key: json.dumps(value) for key, value in meta.items()})
