"""Video files: upright RGB frames out of any clip, H.264 with the clip's own sound into an mp4."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

try:
    import av
except ImportError:
    av = None  # of the extra "video"; `VideoReader` asks for it

VideoSource = str | Path | BinaryIO

# Containers of clips. Some others that FFmpeg knows are lists of files or addresses that it would open.
CONTAINERS = "mov,matroska,avi,mpegts"

# Sound in these is copied into the mp4 as it is; browsers play no other sound there.
SOUND = ("aac", "mp3", "opus")
LEAST_MP3_RATE = 16_000  # Hz, of MP3 in an mp4

# Side in pixels below which H.264 encoders refuse a picture.
MIN_SIDE = 16

# Every usual frame rate, 30000/1001 too, is a whole number of these.
TICK = Fraction(1, 90_000)

MAX_SIDE = 16_384  # pixels, of what the encoder takes

# A time stamp that leaps further ahead than this is a damaged one.
MAX_LEAP = 3600.0


class VideoError(ValueError):
    """A clip cannot be read or written; the message is one sentence for the person who gave it."""


@dataclass(frozen=True)
class Limits:
    """The largest clip that is read.

    Attributes:
        pixels: Of a frame; what memory is needed follows from it alone.
        seconds: Of the clip.
        frames: Of the clip.
    """

    pixels: int = 3840 * 2160
    seconds: float = math.inf
    frames: float = math.inf


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a clip.

    Attributes:
        seconds: Its time from the clip's begin; greater than that of the frame before.
        rgb: (H, W, 3) uint8, upright.
    """

    seconds: float
    rgb: np.ndarray


