"""Faces that move, part, vanish and come back, as boxes alone."""

from __future__ import annotations

import copy
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from fer_zoo.drawing import draw_faces
from fer_zoo.labels import EXPRESSIONS
from fer_zoo.recognizer import Face
from fer_zoo.tracking import Tracker, track_color


def face(x: float, y: float = 100.0, side: float = 80.0, happy: float = 1.0) -> Face:
    probs = dict.fromkeys(EXPRESSIONS, 0.0) | {"happy": happy, "sad": 1 - happy}
    return Face((x, y, x + side, y + side), 0.99, probs, None, Image.new("RGB", (8, 8)))


def test_the_readmes_loop_before_a_camera(monkeypatch, capsys):
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (loop,) = (block for block in re.findall(r"```python\n(.*?)```", readme, re.S) if "cv2" in block)
    frames = [np.zeros((48, 64, 3), np.uint8) + np.uint8([1, 2, 3])] * 2

    class Camera:
        def __init__(self, number: int) -> None:
            self.left = list(frames)

        def read(self) -> tuple[bool, np.ndarray | None]:
            return (True, self.left.pop()) if self.left else (False, None)

    def recognizer(rgb: np.ndarray) -> list[Face]:
        assert (rgb[0, 0] == [3, 2, 1]).all()
        return [face(0)]

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Camera))
    exec(loop, {"recognizer": recognizer})
    assert capsys.readouterr().out == "face 1: happy 100%\n" * 2


def numbers(tracker: Tracker, faces: list[Face], seconds: float) -> list[int]:
    return [track.number for track in tracker.update(faces, seconds)]


def test_numbers_follow_the_faces_not_their_order():
    tracker = Tracker()
    assert numbers(tracker, [face(0), face(300)], 0.0) == [1, 2]
    assert numbers(tracker, [face(290), face(10)], 0.1) == [2, 1]
    assert numbers(tracker, [face(20), face(600), face(280)], 0.2) == [1, 3, 2]


def test_nearest_pair_is_matched_first():
    tracker = Tracker()
    tracker.update([face(0), face(60)], 0.0)
    assert numbers(tracker, [face(58), face(-50)], 0.1) == [2, 1]


def test_a_short_gap_keeps_number_and_colour_and_a_long_one_does_not():
    tracker = Tracker()
    [before] = tracker.update([face(0)], 0.0)
    assert tracker.update([], 0.5) == []
    [after] = tracker.update([face(20)], 1.0)
    assert (after.number, after.color) == (before.number, before.color)
    assert tracker.update([], 1.5) == []
    [late] = tracker.update([face(20)], 2.1)
    assert late.number == 2 and late.color != before.color


def test_frames_that_are_far_apart_keep_their_faces():
    tracker = Tracker()
    assert [numbers(tracker, [face(0), face(300)], 60.0 * i) for i in range(3)] == [[1, 2]] * 3


def test_a_face_that_moves_steadily_is_one_face_and_a_jump_another():
    tracker = Tracker()
    assert {n for i in range(100) for n in numbers(tracker, [face(7.0 * i)], i / 25)} == {1}
    assert numbers(tracker, [face(100)], 4.0) == [2]
    assert numbers(tracker, [face(100, side=240)], 4.1) == [3]


@pytest.mark.parametrize("rate", [5, 10, 30, 60])
def test_smoothing_does_not_depend_on_the_frame_rate(rate):
    tracker = Tracker(smoothing=0.8)
    tracker.update([face(0, happy=1.0)], 0.0)
    for i in range(1, rate + 1):
        [track] = tracker.update([face(0, happy=0.0)], i / rate)
    assert track.face.probs["happy"] == pytest.approx(0.8**10)
    assert sum(track.face.probs.values()) == pytest.approx(1.0)
    assert (track.face.label, track.face.confidence) == ("sad", track.face.probs["sad"])


def test_smoothing_zero_changes_nothing_and_more_of_it_holds_longer():
    last = {}
    for smoothing in (0.0, 0.3, 0.9):
        tracker = Tracker(smoothing)
        tracker.update([face(0, happy=1.0)], 0.0)
        last[smoothing] = tracker.update([face(0, happy=0.0)], 0.1)[0].face
    assert last[0.0].probs["happy"] == 0.0
    assert last[0.3].probs["happy"] < last[0.9].probs["happy"]
    assert [last[s].label for s in last] == ["sad", "sad", "happy"]


def test_another_clip_begins_where_time_goes_back():
    tracker = Tracker(smoothing=0.9)
    tracker.update([face(0, happy=1.0)], 200.0)
    [track] = tracker.update([face(0, happy=0.25)], 0.0)
    assert (track.number, track.face.probs["happy"]) == (2, 0.25)
    assert numbers(tracker, [face(0)], 0.1) == [2]


def test_a_copy_goes_its_own_way():
    tracker = Tracker()
    tracker.update([face(0)], 0.0)
    other = copy.deepcopy(tracker)
    assert numbers(other, [face(0), face(500)], 0.1) == [1, 2]
    assert numbers(tracker, [face(0), face(900)], 0.1) == [1, 2]


@pytest.mark.parametrize("wrong", [{"smoothing": 1.0}, {"smoothing": -0.1}])
def test_values_out_of_range(wrong):
    with pytest.raises(ValueError, match="not"):
        Tracker(**wrong)


def test_tracks_are_drawn_in_their_own_colour():
    tracker = Tracker()
    tracker.update([face(10), face(200)], 0.0)
    tracks = tracker.update([face(200)], 0.1)
    drawn = draw_faces(Image.new("RGB", (400, 300)), tracks)
    red, green, blue = drawn.getpixel((200, 140))
    assert f"#{red:02x}{green:02x}{blue:02x}" == tracks[0].color
    assert tracks[0].number == 2


def test_labels_of_ones_own_are_drawn_in_the_colour_of_the_number():
    smiling = replace(face(200), probs={"smile": 1.0})
    drawn = draw_faces(Image.new("RGB", (400, 300)), [smiling])
    red, green, blue = drawn.getpixel((200, 140))
    assert f"#{red:02x}{green:02x}{blue:02x}" == track_color(1)
