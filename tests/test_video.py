"""Clips of many kinds, whole and broken, through `analyze_video` and `fer-zoo video`."""

from __future__ import annotations

import csv
import io
import os
import random
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from drawn_clips import SIZE, moving, picture, write_clip
from PIL import Image

from fer_zoo import EXPRESSIONS, Recognizer
from fer_zoo.cli import main
from fer_zoo.tracking import Tracker
from fer_zoo.video import MAX_POINTS, Limits, Timeline, VideoError, analyze_video
from train.app_process import ROOT


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer("fer_cnn", faces="mtcnn")


@pytest.fixture(scope="module")
def whole() -> Recognizer:
    """Takes each frame as a face, which is quick."""
    return Recognizer("fer_cnn", faces="whole")


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


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
    assert sounds == {".webm": ["opus"], ".avi": ["mp3"], ".ts": ["aac"]}.get(clip.suffix, [])


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


def test_uneven_times_and_odd_sizes(whole, tmp_path):
    times = [0.0, 0.04, 0.4, 0.41, 1.0, 3.0]
    clip = write_clip(tmp_path / "clip.mkv", moving(6, (321, 241)), seconds=times, codec="ffv1")
    timeline = analyze_video(clip, whole, out=tmp_path / "out.mp4")
    assert [point.seconds for point in timeline.points] == pytest.approx(times)
    frames = decode(tmp_path / "out.mp4")
    assert [frame.time for frame in frames] == pytest.approx(times, abs=1e-4)
    assert (frames[0].width, frames[0].height) == (320, 240)


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


def test_unsure_expressions_are_marked(recognizer, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(2))
    frames = []
    for sure_from in (0.0, 1.1, 1.1):
        analyze_video(clip, recognizer, out=tmp_path / "out.mp4", sure_from=sure_from)
        frames.append(decode(tmp_path / "out.mp4")[0].to_ndarray(format="gray").astype(int))
    sure, unsure, again = frames
    assert np.array_equal(unsure, again) and np.abs(sure - unsure).max() > 100


def test_a_clip_without_faces(recognizer, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", [picture([])] * 5)
    timeline = analyze_video(clip, recognizer, csv=tmp_path / "out.csv")
    assert (timeline.frames, timeline.faces, timeline.points) == (5, 0, [])
    assert (tmp_path / "out.csv").read_text().startswith("seconds,face,x1,y1,x2,y2,score,label,")


def test_a_long_timeline_thins_itself_out(whole):
    face = whole(picture())
    timeline, tracker = Timeline(), Tracker()
    for i in range(3 * MAX_POINTS):
        timeline.add(i / 25, tracker.update(face, i / 25))
    assert timeline.frames == 3 * MAX_POINTS and timeline.stride == 4
    assert [point.frame for point in timeline.points] == list(range(0, 3 * MAX_POINTS, 4))


# What is wrong, and what the sentence says of it.
def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _no_frame(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        file.add_stream("h264", rate=25).pix_fmt = "yuv420p"
        file.start_encoding()
    return path


def _only_sound(path: Path) -> Path:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def _cut(path: Path) -> Path:
    write_clip(path, moving(30))  # its index stands at the end
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def _photo(path: Path) -> Path:
    picture().save(path, "JPEG")
    return path


def _playlist(path: Path) -> Path:
    clip = write_clip(path.with_name("other.ts"), moving(3))
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{clip.name}\n#EXT-X-ENDLIST\n")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path, "There is no file"),
        (_folder, "is a folder"),
        (_empty, "is not a clip that can be read"),
        (_photo, "is not a clip that can be read"),
        (_playlist, "is not a clip that can be read"),
        (_cut, "is not a clip that can be read, .* or is cut short"),
        (_no_frame, "has no picture"),
        (_only_sound, "has no picture"),
        (lambda path: write_clip(path, [Image.new("RGB", (8, 8))] * 3, codec="mpeg4"), "is 8x8 pixels"),
    ],
)
def test_what_cannot_be_read_gets_a_sentence(whole, tmp_path, make, words):
    clip = make(tmp_path / "it's.mp4")
    out, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    out.write_text("older")
    with pytest.raises(VideoError, match=words) as error:
        analyze_video(clip, whole, out=out, csv=table)
    assert "\n" not in str(error.value) and str(error.value).endswith(".")
    assert out.read_text() == "older" and not table.exists() and not list(tmp_path.glob("*.tmp"))


