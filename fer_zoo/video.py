"""From a clip to its faces over time: an annotated clip, a table, and a timeline to plot."""

from __future__ import annotations

import csv as csv_format
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from .drawing import draw_faces
from .faces import Detection, FaceDetector, crop_face, detect_reduced
from .files import atomic
from .recognizer import Recognizer
from .tracking import Track, Tracker, match_boxes
from .video_io import Frame, Limits, VideoError, VideoReader, VideoSource, VideoWriter

__all__ = ["Limits", "Point", "Timeline", "VideoError", "analyze_video", "track_faces"]

# Faces are searched for this often; in between they are taken to move evenly, which bounds the frames that
# wait, too, whatever a clip's rate.
DETECT_SECONDS = 0.16
MAX_WAITING = 8

# Longer side of the copy that faces are searched in. What MTCNN misses there is under 4 % of that side, which
# is 48 pixels of a 720p frame: hardly more than the models' own input.
DETECT_SIDE = 640

# A timeline thins itself out beyond so many points.
MAX_POINTS = 4000


@dataclass(frozen=True)
class Point:
    """A face at one time.

    Attributes:
        frame: The frame's number, from 0.
        seconds: Its time.
        face: The face's number, from 1.
        box: Corners (x1, y1, x2, y2) in pixels.
        label: The most probable expression.
        confidence: Its probability.
        unsure: Whether the confidence is below what the model is sure from.
        probs: Probability of every expression, smoothed; they sum to 1.
    """

    frame: int
    seconds: float
    face: int
    box: tuple[float, float, float, float]
    label: str
    confidence: float
    unsure: bool
    probs: dict[str, float]


@dataclass
class Timeline:
    """The faces of a clip over time, of limited size whatever the clip's length.

    Attributes:
        frames: How many the clip has.
        seconds: Time of its last frame.
        faces: How many faces were told apart.
        points: Every face of every `stride`-th frame.
        stride: 1, or a power of two in long clips.
    """

    frames: int = 0
    seconds: float = 0.0
    faces: int = 0
    stride: int = 1
    points: list[Point] = field(default_factory=list)

    def add(self, seconds: float, tracks: Iterable[Track]) -> None:
        """Append a frame."""
        for track in tracks:
            self.faces = max(self.faces, track.number)
            if self.frames % self.stride == 0:
                face = track.face
                verdict = face.label, face.confidence, face.unsure, face.probs
                self.points.append(Point(self.frames, seconds, track.number, face.box, *verdict))
        self.frames, self.seconds = self.frames + 1, seconds
        if len(self.points) > MAX_POINTS:
            self.stride *= 2
            self.points = [point for point in self.points if point.frame % self.stride == 0]


def analyze_video(
    source: VideoSource,
    recognizer: Recognizer,
    *,
    out: str | Path | None = None,
    csv: str | Path | None = None,
    limits: Limits | None = None,
    smoothing: float = 0.6,
    progress: Callable[[float], None] | None = None,
) -> Timeline:
    """Read the expressions of all faces of a clip; memory does not grow with its length.

    Args:
        source: A path, or a binary file that can seek: mp4, mov, webm, mkv, avi or MPEG-TS.
        recognizer: Finds and reads the faces.
        out: Where to write the clip with its faces drawn in, an `.mp4` (H.264, with the clip's sound if it is
            AAC, MP3 or Opus).
        csv: Where to write a table with a row per face and frame: frame (from 0), seconds, face (its number),
            x1, y1, x2, y2, score, label, confidence, unsure and the probability of every expression.
        limits: What the clip may hold; by default frames of up to 3840x2160 pixels, of any length.
        smoothing: Of the probabilities; see `Tracker`.
        progress: Called with the share that is done, 0..1.

    Returns:
        The timeline. Files that could not be completed are not left behind.

    Raises:
        VideoError: The clip cannot be read, is over a limit, or a file cannot be written, or would be over
            another one.
        ValueError: The smoothing is out of range.
    """
    if out is not None and Path(out).suffix.lower() != ".mp4":
        raise VideoError(f"'{out}' cannot be written: the name of an annotated clip ends in .mp4.")
    named = source if isinstance(source, (str, Path)) else getattr(source, "name", None)
    files = [Path(file).resolve() for file in (named, out, csv) if isinstance(file, (str, Path))]
    if len(set(files)) < len(files):
        raise VideoError("The clip, its annotated copy and its table must be files of different names.")
    timeline, tracker = Timeline(), Tracker(smoothing)
    with ExitStack() as stack:
        reader = stack.enter_context(VideoReader(source, limits))
        writer = rows = None
        if out is not None:
            writer = stack.enter_context(VideoWriter(stack.enter_context(atomic(out, VideoError)), reader))
        if csv is not None:
            file = stack.enter_context(atomic(csv, VideoError)).open("w", newline="", encoding="utf-8")
            rows = csv_format.writer(stack.enter_context(file), lineterminator="\n")
            columns = ("frame", "seconds", "face", "x1", "y1", "x2", "y2", "score", "label", "confidence")
            rows.writerow([*columns, "unsure", *recognizer.labels])
        frames = reader.frames(on_sound=writer and writer.write_sound)
        for frame, tracks in track_faces(frames, recognizer, tracker):
            if rows:
                rows.writerows(_row(timeline.frames, frame.seconds, track) for track in tracks)
            timeline.add(frame.seconds, tracks)
            if writer:
                image = Image.fromarray(frame.rgb)
                drawn = draw_faces(image, tracks, max(image.size)) if tracks else image
                writer.write(replace(frame, rgb=np.asarray(drawn)))
            if progress:
                progress(reader.progress)
    if progress:
        progress(1.0)
    return timeline


