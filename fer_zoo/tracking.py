"""Follow faces from frame to frame: each keeps its number and colour, its probabilities are smoothed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .recognizer import Face

# By a face's number; Tol's "bright" scheme, told apart by the common colour-vision deficiencies.
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")

# The time in which the share `smoothing` of an estimate is kept.
SMOOTHING_SECONDS = 0.1

# Seconds after which a face that was not seen is forgotten.
MAX_GAP = 1.0

# A face is the same if it has moved and grown by less than this from one frame to the next; see `_change`.
MAX_CHANGE = 1.0


@dataclass(frozen=True, eq=False)
class Track:
    """A face of one frame, and who it is.

    Attributes:
        number: 1 for the first face that the tracker saw, and so on; never given to another face.
        face: The face as it was found, with `probs`, `label` and `confidence` smoothed over time.
    """

    number: int
    face: Face

    @property
    def color(self) -> str:
        """The face's own colour, as "#rrggbb"; with more faces than colours they begin again."""
        return track_color(self.number)


def track_color(number: int) -> str:
    """The colour of the face with this number, from 1."""
    return PALETTE[(number - 1) % len(PALETTE)]


class _HasBox(Protocol):
    @property
    def box(self) -> tuple[float, float, float, float]: ...


@dataclass
class _Known:
    number: int
    seconds: float
    box: tuple[float, float, float, float]
    probs: dict[str, float]


class Tracker:
    """Knows faces again from frame to frame.

    One that was not seen for longer than `MAX_GAP` is forgotten, but never from one frame to the next,
    however far apart they are; where time goes back another clip begins, and all are forgotten. It holds
    numbers alone, no pictures, so it may be copied or kept for every visitor of a site.

    Args:
        smoothing: How much of the old probabilities is kept over a tenth of a second, 0 (none) to below 1;
            what is left after a longer or shorter time follows from it, so the frame rate does not matter.

    Raises:
        ValueError: The smoothing is out of its range.
    """

    def __init__(self, smoothing: float = 0.6):
        if not 0 <= smoothing < 1:
            raise ValueError(f"Smoothing is at least 0 and below 1, not {smoothing:g}.")
        self.smoothing = smoothing
        self._known: list[_Known] = []
        self._last = -math.inf
        self._count = 0

    def update(self, faces: Sequence[Face], seconds: float) -> list[Track]:
        """Tell the faces of the next frame.

        Args:
            faces: What a recogniser found in it.
            seconds: The frame's time.

        Returns:
            One track per face, in the order of `faces`.
        """
        self._known = [
            known
            for known in self._known
            if seconds >= self._last and (known.seconds == self._last or seconds - known.seconds <= MAX_GAP)
        ]
        self._last = seconds
        known = {j: self._known[i] for i, j in match_boxes(self._known, faces)}
        return [Track(*self._follow(known.get(j), face, seconds)) for j, face in enumerate(faces)]

    def _follow(self, known: _Known | None, face: Face, seconds: float) -> tuple[int, Face]:
        if known is None:
            self._count += 1
            self._known.append(_Known(self._count, seconds, face.box, face.probs))
            return self._count, face
        kept = self.smoothing and self.smoothing ** ((seconds - known.seconds) / SMOOTHING_SECONDS)
        known.probs = {name: kept * known.probs[name] + (1 - kept) * p for name, p in face.probs.items()}
        known.seconds, known.box = seconds, face.box
        return known.number, replace(face, probs=known.probs)


def match_boxes(before: Sequence[_HasBox], now: Sequence[_HasBox]) -> list[tuple[int, int]]:
    """Pairs of indices of the same faces in two frames: the least change first, none taken twice.

    Args:
        before: Faces, detections or anything else with a `box` of corners (x1, y1, x2, y2).
        now: The same, of a later frame.
    """
    changes = sorted(
        (change, i, j)
        for i, a in enumerate(before)
        for j, b in enumerate(now)
        if (change := _change(a.box, b.box)) < MAX_CHANGE
    )
    pairs: list[tuple[int, int]] = []
    for _, i, j in changes:
        if all(i != other_i and j != other_j for other_i, other_j in pairs):
            pairs.append((i, j))
    return pairs


def _change(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """By how many of their sides a square-ish box moved, plus the logarithm of how much larger one is."""
    side_a, side_b = (math.sqrt(max(1.0, (x2 - x1) * (y2 - y1))) for x1, y1, x2, y2 in (a, b))
    moved = math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2
    return moved / math.sqrt(side_a * side_b) + abs(math.log(side_a / side_b))
