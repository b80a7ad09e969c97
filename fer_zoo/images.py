"""Read a picture from anywhere: one upright RGB image, or one clear error."""

from __future__ import annotations

import io
import os
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import reason
from .files import visible_files

ImageSource = str | os.PathLike[str] | bytes | bytearray | BinaryIO | Image.Image | np.ndarray

# Below Pillow's own warning level (89.5 megapixels) and above what nearly every camera delivers.
MAX_PIXELS = 80_000_000
FLOAT_SLACK = 1e-3  # that float arrays may go beyond 0..1

# Only plain raster formats: others that Pillow knows start external programs or are no photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "HEIF", "AVIF", "JPEG2000", "PPM")

# Transparent pixels show this gray, which is neither a dark nor a bright edge around a face.
BACKGROUND = (128, 128, 128)


class ImageError(ValueError):
    """A picture cannot be read; the message is one sentence for the person who gave it."""


def load_image(source: ImageSource) -> Image.Image:
    """Read a picture and bring it to upright 8-bit RGB at its full size.

    Of animations and multi-page files the first frame is read, of a PIL image the one it stands at. EXIF
    orientation is applied (to PIL images too); EXIF that cannot be read is ignored. 16-bit and floating-point
    gray is scaled to 8 bits, transparency is laid over a neutral gray; embedded colour profiles are not
    applied. JPEGs are never decoded at a reduced size, so that boxes found later are in pixels of the picture
    itself.

    Args:
        source: A path, the bytes of an image file, a binary file object, a PIL image, or an array: (H, W),
            (H, W, 1), (H, W, 3) in the order RGB (OpenCV reads BGR: turn it first) or (H, W, 4) RGBA, of
            dtype uint8, uint16, bool, or float with values 0..1.

    Returns:
        A new image of mode RGB; the source is left as it was.

    Raises:
        ImageError: The source is missing, no image, damaged, or has more than 80 megapixels (checked before
            any pixel is decoded).
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source).copy())
    name = _name(source)
    if isinstance(source, Image.Image):
        _check_size(source, name)
        return _finish(source, name)
    if not isinstance(source, (str, os.PathLike, bytes, bytearray)) and not hasattr(source, "read"):
        raise ImageError(
            "An image can be a path, bytes, a binary file, a PIL image or a numpy array, "
            f"not {type(source).__name__}."
        )
    file = io.BytesIO(source) if isinstance(source, (bytes, bytearray)) else source
    try:
        image = Image.open(file, formats=_formats())
    except FileNotFoundError:
        raise ImageError(f"There is no file {name}.") from None
    except IsADirectoryError:
        raise ImageError(f"{name} is a folder, not an image.") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read (permission denied).") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(_too_large(name)) from None
    except UnidentifiedImageError:
        if "HEIF" not in _formats() and _is_heic(file):
            raise ImageError(
                f"{name} is a HEIC photo; to read it, install pillow-heif: pip install pillow-heif."
            ) from None
        raise ImageError(f"{name} is not an image that can be read, such as JPEG, PNG or WebP.") from None
    except Exception as error:  # a hostile or damaged header can make a decoder raise anything
        raise ImageError(f"{name} cannot be opened as an image ({reason(error)}).") from error
    # The file of a path is ours to close; a file object is the caller's.
    with image if isinstance(source, (str, os.PathLike)) else nullcontext():
        _check_size(image, name)
        return _finish(image, name)


@cache
def _formats() -> tuple[str, ...]:
    try:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    except ImportError:
        pass  # optional: without it `load_image` asks for it by name
    Image.init()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def image_suffixes() -> frozenset[str]:
    """File name endings, lower case with their dot, of the formats that `load_image` reads or, of HEIC, may
    have to ask for the package that does."""
    formats = _formats()
    known = (suffix for suffix, kind in Image.registered_extensions().items() if kind in formats)
    return frozenset({".heic", ".heif", *known})


def image_files(folder: Path) -> list[Path]:
    """The pictures in a folder and its subfolders by `image_suffixes`, none of them hidden, sorted."""
    return visible_files(folder, image_suffixes())


def _is_heic(file: str | os.PathLike | BinaryIO) -> bool:
    with (
        open(file, "rb") if isinstance(file, (str, os.PathLike)) else nullcontext(file) as content,
        suppress(OSError, ValueError),  # a stream may not seek
    ):
        content.seek(0)
        return content.read(12)[4:] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc")
    return False


def _name(source: object) -> str:
    if isinstance(source, (str, os.PathLike)):
        return f"'{os.fspath(source)}'"
    name = getattr(source, "name", None) or getattr(source, "filename", None)
    return f"'{name}'" if isinstance(name, str) else "The image"


def _too_large(name: str) -> str:
    return f"{name} is too large: at most {MAX_PIXELS // 1_000_000} megapixels can be read."


def _check_size(image: Image.Image, name: str) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(_too_large(name))
    if not image.width or not image.height:
        raise ImageError(f"{name} has no pixels.")


def _finish(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # decoders of damaged files raise OSError, ValueError, struct.error, ...
        raise ImageError(f"{name} is damaged or cut short ({reason(error)}).") from error
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF must not cost the picture: it is taken as it lies
        upright = image.copy()
    try:
        return _to_rgb(upright)
    except ValueError as error:
        raise ImageError(f"{name} has colours that cannot be turned into RGB ({reason(error)}).") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _scale_to_8bit(image)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", image.size, BACKGROUND)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_to_8bit(image: Image.Image) -> Image.Image:
    """Scale by the smallest usual full scale that holds the values; Pillow's own conversion clips at 255."""
    values = np.nan_to_num(np.asarray(image).astype(np.float32), posinf=0.0, neginf=0.0).clip(min=0)
    if image.mode.startswith("I;16"):
        full = 65535.0
    else:
        top = float(values.max())
        usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
        full = next((limit for limit in usual if top <= limit), top)
    return Image.fromarray((values * (255.0 / full) + 0.5).astype(np.uint8))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"An image array must be (H, W), (H, W, 3) or (H, W, 4), not {tuple(array.shape)}.")
    height, width = array.shape[:2]
    if not array.size:
        raise ImageError("The image array has no pixels.")
    if height * width > MAX_PIXELS:
        raise ImageError(_too_large("The image array"))
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        array = ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        # resizing overshoots by a rounding error; also False for NaN
        if not (array.min() >= -FLOAT_SLACK and array.max() <= 1 + FLOAT_SLACK):
            raise ImageError(
                f"A float image array must have values in 0..1, not {array.min():g}..{array.max():g}; "
                "values in 0..255 can be given as uint8."
            )
        array = (array.clip(0, 1) * 255 + 0.5).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise ImageError(f"An image array must be of dtype uint8, uint16, bool or float, not {array.dtype}.")
    return Image.fromarray(np.ascontiguousarray(array))