def track_faces(
    frames: Iterable[Frame], recognizer: Recognizer, tracker: Tracker
) -> Iterator[tuple[Frame, list[Track]]]:
    """Find, read and follow the faces of frames that follow each other.

    The detector sees a frame every `DETECT_SECONDS`; between two that it has seen, a face moves from its
    place in the one to its place in the other. Every face of every frame is read by the model.

    Args:
        frames: The frames; a few of them are read ahead.
        recognizer: Finds and reads the faces.
        tracker: Knows them again; it is changed.

    Yields:
        Every frame and its faces, the largest first.
    """
    last: tuple[float, list[Detection]] | None = None
    for waiting in _groups(frames):
        seconds, found = waiting[-1].seconds, _detect(recognizer.detector, waiting[-1].rgb)
        pairs = sorted(match_boxes(last[1], found), key=lambda pair: pair[1]) if last else []
        moving = [(last[1][i], found[j]) for i, j in pairs]  # in the order of `found`: the largest first
        detections = []
        for frame in waiting[:-1]:
            share = (frame.seconds - last[0]) / (seconds - last[0])
            detections.append([_between(a, b, share) for a, b in moving])
        detections.append(found)
        last = seconds, found
        crops = [
            crop_face(frame.rgb, d) for frame, inside in zip(waiting, detections, strict=True) for d in inside
        ]
        faces = iter(recognizer.read([d for inside in detections for d in inside], crops))
        for frame, inside in zip(waiting, detections, strict=True):
            yield frame, tracker.update([next(faces) for _ in inside], frame.seconds)


def _groups(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """The first frame, then those from one frame with a search to the next, which is their last."""
    waiting: list[Frame] = []
    searched = -math.inf
    for frame in frames:
        waiting.append(frame)
        if frame.seconds - searched >= DETECT_SECONDS or len(waiting) == MAX_WAITING:
            yield waiting
            waiting, searched = [], frame.seconds
    if waiting:
        yield waiting


def _detect(detector: FaceDetector, rgb: np.ndarray) -> list[Detection]:
    """Search a reduced copy; the largest face first."""
    found = detect_reduced(detector, rgb, DETECT_SIDE / max(rgb.shape[:2]))
    return sorted(found, key=lambda detection: detection.area, reverse=True)


def _between(a: Detection, b: Detection, share: float) -> Detection:
    """Where a face is that has gone `share` of its way from `a` to `b`."""

    def mix(start, end):
        return (1 - share) * np.asarray(start) + share * np.asarray(end)

    known = a.landmarks is not None and b.landmarks is not None
    return Detection(
        box=tuple(mix(a.box, b.box).tolist()),
        score=float(mix(a.score, b.score)),
        landmarks=mix(a.landmarks, b.landmarks) if known else None,
        framed=b.framed,
    )


def _row(frame: int, seconds: float, track: Track) -> list:
    face = track.face
    box = [round(value, 1) for value in face.box]
    start = [frame, round(seconds, 4), track.number, *box, face.score]
    return [*start, face.label, face.confidence, face.unsure, *face.probs.values()]