class VideoReader:
    """The frames of a clip, one after the other; a context manager that closes the file.

    Damaged packets are passed over, as players do.

    Args:
        source: A path, or a binary file that can seek.
        limits: What the file may hold. What its header says is checked at once, the rest while it is read.

    Attributes:
        rate: Frames a second on average, as the file says, or a guess.
        start: Seconds that the file gives its first frame.
        progress: How much of the file was read, 0..1.
        sound: The stream of the sound, or None.

    Raises:
        VideoError: The file is missing or no clip of a known kind. Also while it is read: the disk fails, it
            has no pictures, or is over a limit.
    """

    def __init__(self, source: VideoSource, limits: Limits | None = None):
        if av is None:
            raise VideoError("Clips need the package av: pip install 'fer-zoo[video]'.")
        self._limits = limits or Limits()
        self._name = _name(source)
        with ExitStack() as stack:  # nothing stays open if a check fails
            file = stack.enter_context(_open(source)) if isinstance(source, (str, os.PathLike)) else source
            if not hasattr(file, "seek"):
                kind = type(source).__name__
                raise VideoError(f"A clip can be a path or a binary file that can seek, not {kind}.")
            try:
                self._size = max(1, file.seek(0, os.SEEK_END))
                file.seek(0)
            except OSError as error:
                raise VideoError(f"{self._name} is a stream that cannot seek: save it as a file.") from error
            try:
                container = av.open(file, options={"format_whitelist": CONTAINERS}, metadata_errors="replace")
            except (av.FFmpegError, OSError, ValueError) as error:
                self._check_disk(error)
                raise VideoError(
                    f"{self._name} is not a clip that can be read, such as mp4, mov or webm, or is cut short."
                ) from error
            self._container = stack.enter_context(container)
            self._video = self._find_video()
            self._check_header()
            self._stack = stack.pop_all()
        self.sound = self._container.streams.best("audio")
        rate = float(self._video.average_rate or 0)
        self.rate = rate if 1 <= rate <= 240 else 30.0
        self.start = (self._container.start_time or 0) / av.time_base
        self.progress = 0.0

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exc) -> None:
        self._stack.close()

    def frames(self, on_sound: Callable[[Any], None] | None = None) -> Iterator[Frame]:
        """Decode the clip; to be called once.

        Args:
            on_sound: Gets the packets of the sound on the way, undecoded.

        Raises:
            VideoError: There is no frame, or more than the limits allow, or the file cannot be read.
        """
        size = turns = mirrored = None
        count, last = 0, -1 / self.rate
        for picture in self._pictures(on_sound):
            if size is None:
                size, turns, mirrored = (picture.width, picture.height), *_orientation(picture)
                if shape := self._video.sample_aspect_ratio:  # of a pixel, where it is no square
                    size = round(size[0] * shape), size[1]
                self._check_size(*size)
            # `start` is rounded to microseconds: the first frame may else come before it
            seconds = math.nan if picture.time is None else round(picture.time - self.start, 6) + 0.0
            if not last < seconds < last + MAX_LEAP:
                seconds = last + 1 / self.rate
            count, last = count + 1, seconds
            self._check_length(seconds, count)
            rgb = picture.to_ndarray(format="rgb24", width=size[0], height=size[1])
            upright = np.rot90(rgb[::-1] if mirrored else rgb, turns)
            yield Frame(seconds, np.ascontiguousarray(upright))
        if not count:
            raise VideoError(f"{self._name} has no picture that can be decoded.")

    def _pictures(self, on_sound: Callable[[Any], None] | None) -> Iterator[Any]:
        self._video.thread_type = "AUTO"
        # also where a damaged stream claims another size than the header; twice as much, as FFmpeg rounds the
        # width up before it compares, that of an upright 1080x1920 too
        self._video.codec_context.options = {"max_pixels": str(2 * self._limits.pixels)}
        packets = self._container.demux([s for s in (self._video, on_sound and self.sound) if s])
        while True:
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:  # cut short: what came before it counts
                self._check_disk(error)
                packet = None
            if packet is None:
                break
            if packet.stream is not self._video:
                on_sound(packet)
                continue
            if packet.pos:
                self.progress = max(self.progress, min(1.0, packet.pos / self._size))
            try:
                yield from packet.decode()
            except av.FFmpegError:
                continue
        # the demuxer's last, empty packet does this unless the file ended in an error
        try:
            yield from self._video.decode(None)
        except av.FFmpegError:
            return

    def _check_disk(self, error: Exception) -> None:
        """Raises where it is the disk that failed: the clip itself may be whole."""
        if isinstance(error, av.FFmpegError) or not isinstance(error, OSError):
            return
        if error.errno != errno.EINVAL:  # which comes of places that a damaged file names
            raise VideoError(f"{self._name} cannot be read ({error.strerror or error}).") from error

    def _find_video(self):
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in self._container.streams.video if not s.disposition & cover and s.codec_context]
        if not streams:
            raise VideoError(f"{self._name} has no pictures, only sound or nothing that can be decoded.")
        return max(streams, key=lambda s: s.width * s.height)

    def _check_header(self) -> None:
        stream = self._video
        self._check_size(stream.width, stream.height)
        lengths = [Fraction(self._container.duration or 0, av.time_base)]
        if stream.duration and stream.time_base:
            lengths.append(stream.duration * stream.time_base)
        self._check_length(float(max(lengths)), stream.frames)

    def _check_size(self, width: int, height: int) -> None:
        if min(width, height) < MIN_SIDE:
            raise VideoError(
                f"{self._name} is {width}x{height} pixels; a clip has at least {MIN_SIDE}x{MIN_SIDE}."
            )
        if width * height > self._limits.pixels:
            raise VideoError(
                f"{self._name} is too large: {width}x{height} pixels; "
                f"at most {self._limits.pixels / 1e6:.1f} megapixels can be read."
            )

    def _check_length(self, seconds: float, frames: int) -> None:
        if seconds > self._limits.seconds:
            raise VideoError(f"{self._name} is too long: at most {self._limits.seconds:g} s can be read.")
        if frames > self._limits.frames:
            raise VideoError(f"{self._name} is too long: at most {self._limits.frames:g} frames can be read.")