def test_a_cut_webm_is_read_as_far_as_it_goes(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.webm", moving(50))
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 9 // 10])
    assert 5 < analyze_video(clip, whole, out=tmp_path / "out.mp4").frames < 50


@pytest.mark.parametrize("name", ["clip.mp4", "clip.webm"])
def test_limits(whole, tmp_path, name):
    clip = write_clip(tmp_path / name, moving(30))
    assert analyze_video(clip, whole, limits=Limits(320 * 240, 1.21, 30)).frames == 30
    for limits, words in [
        (Limits(pixels=320 * 239), "too large: 320x240 pixels; at most 0.1 megapixels"),
        (Limits(seconds=1), "too long: at most 1 s"),
        (Limits(frames=29), "too long: at most 29 frames"),
    ]:
        with pytest.raises(VideoError, match=words):
            analyze_video(clip, whole, limits=limits, out=tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_cannot_be_written_gets_a_sentence(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(3))
    with pytest.raises(VideoError, match=r"ends in \.mp4"):
        analyze_video(clip, whole, out=tmp_path / "out.avi")
    for folder, reason in ((tmp_path / "none", "No such file or directory"), (clip, "Not a directory")):
        for kind in ({"out": folder / "out.mp4"}, {"csv": folder / "out.csv"}):
            with pytest.raises(VideoError, match=rf"cannot be written \({reason}\)"):
                analyze_video(clip, whole, **kind)


def test_an_error_in_between_leaves_nothing_behind(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(30))

    def stop(done: float) -> None:
        raise InterruptedError("the visitor has left")

    with pytest.raises(Exception, match=r"left|cannot be written"):
        analyze_video(clip, whole, out=tmp_path / "out.mp4", csv=tmp_path / "out.csv", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_memory_does_not_grow_with_the_length(tmp_path):
    """The frames of the longer clip alone would be 92 MB."""
    program = (
        "import resource, sys\n"
        "from fer_zoo import Recognizer\n"
        "from fer_zoo.video import analyze_video\n"
        "analyze_video(sys.argv[1], Recognizer('fer_cnn', faces='whole'), out=sys.argv[2], csv=sys.argv[3])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    peaks = []
    for count in (50, 400):
        clip = write_clip(tmp_path / f"{count}.mp4", moving(count), sound="aac")
        files = [clip, tmp_path / "out.mp4", tmp_path / "out.csv"]
        run = subprocess.run(
            [sys.executable, "-c", program, *files], cwd=ROOT, capture_output=True, text=True
        )
        assert run.returncode == 0, run.stderr
        peaks.append(int(run.stdout))
    assert peaks[1] - peaks[0] < 40


def mutate(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, a piece cut out, doubled or zeroed, or the end cut off."""
    data = bytearray(data)
    kind = rng.randrange(5)
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.randrange(1, 2000))
    if kind == 0:
        for _ in range(rng.randrange(1, 60)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 1:
        del data[start:stop]
    elif kind == 2:
        data[start:start] = data[start:stop]
    elif kind == 3:
        data[start:stop] = bytes(stop - start)
    else:
        del data[start:]
    return bytes(data)


def check_mutated(count: int, recognizer: Recognizer, folder: Path) -> None:
    """Each mutated clip is read or gets a sentence; no file, handle or memory is left."""
    kinds = [("clip.mp4", "aac"), ("clip.webm", "libopus"), ("clip.mov", "aac"), ("clip.avi", "mp3")]
    clips = [write_clip(folder / name, moving(15), sound=sound).read_bytes() for name, sound in kinds]
    rng, process = random.Random(0), psutil.Process()
    out, table = folder / "out.mp4", folder / "out.csv"
    limits = Limits(pixels=10**6, seconds=60, frames=500)
    read = handles = memory = 0
    for i in range(count):
        if i == min(count // 2, 50):  # caches are filled
            handles, memory = process.num_fds(), process.memory_info().rss
        clip = io.BytesIO(mutate(clips[i % len(clips)], rng))
        try:
            timeline = analyze_video(clip, recognizer, out=out, csv=table, limits=limits)
        except VideoError as error:
            assert str(error).startswith("The clip ") and "\n" not in str(error)
        else:
            read += 1
            assert timeline.frames == len(rows(table)) >= 1
            assert decode(out)
        assert not list(folder.glob("*.tmp"))
    assert 0 < read < count
    assert process.num_fds() <= handles
    assert process.memory_info().rss - memory < 100e6


def test_a_few_mutated_clips(whole, tmp_path):
    check_mutated(16, whole, tmp_path)


@pytest.mark.long
def test_many_mutated_clips(whole, tmp_path):
    check_mutated(200, whole, tmp_path)


def video(*args: object) -> int:
    return main(["video", "--model", "fer_cnn", "--faces", "mtcnn", *map(str, args)])


def test_the_command_line(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", moving(10))
    out, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    assert video(clip, "--out", out, "--csv", table) == 0
    assert capsys.readouterr().out == f"{clip}: 10 frames, 1 face\n"
    assert len(decode(out)) == len(rows(table)) == 10
    assert video(clip, "--csv", table, "--smoothing", 0) == 0
    assert len(rows(table)) == 10


def test_bad_input_at_the_command_line(tmp_path, capsys):
    clip = write_clip(tmp_path / "clip.mp4", moving(3))
    for args, words in [
        ([clip], "Say what to write"),
        ([tmp_path / "none.mp4", "--csv", tmp_path / "out.csv"], "There is no file"),
        ([clip, "--out", tmp_path / "out.gif"], "ends in .mp4"),
        ([clip, "--csv", tmp_path / "out.csv", "--smoothing", 2], "below 1, not 2"),
        ([clip, "--csv", tmp_path / "out.csv", "--model", "none"], "There is no model"),
    ]:
        assert video(*args) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("fer-zoo: ") and words in error
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_without_the_package_av(whole, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", moving(3))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r"fer-zoo\[video\]"):
        analyze_video(clip, whole)
