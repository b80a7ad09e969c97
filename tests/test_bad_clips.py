"""Clips that are broken, too large, or no clips; files that cannot be written; the command line."""

from __future__ import annotations

import errno
import io
import os
import random
import resource
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from drawn_clips import decode, moving, picture, rows, write_clip
from PIL import Image
from tqdm import tqdm

from fer_zoo import Recognizer
from fer_zoo.cli import main
from fer_zoo.video import Limits, VideoError, analyze_video
from train.app_process import ROOT


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


@pytest.mark.parametrize("source", [b"bytes", 0, None])
def test_what_is_no_clip_at_all_gets_a_sentence(whole, tmp_path, source):
    with pytest.raises(VideoError, match="a path or a binary file that can seek, not"):
        analyze_video(source, whole, csv=tmp_path / "out.csv")


def test_a_pipe_gets_a_sentence(whole, tmp_path):
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, pytest.raises(VideoError, match="save it as a file"):
        analyze_video(pipe, whole, csv=tmp_path / "out.csv")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "clip.ts"])
@pytest.mark.parametrize("begin", [0, 0.3, 0.9])
def test_a_disk_that_fails_is_no_end_of_the_clip(whole, tmp_path, name, begin):
    noise = [Image.effect_noise((160, 160), 90).convert("RGB") for _ in range(30)]  # is read in many pieces
    clip = write_clip(tmp_path / name, noise)
    length = clip.stat().st_size

    class Failing(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            if begin * length <= self.tell() < length:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(size)

    table = tmp_path / "out.csv"
    with Failing(clip) as file, pytest.raises(VideoError, match=r"cannot be read \(Input/output error\)"):
        analyze_video(file, whole, csv=table)
    assert not table.exists()


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


@pytest.mark.parametrize("size", [(1080, 1920), (1440, 1440)])
def test_a_clip_of_just_as_many_pixels_as_are_read(whole, tmp_path, size):
    """FFmpeg rounds their width up."""
    clip = write_clip(tmp_path / "clip.mp4", [Image.new("RGB", size)] * 2)
    assert analyze_video(clip, whole, limits=Limits(pixels=1920 * 1080)).frames == 2


def test_unknown_sound_is_left_out(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(5), sound="aac")
    clip.write_bytes(clip.read_bytes().replace(b"mp4a", b"ac-4").replace(b"esds", b"free"))
    with av.open(str(clip)) as file:
        assert file.streams.audio[0].codec_context is None  # FFmpeg knows the name, and cannot decode it
    assert analyze_video(clip, whole, out=tmp_path / "out.mp4").frames == 5
    with av.open(str(tmp_path / "out.mp4")) as file:
        assert not file.streams.audio


def test_no_file_is_written_over_another(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(2))
    content, other = clip.read_bytes(), tmp_path / "other.mp4"
    for files in ({"out": clip}, {"csv": clip}, {"out": other, "csv": other}):
        with pytest.raises(VideoError, match="different names"):
            analyze_video(clip, whole, **files)
    with clip.open("rb") as file, pytest.raises(VideoError, match="different names"):
        analyze_video(file, whole, out=clip)
    assert clip.read_bytes() == content and not other.exists()


@pytest.mark.parametrize("size", [(16_400, 32), (32, 16_400)])
def test_a_clip_larger_than_an_mp4_can_be(whole, tmp_path, size):
    clip = write_clip(tmp_path / "clip.mkv", [Image.new("RGB", size)], codec="ffv1")
    assert analyze_video(clip, whole).frames == 1
    with pytest.raises(VideoError, match="an mp4's have 16384 a side at most"):
        analyze_video(clip, whole, out=tmp_path / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]


def test_what_cannot_be_written_gets_a_sentence(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(3))
    with pytest.raises(VideoError, match=r"ends in \.mp4"):
        analyze_video(clip, whole, out=tmp_path / "out.avi")
    for folder, reason in ((tmp_path / "none", "No such file or directory"), (clip, "Not a directory")):
        for kind in ({"out": folder / "out.mp4"}, {"csv": folder / "out.csv"}):
            with pytest.raises(VideoError, match=rf"cannot be written \({reason}\)"):
                analyze_video(clip, whole, **kind)


def test_what_is_no_file_is_left_alone_and_a_link_stays_one(whole, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", moving(3))
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(VideoError, match="no file, but a folder or a device"):
            analyze_video(clip, whole, csv=tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "12:30.csv").touch(mode=0o400)
    (tmp_path / "link.csv").symlink_to("12:30.csv")
    analyze_video(clip, whole, csv=tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "12:30.csv").stat().st_size > 100
    assert (tmp_path / "12:30.csv").stat().st_mode & 0o777 == 0o600, (
        "what was private stays so, but can be written again"
    )


def test_a_name_with_a_colon_is_no_address(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    analyze_video(write_clip(tmp_path / "clip.mp4", moving(3)), whole, out="12:30.mp4")
    assert len(decode(tmp_path / "12:30.mp4")) == 3


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, ConnectionResetError])
def test_an_error_in_between_leaves_nothing_behind(whole, tmp_path, kind):
    clip = write_clip(tmp_path / "clip.mp4", moving(30))

    def stop(done: float) -> None:
        raise kind("the visitor has left")

    with pytest.raises(kind, match="visitor has left"):
        analyze_video(clip, whole, out=tmp_path / "out.mp4", csv=tmp_path / "out.csv", progress=stop)
    assert os.listdir(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize("name", ["out.mp4", "out.csv"])
def test_a_disk_that_is_full_is_one_sentence(whole, tmp_path, name):
    """A limit on the size of files stands in for the disk: the system answers a write in the same way."""
    clip = write_clip(tmp_path / "clip.mp4", moving(30))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(VideoError, match=rf"{name}' cannot be written \(File too large\)\.$"):
            analyze_video(clip, whole, **{"out" if name.endswith("mp4") else "csv": tmp_path / name})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["clip.mp4"]


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


def test_a_program_that_is_ended_leaves_nothing_behind(tmp_path, monkeypatch):
    class Ending(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            signal.raise_signal(signal.SIGTERM)
            return super().update(n)

    clip = write_clip(tmp_path / "clip.mp4", moving(10))
    monkeypatch.setattr("fer_zoo.cli.tqdm", Ending)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert video(clip, "--out", tmp_path / "out.mp4", "--csv", tmp_path / "out.csv") == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert os.listdir(tmp_path) == ["clip.mp4"]


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
