"""From pictures to expressions: find the faces, cut them out, run the model on many at once."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, overload

import numpy as np
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HTTPError, LocalEntryNotFoundError
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from .errors import reason
from .faces import Detection, DetectorError, FaceDetector, crop_face, get_detector, square_face
from .gradcam import flat_maps, gradcam, scale_maps
from .images import ImageSource, load_image
from .models import ModelError, create_face_model, label_names
from .onnx_model import OnnxModel, as_onnx
from .preprocess import to_input
from .thresholds import sure_from

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

BACKENDS = ("torch", "onnx")

# Faces that go through the model at once, which bounds memory. The features of more do not fit into a CPU's
# caches: of 256, each takes 1.4 to 1.6 times as long as of 64.
BATCH_SIZE = {"cpu": 64, "cuda": 256}


@dataclass(frozen=True, eq=False)
class Face:
    """One face and what the model says of it.

    Attributes:
        box: Corners (x1, y1, x2, y2) in pixels of the upright picture; may reach beyond its borders.
        score: How sure the detector is that this is a face, 0..1.
        probs: Probability of every expression, in the order of the model's labels; they sum to 1.
        label: The most probable expression.
        confidence: Its probability.
        landmarks: (5, 2) pixels of eyes, nose tip and corners of the mouth, or None.
        crop: The square, RGB, that the model was given, in the picture's resolution.
        sure_from: The confidence, 0..1, below which an answer of this model is `unsure`.
    """

    box: tuple[float, float, float, float]
    score: float
    probs: dict[str, float]
    label: str
    confidence: float
    landmarks: np.ndarray | None
    crop: Image.Image
    sure_from: float = 0.0

    @property
    def unsure(self) -> bool:
        """Whether the confidence is below `sure_from`."""
        return self.confidence < self.sure_from

    @property
    def marked(self) -> str:
        """Its label, with a question mark where it is unsure."""
        return f"{self.label}?" if self.unsure else self.label

    def to_dict(self) -> dict[str, Any]:
        """Everything but the crop, as JSON can hold it."""
        return {
            "box": [round(value, 1) for value in self.box],
            "score": self.score,
            "label": self.label,
            "confidence": self.confidence,
            "unsure": self.unsure,
            "probs": dict(self.probs),
            "landmarks": None if self.landmarks is None else self.landmarks.astype(float).round(1).tolist(),
        }


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a face speaks for each expression.

    Attributes:
        maps: Expression -> (H, W) float32 at the size of the model's input, 0..1, where 1 is the strongest
            place of all expressions together, so that they compare.
        flat: The expressions whose map points nowhere: no place of this face speaks for them, or all alike.
    """

    maps: dict[str, np.ndarray]
    flat: frozenset[str]


