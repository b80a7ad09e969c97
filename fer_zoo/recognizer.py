"""From pictures to expressions: find the faces, cut them out, run the model on many at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from .errors import reason
from .faces import Detection, DetectorError, FaceDetector, crop_face, get_detector, square_face
from .gradcam import flat_maps, gradcam, scale_maps
from .images import ImageSource, load_image
from .loading import default_model, load_model
from .models import ModelError, label_names
from .onnx_model import OnnxModel, as_onnx
from .preprocess import to_input
from .thresholds import sure_from

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
        landmarks: (5, 2) pixels of eyes, nose tip and corners of the mouth, or None.
        crop: The square, RGB, that the model was given, in the picture's resolution.
        sure_from: The confidence, 0..1, below which an answer of this model is `unsure`.
    """

    box: tuple[float, float, float, float]
    score: float
    probs: dict[str, float]
    landmarks: np.ndarray | None
    crop: Image.Image
    sure_from: float = 0.0

    @property
    def label(self) -> str:
        """The most probable expression."""
        return max(self.probs, key=self.probs.get)

    @property
    def confidence(self) -> float:
        """Its probability."""
        return self.probs[self.label]

    @property
    def unsure(self) -> bool:
        """Whether the confidence is below `sure_from`."""
        return self.confidence < self.sure_from

    @property
    def marked(self) -> str:
        """Its label, with a question mark where it is unsure."""
        return f"{self.label}?" if self.unsure else self.label

    def to_dict(self) -> dict[str, Any]:
        """Everything but the crop and `sure_from`, as JSON can hold it."""
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
        backend: "torch", or "onnx" to run the network by onnxruntime, 1.6 to 3.3 times as fast for one face
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
            images: Whatever `load_image` reads, or a sequence of such. Arrays are RGB; OpenCV's are BGR
                and must be turned first.

        Returns:
            The faces of one image, largest first, or an empty list; for a sequence, one such list per image.

        Raises:
            ImageError: A picture cannot be read.
            ModelError: The network's values are not finite.
        """
        if not _are_many(images):
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

        Raises:
            ModelError: The network's values are not finite.
        """
        faces = []
        for detection, crop, probs in zip(detections, crops, self._probs(crops), strict=True):
            face = Face(
                box=tuple(map(float, detection.box)),
                score=float(detection.score),
                probs=dict(zip(self.labels, probs.tolist(), strict=True)),
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
            faces: A face that this recogniser found, or a picture that is one face; or a sequence of such.

        Returns:
            One explanation, or a list of them in order.

        Raises:
            ImageError: A picture cannot be read.
            ValueError: The model has no feature maps, or its values are not finite.
        """
        if not _are_many(faces):
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
        found = torch.cat(probs) if probs else torch.empty(0, len(self.labels))
        if not found.isfinite().all():  # the most probable would be whichever comes first
            raise ModelError(
                "The model's values are not finite: its training diverged or its file is damaged."
            )
        return found.numpy()


def _are_many(images: object) -> bool:
    return isinstance(images, Sequence) and not isinstance(images, (str, bytes, bytearray))


def _device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:  # AssertionError: a torch built without CUDA
        raise ValueError(f"The device '{device}' cannot be used here ({reason(error)}).") from error
