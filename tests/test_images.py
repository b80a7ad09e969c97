"""load_image: every kind of file a visitor may have, and one clear sentence for what is none."""

from __future__ import annotations

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw, features

from fer_zoo import images
from fer_zoo.images import BACKGROUND, ImageError, load_image


def picture(width: int = 40, height: int = 30) -> Image.Image:
    """Four corners of four colours, so that any turn or flip shows."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    w, h = width // 2, height // 2
    for (x, y), colour in zip(
        ((0, 0), (w, 0), (0, h), (w, h)), ("red", "lime", "blue", "yellow"), strict=True
    ):
        draw.rectangle((x, y, x + w - 1, y + h - 1), colour)
    return image


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(a: Image.Image, b: Image.Image) -> float:
    return float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "HEIF"])
def test_every_format_gives_the_picture(kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    if kind == "HEIF":
        pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif").register_heif_opener()
    image = load_image(encode(picture(48, 32), kind))
    assert image.mode == "RGB"
    assert image.size == (48, 32)
    assert difference(image, picture(48, 32)) < 12


def test_heic_without_its_package_asks_for_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    images._formats.cache_clear()
    photo = b"\0\0\0\x18ftypheic" + bytes(12)
    (tmp_path / "photo.HEIC").write_bytes(photo)
    for source in (photo, tmp_path / "photo.HEIC"):
        with pytest.raises(ImageError, match="pip install pillow-heif"):
            load_image(source)
    assert ".heic" in images.image_suffixes(), "a folder's are not passed over in silence"
    monkeypatch.undo()
    images._formats.cache_clear()


def test_every_kind_of_source_gives_the_same_pixels(tmp_path):
    data = encode(picture(), "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    with open(path, "rb") as file:
        sources = [
            path,
            str(path),
            data,
            bytearray(data),
            io.BytesIO(data),
            file,
            picture(),
            np.asarray(picture()),
        ]
        images = [load_image(source) for source in sources]
        assert not file.closed
    assert all(image.tobytes() == picture().tobytes() for image in images)


def test_the_callers_image_is_left_alone():
    source = picture()
    load_image(source).paste("white", (0, 0, 40, 30))
    assert source.tobytes() == picture().tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation, kind):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = picture() if orientation == 1 else picture().transpose(undo[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = load_image(encode(stored, kind, exif=exif))
    assert image.size == (40, 30)
    assert difference(image, picture()) < 12
    assert image.getexif().get(0x0112, 1) == 1, "a second reading would turn the picture again"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(
    "exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\0\x09"]
)
def test_broken_exif_does_not_cost_the_picture(exif):
    assert difference(load_image(encode(picture(), "JPEG", exif=exif)), picture()) < 12


def test_impossible_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 99
    assert difference(load_image(encode(picture(), "JPEG", exif=exif)), picture()) < 12


def test_first_frame_of_an_animation():
    frames = [picture(), Image.new("RGB", (40, 30), "black")]
    data = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert difference(load_image(data), picture()) < 12


def test_cmyk_and_palette():
    assert difference(load_image(encode(picture().convert("CMYK"), "JPEG")), picture()) < 12
    assert difference(load_image(encode(picture().quantize(8), "PNG")), picture()) < 2
    assert np.unique(load_image(encode(picture().convert("1"), "PNG"))).tolist() == [0, 255]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_gray_is_scaled_and_not_clipped(kind):
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    image = load_image(encode(Image.fromarray(ramp), kind))
    assert np.array_equal(np.asarray(image)[..., 0], np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0, 1e6])
def test_float_tiff_is_scaled(full):
    ramp = np.linspace(0, full, 256, dtype=np.float32).reshape(16, 16)
    image = load_image(encode(Image.fromarray(ramp), "TIFF"))
    assert np.abs(np.asarray(image)[..., 0].astype(int) - np.arange(256).reshape(16, 16)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_neutral_gray(mode):
    half = Image.new("RGBA", (4, 2), (255, 255, 255, 255))
    half.paste((0, 0, 0, 0), (0, 0, 2, 2))
    pixels = np.asarray(load_image(encode(half.convert(mode), "PNG")))
    assert (pixels[:, :2] == BACKGROUND).all()
    assert (pixels[:, 2:] == 255).all()


@pytest.mark.parametrize(
    "array, pixel",
    [
        (np.full((5, 4), 65535, np.uint16), 255),
        (np.full((5, 4), 257 * 100, np.uint16), 100),
        (np.full((5, 4), 257 * 100, ">u2"), 100),
        (np.ones((5, 4), bool), 255),
        (np.full((5, 4, 3), 0.5, np.float32), 128),
        (np.full((5, 4, 3), 1.0000001, np.float32), 255),
        (np.full((5, 4), -1e-6), 0),
        (np.full((5, 4, 1), 7, np.uint8), 7),
        (np.full((5, 4, 4), 255, np.uint8), 255),
        (np.full((10, 8, 3), 9, np.uint8)[::2, ::2], 9),
    ],
)
def test_arrays(array, pixel):
    image = load_image(array)
    assert image.size == (4, 5)
    assert (np.asarray(image) == pixel).all()


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((3, 20, 20), np.uint8), "(H, W, 3)"),
        (np.zeros((2, 5, 5, 3), np.uint8), "(H, W, 3)"),
        (np.zeros((0, 5, 3), np.uint8), "no pixels"),
        (np.zeros((5, 5), np.int64), "uint8"),
        (np.full((5, 5), 200.0), "0..1"),
        (np.full((5, 5), np.nan), "0..1"),
        (np.full((5, 5), -0.1), "0..1"),
    ],
)
def test_bad_arrays(array, words):
    with pytest.raises(ImageError) as error:
        load_image(array)
    assert words in str(error.value)


def test_one_pixel():
    assert load_image(encode(Image.new("RGB", (1, 1), "red"), "PNG")).getpixel((0, 0)) == (255, 0, 0)


def test_24_megapixels_keep_their_size():
    image = load_image(encode(picture(6000, 4000), "JPEG"))
    assert image.size == (6000, 4000)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares its size and holds no pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_000, 10_000, 100_000])
def test_bombs_are_refused_by_their_header(side):
    with pytest.raises(ImageError, match="too large: at most 80 megapixels"):
        load_image(png_header(side, side))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
def test_truncated_files(kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8))
    data = encode(noise, kind)
    with pytest.raises(ImageError):
        load_image(data[: int(len(data) * share)])


@pytest.mark.parametrize(
    "data", [b"", b"hello, I am a text", b"%PDF-1.7 ...", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]
)
def test_what_is_no_image(data, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    for source in (data, path):
        with pytest.raises(ImageError) as error:
            load_image(source)
        message = str(error.value)
        assert message.endswith(".")
        assert "\n" not in message
    assert "photo.jpg" in message


def test_formats_that_run_programs_are_not_opened():
    postscript = encode(picture(), "EPS")
    with pytest.raises(ImageError, match="not an image that can be read"):
        load_image(postscript)


def test_missing_file_folder_and_wrong_type(tmp_path):
    with pytest.raises(ImageError, match=r"no file .*gone\.jpg"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(ImageError, match="not int"):
        load_image(5)