class Recognizer:
    """Finds faces and names their expressions.

    A call changes nothing in the recogniser, so one may be used from many threads at once; it can be pickled
    for other processes.

    Attributes:
        model: The network.
        labels: Its classes, in order.
        sure_from: The confidence from which on at least 85 % of its answers on clean validation are right, by
            the labels that it learnt; 0 where that is not known, above 1 where none is enough. Below it a
            face is `unsure`. It may be set, for weights of your own.
        detector: What finds the faces.

    Args:
        model: A name ("fer_cbam", "fer_cbam.paper", or "hf-hub:owner/name"), a `.safetensors` or `.onnx` file
            of this project, or a timm-style model, which is put in eval mode. None: the best installed.
        faces: A detector's name ("auto", "yunet", "mtcnn", "whole") or an object with a `detect` method.
        device: Where the model runs, such as "cpu" or "cuda"; None leaves it where it is.
        backend: "torch", or "onnx" to run the network by onnxruntime, 1.5 to 3 times as fast for one face
            on a CPU; it is exported first, which takes seconds, and then cannot be explained. An `.onnx` file
            runs so in any case.

    Raises:
        ModelError: No such model, its weights cannot be had, or it has no names for its classes.
        DetectorError: No such detector, or it cannot be set up.
        ValueError: No such device or backend, or not this device with ONNX.
    """

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        *,
        faces: str | FaceDetector = "auto",
        device: str | torch.device | None = None,
        backend: str = "torch",
    ):
        if backend not in BACKENDS:
            raise ValueError(f"There is no backend '{backend}'; there are {' and '.join(BACKENDS)}.")
        model = default_model() if model is None else model
        self.model = load_model(model).eval()
        self.sure_from = sure_from(model)
        self.labels = label_names(self.model)
        if backend == "onnx":
            self.model = as_onnx(self.model)
        if device is not None:
            if isinstance(self.model, OnnxModel) and _device(device).type != "cpu":
                raise ValueError(f"An ONNX model runs on the CPU, not on '{device}': leave the device out.")
            self.model.to(_device(device))
        self.detector = get_detector(faces) if isinstance(faces, str) else faces
        if not hasattr(self.detector, "detect"):
            raise DetectorError(
                f"A face detector is a name or has a `detect` method, and {faces!r} has none."
            )

    @overload
    def __call__(self, images: ImageSource) -> list[Face]: ...

    @overload
    def __call__(self, images: Sequence[ImageSource]) -> list[list[Face]]: ...

    def __call__(self, images: ImageSource | Sequence[ImageSource]) -> list[Face] | list[list[Face]]:
        """Find and read all faces.

        Args:
            images: Whatever `load_image` reads, or a list or tuple of such. Arrays are RGB; OpenCV's are BGR
                and must be turned first.

        Returns:
            The faces of one image, largest first, or an empty list; for a list, one such list per image.

        Raises:
            ImageError: A picture cannot be read.
        """
        if not isinstance(images, (list, tuple)):
            return self([images])[0]
        owners, detections, crops = [], [], []
        for index, source in enumerate(images):
            rgb = np.asarray(load_image(source))
            for detection in sorted(self.detector.detect(rgb), key=lambda d: d.area, reverse=True):
                owners.append(index)
                detections.append(detection)
                crops.append(crop_face(rgb, detection))
        faces: list[list[Face]] = [[] for _ in images]
        for index, face in zip(owners, self.read(detections, crops), strict=True):
            faces[index].append(face)
        return faces

    def read(self, detections: Sequence[Detection], crops: Sequence[Image.Image]) -> list[Face]:
        """Read faces that were found and cut out before, in few batches.

        Args:
            detections: Where the faces are.
            crops: What `crop_face` cut out there, in the same order.

        Returns:
            One face for each, in order.
        """
        faces = []
        for detection, crop, probs in zip(detections, crops, self._probs(crops), strict=True):
            best = int(probs.argmax())
            face = Face(
                box=tuple(map(float, detection.box)),
                score=float(detection.score),
                probs=dict(zip(self.labels, probs.tolist(), strict=True)),
                label=self.labels[best],
                confidence=float(probs[best]),
                landmarks=detection.landmarks,
                crop=crop,
                sure_from=self.sure_from,
            )
            faces.append(face)
        return faces

    @overload
    def explain(self, faces: Face | ImageSource) -> Explanation: ...

    @overload
    def explain(self, faces: Sequence[Face | ImageSource]) -> list[Explanation]: ...

    def explain(
        self, faces: Face | ImageSource | Sequence[Face | ImageSource]
    ) -> Explanation | list[Explanation]:
        """Grad-CAM of every expression.

        Args:
            faces: A face that this recogniser found, or a picture that is one face; or a list of such.

        Returns:
            One explanation, or a list of them in order.

        Raises:
            ImageError: A picture cannot be read.
            ValueError: The model has no feature maps, or its values are not finite.
        """
        if not isinstance(faces, (list, tuple)):
            return self.explain([faces])[0]
        crops = [face.crop if isinstance(face, Face) else square_face(load_image(face)) for face in faces]
        explanations = []
        for x in self._batches(crops):
            maps = gradcam(self.model, x)
            flat = flat_maps(maps).tolist()
            maps = scale_maps(F.interpolate(maps, x.shape[2:], mode="bilinear")).cpu().numpy()
            for face_maps, face_flat in zip(maps, flat, strict=True):
                explanations.append(
                    Explanation(
                        maps=dict(zip(self.labels, face_maps, strict=True)),
                        flat=frozenset(compress(self.labels, face_flat)),
                    )
                )
        return explanations

    def _batches(self, crops: Sequence[Image.Image]):
        no_parameters = torch.empty(0, device="cpu", dtype=torch.float32)  # as ONNX models have them
        like = next(self.model.parameters(), no_parameters)
        size = BATCH_SIZE.get(like.device.type, 64)
        for start in range(0, len(crops), size):
            yield to_input(crops[start : start + size], self.model).to(like)

    def _probs(self, crops: Sequence[Image.Image]) -> np.ndarray:
        with torch.inference_mode():
            probs = [self.model(x).float().softmax(dim=1).cpu() for x in self._batches(crops)]
        return torch.cat(probs).numpy() if probs else np.empty((0, len(self.labels)), np.float32)


def load_model(model: str | Path | nn.Module) -> nn.Module:
    """Get a model with its weights from a name, a file or a module; see `Recognizer`.

    Weights lie channels last: safetensors wants them `.contiguous()` before it saves them.

    Raises:
        ModelError: It cannot be had; the message says what would work.
    """
    if isinstance(model, nn.Module):
        return model
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
    ours = not name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    if ours:
        known = timm.list_models("fer_*") + timm.list_models("fer_*", pretrained=True)
        if name not in known:
            raise ModelError(f"There is no model '{name}'; {_hint(name, known)}")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # the Hub's client, safetensors and timm raise a dozen kinds
        raise ModelError(f"The model '{name}' cannot be loaded: {_why(error)}.") from error
    trained = _trained_labels(name)
    if not (
        ours or trained or model.pretrained_cfg.get("label_names")
    ):  # seven may be others, or in any order
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
        raise ModelError(f"'{path}' does not name an architecture in its metadata, as train/package.py does.")
    try:
        labels = json.loads(metadata["label_names"])
        model = create_face_model(arch, labels=labels, input_size=int(metadata.get("input_size", 48)))
        model.load_state_dict(state)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"The weights in '{path}' do not fit the architecture {arch}.") from error
    return model


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError: a torch built without CUDA
        raise ValueError(f"The device '{device}' cannot be used here ({reason(error)}).") from error