class VideoWriter:
    """An mp4 (H.264) of frames; a context manager that completes the file.

    Args:
        path: The file to write.
        reader: The clip that the frames come from: it gives rate, start and sound.

    Raises:
        OSError: The file cannot be written.
        VideoError: What comes cannot be put into an mp4.
    """

    def __init__(self, path: Path, reader: VideoReader):
        # faststart: the file plays while it still loads
        self._container = av.open(str(path), "w", format="mp4", container_options={"movflags": "+faststart"})
        self._reader = reader
        self._video = self._sound = None
        self._early: list[Any] = []  # packets of the sound before the first frame
        self._pts = -1
        self._sound_dts = -math.inf  # an encoder's warm-up stands before zero

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, error, traceback) -> None:
        try:
            if error is None and self._video:
                self._encode(None)
        finally:
            self._container.close()

    def write(self, frame: Frame) -> None:
        """Add a frame; its size is that of the first, reduced to even numbers."""
        height, width = (side // 2 * 2 for side in frame.rgb.shape[:2])
        if self._video is None:
            self._add_streams(width, height)
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.rgb[:height, :width]), "rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace="itu709")
        self._pts = max(round(frame.seconds / TICK), self._pts + 1)
        picture.pts, picture.time_base = self._pts, TICK
        self._encode(picture)

    def write_sound(self, packet: Any) -> None:
        """Add a packet of the reader's sound, as it is."""
        if self._video is None:
            self._early.append(packet)
            return
        if self._sound is None or packet.dts is None or packet.pts is None:
            return
        shift = round(self._reader.start / packet.time_base)
        packet.dts, packet.pts = packet.dts - shift, packet.pts - shift
        if self._sound_dts < packet.dts <= packet.pts:  # the muxer takes no others
            self._sound_dts = packet.dts
            packet.stream = self._sound
            with _writing():
                self._container.mux(packet)

    def _encode(self, picture: Any) -> None:
        with _writing():
            self._container.mux(self._video.encode(picture))

    def _add_streams(self, width: int, height: int) -> None:
        if max(width, height) > MAX_SIDE:
            raise VideoError(
                f"The annotated clip cannot be written: its frames are {width}x{height} pixels, "
                f"and an mp4's have {MAX_SIDE} a side at most."
            )
        rate = Fraction(self._reader.rate).limit_denominator(1001)
        stream = self._container.add_stream("h264", rate=rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = TICK
        # BT.709, so that players need not guess
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
        self._video = stream
        if _fits_mp4(self._reader.sound):
            self._sound = self._container.add_stream_from_template(self._reader.sound)
        for packet in self._early:
            self.write_sound(packet)
        self._early.clear()


@contextmanager
def _writing() -> Iterator[None]:
    """What FFmpeg refuses, in a sentence; a full disk and the like stay an OSError."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise VideoError(f"The annotated clip cannot be written ({error.strerror}).") from error


def _orientation(picture: Any) -> tuple[int, bool]:
    """How a picture is to be shown: quarter turns counterclockwise, and whether after a flip upside down."""
    matrices = [data for data in picture.side_data if data.type.name == "DISPLAYMATRIX"]
    a, b, _, c, d = np.frombuffer(bytes(matrices[0]), np.int32)[:5] if matrices else (1, 0, 0, 0, 1)
    return round(picture.rotation / 90), float(a) * float(d) < float(b) * float(c)


def _fits_mp4(sound: Any) -> bool:
    if sound is None or sound.codec_context is None:  # FFmpeg cannot decode such sound
        return False
    codec = sound.codec_context.codec.canonical_name
    return codec in SOUND and (codec != "mp3" or sound.codec_context.sample_rate >= LEAST_MP3_RATE)


def _name(source: VideoSource) -> str:
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    return f"'{os.fspath(name)}'" if isinstance(name, (str, os.PathLike)) else "The clip"


def _open(path: str | Path) -> BinaryIO:
    """Opened here and not by FFmpeg, to which a name may also be an address."""
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise VideoError(f"There is no file '{path}'.") from None
    except IsADirectoryError:
        raise VideoError(f"'{path}' is a folder, not a clip.") from None
    except OSError as error:
        raise VideoError(f"'{path}' cannot be read ({error.strerror}).") from None
