"""Follow faces from frame to frame: each keeps its number and colour, its probabilities are smoothed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .recognizer import Face

# By a face's number; Tol's "bright" scheme, told apart by the common colour-vision deficiencies.
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")

# The time in which the share `smoothing` of an estimate is kept.
SMOOTHING_SECONDS = 0.1

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
        return PALETTE[(self.number - 1) % len(PALETTE)]


@dataclass
class _Known:
    number: int
    seconds: float
    box: tuple[float, float, float, float]
    probs: dict[str, float]


class Tracker:
    """Knows faces again from frame to frame.

    It holds numbers alone, no pictures, so it may be copied or kept for every visitor of a site.

    Args:
        smoothing: How much of the old probabilities is kept over a tenth of a second, 0 (none) to below 1;
            what is left after a longer or shorter time follows from it, so the frame rate does not matter.
        max_gap: A face that was not seen for more than so many seconds is forgotten.

    Raises:
        ValueError: A value is out of its range.
    """

    def __init__(self, smoothing: float = 0.6, max_gap: float = 1.0):
        if not 0 <= smoothing < 1:
            raise ValueError(f"Smoothing is at least 0 and below 1, not {smoothing:g}.")
        if not max_gap >= 0:
            raise ValueError(f"The longest gap is 0 seconds or more, not {max_gap:g}.")
        self.smoothing = smoothing
        self.max_gap = max_gap
        self._known: list[_Known] = []
        self._count = 0

    def update(self, faces: Sequence[Face], seconds: float) -> list[Track]:
        """Tell the faces of the next frame.

        Args:
            faces: What a recogniser found in it.
            seconds: The frame's time, not before that of the last one.

        Returns:
            One track per face, in the order of `faces`.
        """
        self._known = [known for known in self._known if seconds - known.seconds <= self.max_gap]
        matches = self._match(faces)
        return [Track(*self._follow(matches.get(i), face, seconds)) for i, face in enumerate(faces)]

    def _match(self, faces: Sequence[Face]) -> dict[int, _Known]:
        """The known face of each index of `faces` that has one: the least change first, none taken twice."""
        changes = sorted(
            (change, i, k)
            for i, face in enumerate(faces)
            for k, known in enumerate(self._known)
            if (change := _change(known.box, face.box)) < MAX_CHANGE
        )
        matches: dict[int, int] = {}
        for _, i, k in changes:
            if i not in matches and k not in matches.values():
                matches[i] = k
        return {i: self._known[k] for i, k in matches.items()}

    def _follow(self, known: _Known | None, face: Face, seconds: float) -> tuple[int, Face]:
        if known is None:
            self._count += 1
            self._known.append(_Known(self._count, seconds, face.box, face.probs))
            return self._count, face
        kept = self.smoothing and self.smoothing ** ((seconds - known.seconds) / SMOOTHING_SECONDS)
        known.probs = {name: kept * known.probs[name] + (1 - kept) * p for name, p in face.probs.items()}
        known.seconds, known.box = seconds, face.box
        label = max(known.probs, key=known.probs.get)
        face = replace(face, probs=known.probs, label=label, confidence=known.probs[label])
        return known.number, face


def _change(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """By how many of their sides a square-ish box moved, plus the logarithm of how much larger one is."""
    side_a, side_b = (math.sqrt(max(1.0, (x2 - x1) * (y2 - y1))) for x1, y1, x2, y2 in (a, b))
    moved = math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2
    return moved / math.sqrt(side_a * side_b) + abs(math.log(side_a / side_b))
