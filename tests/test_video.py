"""Clips of many kinds through `analyze_video`."""

from __future__ import annotations

import importlib.util
import io
import struct
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from drawn_clips import SIZE, decode, moving, picture, rows, write_clip
from PIL import Image

from fer_zoo import EXPRESSIONS, Recognizer
from fer_zoo.faces import Detection
from fer_zoo.tracking import Tracker
from fer_zoo.video import MAX_POINTS, Timeline, analyze_video, track_faces
from fer_zoo.video_io import Frame, VideoReader


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer("fer_cnn", faces="mtcnn")


def test_annotated_clip_table_and_timeline(recognizer, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(40), sound="aac")
    out, table, done = tmp_path / "out.mp4", tmp_path / "out.csv", []
    timeline = analyze_video(clip, recognizer, out=out, csv=table, progress=done.append)

    assert (timeline.frames, timeline.faces, timeline.seconds) == (40, 1, pytest.approx(39 / 25))
    assert [point.frame for point in timeline.points] == list(range(40))
    assert done == sorted(done) and done[-1] == 1.0 and 0 <= done[0] < 1

    lines = rows(table)
    assert len(lines) == 40
    for i, (line, point) in enumerate(zip(lines, timeline.points, strict=True)):
        probs = {name: float(line[name]) for name in EXPRESSIONS}
        assert sum(probs.values()) == pytest.approx(1, abs=1e-4)
        assert line["label"] == max(probs, key=probs.get) == point.label
        assert float(line["confidence"]) == probs[line["label"]]
        assert line["frame"] == str(i)
        assert (float(line["seconds"]), line["face"]) == (pytest.approx(i / 25, abs=1e-3), "1")
        # the box follows the face that was pasted, also between two searches
        x1, y1, x2, y2 = (float(line[name]) for name in ("x1", "y1", "x2", "y2"))
        pasted = 90 + 60 * np.sin(i / 10)
        assert pasted + 30 < (x1 + x2) / 2 < pasted + 110
        assert 50 < y1 < y2 < 50 + 160

    frames = decode(out)
    assert (len(frames), frames[0].width, frames[0].height) == (40, *SIZE)
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(40)])
    with av.open(str(clip)) as before, av.open(str(out)) as after:
        assert after.streams.video[0].codec_context.name == "h264"
        sound = [[bytes(p) for p in f.demux(audio=0) if p.size] for f in (before, after)]
        assert sound[0] == sound[1] != []
    # something was drawn at the face's box and nothing in the corner
    changed = np.abs(np.asarray(frames[0].to_image(), int) - np.asarray(picture(), int)).max(axis=2)
    x1, y1, x2, _ = (round(v) for v in timeline.points[0].box)
    assert changed[y1 - 2 : y1 + 3, x1:x2].mean() > 40 > 20 > changed[-40:, -60:].max()


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("clip.webm", {"sound": "libopus"}),
        ("clip.mov", {"sound": "pcm_s16le"}),
        ("clip.mkv", {"codec": "mpeg4"}),
        ("clip.avi", {"codec": "mpeg4", "sound": "mp3"}),
        ("slow.avi", {"codec": "mpeg4", "sound": "mp3", "hertz": 11_025}),
        ("clip.ts", {"sound": "aac"}),
    ],
)
def test_kinds_of_clips(whole, tmp_path, name, kinds):
    clip = write_clip(tmp_path / name, moving(12), **kinds)
    out = tmp_path / "out.mp4"
    assert analyze_video(clip, whole, out=out).frames == 12
    assert len(decode(out)) == 12
    with av.open(str(out)) as file:
        sounds = [stream.codec_context.codec.canonical_name for stream in file.streams.audio]
    assert sounds == {"clip.webm": ["opus"], "clip.avi": ["mp3"], "clip.ts": ["aac"]}.get(name, [])


def test_a_file_object_and_bytes_in_memory(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(5))
    assert analyze_video(io.BytesIO(clip.read_bytes()), whole).frames == 5


