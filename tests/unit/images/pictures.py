"""Pictures of every format, made on the fly by the real codecs."""

from __future__ import annotations

import importlib.util
import io
from typing import Any

import numpy as np
from PIL import Image

HAS_HEIF = importlib.util.find_spec("pillow_heif") is not None


def scene(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth RGB picture whose four corners differ: red, green, blue, grey."""
    x = np.linspace(0, 1, width)[None, :, None]
    y = np.linspace(0, 1, height)[:, None, None]
    corners = [np.array(c, float) for c in ((220, 30, 30), (30, 200, 30), (30, 30, 210), (128, 128, 128))]
    top = corners[0] * (1 - x) + corners[1] * x
    bottom = corners[2] * (1 - x) + corners[3] * x
    return Image.fromarray(np.rint(top * (1 - y) + bottom * y).astype(np.uint8))


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a picture in Pillow's format `kind` (HEIF: by pillow-heif)."""
    stream = io.BytesIO()
    if kind == "HEIF":
        import pillow_heif

        file = pillow_heif.from_pillow(picture)
        file.save(stream, **options)
    else:
        picture.save(stream, kind, **options)
    return stream.getvalue()


def samples() -> dict[str, bytes]:
    """One small file of each kind and of the varieties that take another way through the decoder."""
    picture = scene()
    grey16 = Image.fromarray(np.linspace(0, 65535, 32 * 24).astype(np.uint16).reshape(24, 32))
    frames = [scene(), scene().transpose(Image.Transpose.ROTATE_180)]
    found = {
        "jpeg": encoded(picture, "JPEG", quality=92),
        "jpeg-progressive": encoded(picture, "JPEG", progressive=True, exif=exif_of(6)),
        "jpeg-cmyk": encoded(picture.convert("CMYK"), "JPEG"),
        "png": encoded(picture, "PNG"),
        "png-16": encoded(grey16, "PNG"),
        "png-palette": encoded(picture.quantize(16), "PNG", transparency=0),
        "webp": encoded(picture, "WEBP"),
        "webp-lossless-alpha": encoded(picture.convert("RGBA"), "WEBP", lossless=True),
        "webp-animated": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "avif": encoded(picture, "AVIF"),
        "gif": encoded(picture, "GIF"),
        "gif-animated": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "tiff": encoded(picture, "TIFF"),
        "tiff-lzw": encoded(picture, "TIFF", compression="tiff_lzw"),
        "tiff-16": encoded(grey16, "TIFF"),
        "tiff-jpeg": encoded(picture, "TIFF", compression="jpeg"),
        "bmp": encoded(picture, "BMP"),
        "mpo": encoded(frames[0], "MPO", save_all=True, append_images=frames[1:]),
        "jp2": encoded(picture, "JPEG2000"),
    }
    if HAS_HEIF:
        found["heic"] = encoded(picture, "HEIF", quality=90)
    return found


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
