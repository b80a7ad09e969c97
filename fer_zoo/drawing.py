"""Pictures for people: numbered boxes on a photo, heat maps over a face."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from .images import ImageSource, load_image
from .labels import COLORS
from .recognizer import Face
from .tracking import Track, track_color

OPACITY = 0.8  # of a heat map where it is strongest


def draw_faces(image: ImageSource, faces: Sequence[Face | Track], max_size: int = 1280) -> Image.Image:
    """Draw a box around every face, with its number and its expression, and a question mark where that is
    unsure.

    Args:
        image: The photo or frame that the faces were found in, anything that `load_image` reads.
        faces: Faces with boxes in pixels of the upright picture; they are counted from 1 and have the colour
            of their expression, or where it is none of the seven, one by their number. Tracks have a number
            and a colour of their own.
        max_size: A larger photo is reduced so that its longer side has this many pixels.

    Returns:
        A new RGB image, at most `max_size` on a side.

    Raises:
        ImageError: The photo cannot be read.
    """
    canvas = load_image(image)
    longest = max(canvas.size)
    # reducing_gap makes the reduction of large photos several times faster, with no visible difference
    canvas.thumbnail((max_size, max_size), reducing_gap=2.0)
    scale = max(canvas.size) / longest
    draw = ImageDraw.Draw(canvas)
    line = max(2, round(max(canvas.size) / 300))
    largest = max(canvas.size) / 32
    for count, face in enumerate(faces, start=1):
        if isinstance(face, Track):
            number, color, face = face.number, face.color, face.face
        else:
            number, color = count, COLORS.get(face.label, track_color(count))
        x1, y1, x2, y2 = (value * scale for value in face.box)
        draw.rectangle((x1, y1, x2, y2), outline=color, width=line)
        # about as wide as the face, so that in a crowd it does not hide the next one
        font = _font(round(max(11, min(largest, (x2 - x1) / 5))))
        text = f"{number} {face.marked}"
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 4 * line, bottom - top + 4 * line
        # Above the box where there is room, else below it, else inside it; never outside the picture.
        x = min(max(0, x1), max(0, canvas.width - width))
        above, below = y1 >= height, y2 + height <= canvas.height
        y = y1 - height if above else y2 if below else max(0, y1)
        draw.rectangle((x, y, x + width, y + height), fill=color)
        draw.text((x + 2 * line - left, y + 2 * line - top), text, font=font, fill=_readable_on(color))
    return canvas


def overlay(crop: Image.Image, heat: np.ndarray, size: int) -> Image.Image:
    """Lay a heat map over a face: nothing where it is 0, then red, and yellow where it is 1.

    Args:
        crop: The face that the map explains, square, any mode.
        heat: (h, w) floats 0..1, of any size; stretched over the crop.
        size: Side of the result in pixels.

    Returns:
        An RGB image (size, size).
    """
    face = np.asarray(crop.convert("L").convert("RGB").resize((size, size), Image.Resampling.BICUBIC))
    heat = cv2.resize(np.asarray(heat, np.float32), (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    color = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_HOT)[..., ::-1]
    alpha = OPACITY * np.sqrt(heat)[..., None]  # the root lets weak places be seen at all
    return Image.fromarray((face * (1 - alpha) + color * alpha + 0.5).astype(np.uint8))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _readable_on(color: str) -> str:
    return "black" if ImageColor.getcolor(color, "L") > 128 else "white"