def test_a_rotated_clip_comes_out_upright(recognizer, tmp_path):
    lying = [frame.transpose(Image.Transpose.ROTATE_270) for frame in moving(6, (322, 240))]
    clip = write_clip(tmp_path / "clip.mp4", lying, rotation=90)
    timeline = analyze_video(clip, recognizer, out=tmp_path / "out.mp4")
    assert timeline.faces == 1
    frame = decode(tmp_path / "out.mp4")[0]
    assert (frame.width, frame.height, frame.rotation) == (322, 240, 0)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((-1, 0, 0, 1), np.fliplr),
        ((1, 0, 0, -1), np.flipud),
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
        ((0, -1, 1, 0), np.rot90),
        ((0, 1, 1, 0), lambda x: x.swapaxes(0, 1)),
        ((0, -1, -1, 0), lambda x: np.rot90(x, 2).swapaxes(0, 1)),
    ],
)
def test_frames_are_turned_and_mirrored_as_players_do(tmp_path, matrix, shown):
    """The matrix of the track's header maps a pixel (x, y) to (a x + c y, b x + d y) (ISO/IEC 14496-12)."""
    corners = np.array([[[250, 0, 0], [0, 250, 0]], [[0, 0, 250], [250, 250, 250]]], np.uint8)
    stored = corners.repeat(48, 0).repeat(64, 1)
    clip = write_clip(tmp_path / "clip.mp4", [Image.fromarray(stored)] * 2)
    content = bytearray(clip.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    a, b, c, d = (65_536 * value for value in matrix)
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    clip.write_bytes(content)
    with VideoReader(clip) as reader:
        frame = next(reader.frames()).rgb
    expected = shown(stored)
    assert frame.shape == expected.shape
    middles = frame[frame.shape[0] // 4 :: frame.shape[0] // 2, frame.shape[1] // 4 :: frame.shape[1] // 2]
    assert np.abs(middles.astype(int) - shown(corners)).max() < 40


def test_uneven_times_and_odd_sizes(whole, tmp_path):
    times = [0.0, 0.04, 0.4, 0.41, 1.0, 3.0]
    clip = write_clip(tmp_path / "clip.mkv", moving(6, (321, 241)), seconds=times, codec="ffv1")
    timeline = analyze_video(clip, whole, out=tmp_path / "out.mp4")
    assert [point.seconds for point in timeline.points] == pytest.approx(times)
    frames = decode(tmp_path / "out.mp4")
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-4)
    assert (frames[0].width, frames[0].height) == (320, 240)


def test_times_finer_than_the_clock_of_the_container(recognizer, tmp_path):
    """A transport stream's start is told in microseconds, its frames' times are thirds of them."""
    times = [(i + 2) / 30 for i in range(12)]
    clip = write_clip(tmp_path / "clip.ts", moving(12), rate=30, seconds=times, tick=Fraction(1, 90_000))
    timeline = analyze_video(clip, recognizer)
    assert timeline.frames == 12
    seconds = [point.seconds for point in timeline.points]
    assert seconds == pytest.approx([i / 30 for i in range(12)], abs=1e-5)
    assert seconds[0] >= 0


def test_pixels_that_are_no_squares(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(3), pixel=Fraction(4, 3))
    analyze_video(clip, whole, out=tmp_path / "out.mp4")
    (frame, *_) = decode(tmp_path / "out.mp4")
    assert (frame.width, frame.height) == (round(SIZE[0] * 4 / 3) // 2 * 2, SIZE[1])


def test_the_largest_face_comes_first_in_every_frame():
    class Two:
        """A small face that stands and a large one that moves."""

        count = 0

        def detect(self, rgb: np.ndarray) -> list[Detection]:
            self.count += 1
            x = 100.0 + 10 * self.count
            return [Detection((10, 10, 60, 60), 1.0), Detection((x, 20, x + 100, 120), 1.0)]

    frames = (Frame(i / 25, np.zeros((240, 320, 3), np.uint8)) for i in range(20))
    for _, tracks in track_faces(frames, Recognizer("fer_cnn", faces=Two()), Tracker()):
        widths = [track.face.box[2] - track.face.box[0] for track in tracks]
        assert widths == sorted(widths, reverse=True) and len(widths) == 2


@pytest.mark.parametrize("size", [(1280, 720), (333, 1000)])
def test_large_frames_are_searched_in_a_reduced_copy(size):
    box, landmarks = np.array([0.25, 0.2, 0.75, 0.6]), np.linspace(0.3, 0.6, 10).reshape(5, 2)

    class Middle:
        """Finds one face, where it says of every picture."""

        def detect(self, rgb: np.ndarray) -> list[Detection]:
            height, width = rgb.shape[:2]
            assert max(height, width) == 640
            return [Detection(tuple(box * ([width, height] * 2)), 1.0, landmarks * (width, height))]

    frames = (Frame(i / 25, np.zeros((*size[::-1], 3), np.uint8)) for i in range(3))
    for _, (track,) in track_faces(frames, Recognizer("fer_cnn", faces=Middle()), Tracker()):
        assert track.face.box == pytest.approx(box * (size * 2))
        np.testing.assert_allclose(track.face.landmarks, landmarks * size)


def test_colours_stay(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", [Image.new("RGB", (64, 64), (200, 60, 90))] * 3)
    analyze_video(clip, Recognizer("fer_cnn", faces="mtcnn"), out=tmp_path / "out.mp4")
    frame = decode(tmp_path / "out.mp4")[-1]
    assert np.abs(frame.to_ndarray(format="rgb24")[32, 32].astype(int) - (200, 60, 90)).max() <= 6


def test_numbers_are_kept_through_a_gap_and_given_anew(recognizer, tmp_path):
    size, one, two = (480, 240), (20, 50), (300, 60)
    shown = [[one]] * 10 + [[]] * 10 + [[one]] * 10 + [[one, two]] * 10
    clip = write_clip(tmp_path / "clip.mp4", [picture(places, size) for places in shown], rate=20)
    timeline = analyze_video(clip, recognizer)
    seen = {}
    for point in timeline.points:
        seen.setdefault(point.face, []).append(point.frame)
        assert (point.box[0] < 240) == (point.face == 1)
    assert seen.keys() == {1, 2}
    assert seen[1][0] == 0 and seen[1][-1] == 39 and not {10, 12, 14, 16} & set(seen[1])
    assert 30 <= seen[2][0] <= 34 and seen[2][-1] == 39


def test_smoothing_calms_the_probabilities(whole, tmp_path):
    noise = [Image.effect_noise((64, 64), 40 + 20 * (i % 3)).convert("RGB") for i in range(30)]
    clip = write_clip(tmp_path / "clip.mp4", noise)

    def unrest(smoothing: float) -> float:
        points = analyze_video(clip, whole, smoothing=smoothing).points
        return np.abs(np.diff([list(point.probs.values()) for point in points], axis=0)).mean()

    assert unrest(0.9) < 0.5 * unrest(0.0)
    with pytest.raises(ValueError, match=r"below 1, not 1"):
        analyze_video(clip, whole, smoothing=1.0)


def test_unsure_expressions_are_marked(recognizer, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", moving(2))
    frames = []
    for sure_from in (0.0, 1.1, 1.1):
        monkeypatch.setattr(recognizer, "sure_from", sure_from)
        analyze_video(clip, recognizer, out=tmp_path / "out.mp4")
        frames.append(decode(tmp_path / "out.mp4")[0].to_ndarray(format="gray").astype(int))
    sure, unsure, again = frames
    assert np.array_equal(unsure, again) and np.abs(sure - unsure).max() > 100


def test_a_clip_without_faces(recognizer, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", [picture([])] * 5)
    timeline = analyze_video(clip, recognizer, csv=tmp_path / "out.csv")
    assert (timeline.frames, timeline.faces, timeline.points) == (5, 0, [])
    assert (tmp_path / "out.csv").read_text().startswith("frame,seconds,face,x1,y1,x2,y2,score,label,")


def test_a_long_timeline_thins_itself_out(whole):
    face = whole(picture())
    timeline, tracker = Timeline(), Tracker()
    for i in range(3 * MAX_POINTS):
        timeline.add(i / 25, tracker.update(face, i / 25))
    assert timeline.frames == 3 * MAX_POINTS and timeline.stride == 4
    assert [point.frame for point in timeline.points] == list(range(0, 3 * MAX_POINTS, 4))


# What is wrong, and what the sentence says of it.
def test_without_the_package_av(tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", moving(3))
    monkeypatch.setitem(sys.modules, "av", None)
    spec = importlib.util.find_spec("fer_zoo.video_io")
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    with pytest.raises(without.VideoError, match=r"fer-zoo\[video\]"):
        without.VideoReader(clip)
