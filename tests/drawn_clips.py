"""Clips drawn on the spot, a face that moves over a gray background, and what reads clips back."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from PIL import Image

from train.app_process import ROOT

SIZE = (320, 240)
FACE = 140  # side in pixels of the pasted part of the photo; the face in it is about half as wide


@cache
def _face(side: int) -> Image.Image:
    with Image.open(ROOT / "examples" / "astronaut.jpg") as photo:
        return photo.crop((140, 0, 300, 160)).resize((side, side))


def picture(places: Iterable[tuple[float, float]] = ((90, 50),), size: tuple[int, int] = SIZE) -> Image.Image:
    """A frame with a face at each place, the upper left corner of what is pasted."""
    image = Image.new("RGB", size, (120, 130, 140))
    for x, y in places:
        image.paste(_face(FACE), (round(x), round(y)))
    return image


def moving(frames: int, size: tuple[int, int] = SIZE) -> Iterable[Image.Image]:
    """Frames in which the face sways to the left and the right."""
    return (picture([(90 + 60 * math.sin(i / 10), 50)], size) for i in range(frames))


def write_clip(
    path: Path,
    frames: Iterable[Image.Image],
    *,
    rate: int = 25,
    seconds: Iterable[float] | None = None,
    codec: str | None = None,
    sound: str | None = None,
    hertz: int = 48_000,
    rotation: int = 0,
    tick: Fraction = Fraction(1, 1000),
    pixel: Fraction = Fraction(1),
) -> Path:
    """Encode frames; the container follows from the name.

    Args:
        path: The file.
        frames: Of one size.
        rate: Frames a second.
        seconds: The time of each frame where they are not even.
        codec: FFmpeg's name of an encoder (default: VP8 for webm, else H.264).
        sound: Encoder of a tone of 96,000 samples, or None.
        hertz: Samples a second.
        rotation: Degrees counterclockwise that the player is told to turn the frames.
        tick: Unit of the frames' times in seconds.
        pixel: Width of a pixel over its height, as the player is told.
    """
    with av.open(str(path), "w") as file:
        video = file.add_stream(codec or ("libvpx" if path.suffix == ".webm" else "h264"), rate=rate)
        video.options = {"preset": "ultrafast"} if video.codec_context.name == "libx264" else {}
        audio = file.add_stream(sound, rate=hertz, layout="mono") if sound else None
        if rotation:
            video.set_display_rotation(rotation)
        times = iter(seconds) if seconds is not None else (i / rate for i in range(10**9))
        for image, time in zip(frames, times, strict=False):
            if not video.codec_context.is_open:
                video.width, video.height = image.size
                video.pix_fmt = "yuv420p"
                video.codec_context.time_base = tick
                video.codec_context.sample_aspect_ratio = pixel
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = round(time / tick), tick
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
        if audio:
            tone = (np.sin(np.arange(96_000) / 20) * 8000).astype(np.int16)
            block = av.AudioFrame.from_ndarray(tone[None], "s16", "mono")
            block.sample_rate, block.pts = hertz, 0
            resampler = av.AudioResampler(audio.format, audio.layout, hertz, audio.frame_size)
            for part in [*resampler.resample(block), *resampler.resample(None)]:
                file.mux(audio.encode(part))
            file.mux(audio.encode(None))
    return path


def decode(path: Path) -> list[av.VideoFrame]:
    """All frames of a clip."""
    with av.open(str(path)) as file:
        return list(file.decode(video=0))


def rows(path: Path) -> list[dict[str, str]]:
    """A table of `analyze_video`."""
    return list(csv.DictReader(io.StringIO(path.read_text())))
