"""Pillow's readers behind a border: opened within the limits, their errors and warnings translated."""

from __future__ import annotations

import importlib
import io
import logging
import os
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image as Pil

from mai.errors import ImageError, MissingExtraError, require
from mai.images import kinds

# Pillow logs an error for a few broken TIFF files; without any handler Python would print it on stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_OPENERS = {
    "JPEG": ("PIL.JpegImagePlugin", "jpeg_factory"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "WEBP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "JPEG2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
}
"""Kind -> Pillow's reader. Called directly: `PIL.Image.open` tries readers by turns, knows others that start
programs (EPS), and has a limit on pixels that only a global variable moves."""


_LISTS = (".txt", ".lst", ".list")


def openable_kind(data: bytes, path: str) -> str:
    """The kind that the first bytes show, one of kinds.OPENABLE."""
    if not data:
        raise ImageError("empty", "The file has no bytes.")
    kind = kinds.of_bytes(data[: kinds.HEAD_BYTES])
    if kind is None:
        claimed = kinds.of_name(path)
        if claimed is not None and claimed not in kinds.OPENABLE:
            raise _unsupported(claimed)
        hint = (
            f" To scan the files that a list names: mai scan @{path}" if path.lower().endswith(_LISTS) else ""
        )
        raise ImageError("not_an_image", f"No image format that MAI knows begins like this file.{hint}")
    if kind == "TIFF" and kinds.of_name(path) == "camera raw":
        kind = "camera raw"  # NEF, ARW, DNG and others are TIFF files whose first picture is a thumbnail
    if kind not in kinds.OPENABLE:
        raise _unsupported(kind)
    return kind


def _unsupported(kind: str) -> ImageError:
    what = {"video": "single frames", "PDF document": "its pages or the pictures in it"}.get(kind, "it")
    return ImageError(
        "unsupported", f"MAI does not read this kind of file ({kind}). Save {what} as PNG or JPEG."
    )


def open_lazily(kind: str, data: bytes, max_pixels: int) -> Any:
    """Pillow's lazy image of the first frame, within the limits."""
    declared = kinds.declared_size(kind, data)
    if declared is not None:
        check_pixels(declared, max_pixels)
    if kind == "HEIF":
        picture = require("pillow_heif", "heif", "Reading HEIC and HEIF").HeifImageFile(io.BytesIO(data))
    else:
        module, name = _OPENERS[kind]
        picture = getattr(importlib.import_module(module), name)(io.BytesIO(data))
    check_pixels(picture.size, max_pixels)
    if kind == "TIFF":
        _check_tiff(picture.tag_v2, max_pixels)
    return picture


def _check_tiff(tags: Any, max_pixels: int) -> None:
    """Refuse camera raw, of which Pillow would show the thumbnail, and tiles larger than the limit.

    Sources: TIFF 6.0, sections 8 and 15; DNG 1.7, chapter 4 (DNGVersion 50706, SubIFDs 330).
    """
    is_thumbnail = isinstance(tags.get(254), int) and tags.get(254) & 1
    if 50706 in tags or (is_thumbnail and 330 in tags):
        raise _unsupported("camera raw")
    tile = tags.get(322, 0), tags.get(323, 0)
    if all(isinstance(side, int) for side in tile):
        # A tile may be larger than its picture; libtiff allocates it whole.
        check_pixels((max(tile[0], 1), max(tile[1], 1)), max_pixels)


def check_pixels(size: tuple[int, int], max_pixels: int) -> None:
    """Raise ImageError if the picture is larger than the limit, or has no pixel."""
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            "too_large",
            f"The picture has {width:,} x {height:,} pixels ({width * height / 1e6:,.0f} million); "
            f"the limit is {max_pixels / 1e6:,.0f} million.",
        )
    if width < 1 or height < 1:
        raise ImageError("not_an_image", f"The header states a picture of {width} x {height} pixels.")


def orientation(picture: Pil.Image, kind: str, data: bytes) -> int:
    """EXIF orientation 1..8; 1 if there is none or it cannot be read, or once Pillow has turned a TIFF."""
    try:
        if kind == "PNG" and "exif" not in picture.info:
            late = _late_exif(data)
            if late:
                picture.info["exif"] = late
        # The base class: PNG's own would decode all pixels in search of a late chunk.
        value = Pil.Image.getexif(picture).get(0x0112, 1)
    except Exception:  # EXIF is foreign bytes; nothing in it is worth a picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _late_exif(data: bytes) -> bytes | None:
    """The eXIf chunk of a PNG wherever it stands: ExifTool writes it behind the pixels."""
    if data.rfind(b"eXIf") < 0:
        return None
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"eXIf":
            return b"Exif\0\0" + data[at + 8 : at + 8 + length]
        at += 12 + length
    return None


@contextmanager
def translated(kind: str, data: bytes, stage: str) -> Iterator[None]:
    """Turn whatever Pillow and its codecs raise into one ImageError; `stage` is `header` or `pixels`."""
    try:
        yield
    except ImageError:
        raise
    except MissingExtraError as error:
        raise ImageError("unsupported", error.plain) from error
    except Pil.DecompressionBombError as error:
        raise ImageError("too_large", f"Pillow refuses a {kind} of that many pixels.") from error
    except MemoryError as error:
        raise ImageError("too_large", "The picture needs more memory than there is.") from error
    except Exception as error:
        raise _damage(error, kind, data, stage) from error


def _damage(error: Exception, kind: str, data: bytes, stage: str) -> ImageError:
    told = " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
    if isinstance(
        error.__cause__ or error, struct.error
    ):  # its words are about Pillow's code, not about the file
        told = "a field has too few bytes"
    lower = told.lower()
    if isinstance(error, NotImplementedError) or any(word in lower for word in _UNSUPPORTED):
        return ImageError(
            "unsupported", f"This variety of {kind} is not supported ({told}). Save it as PNG or JPEG."
        )
    if kinds.is_cut(kind, data):
        if "truncated" in lower:  # Pillow's words say no more
            return ImageError("truncated", f"The {kind} breaks off before its end. Get the file again.")
        return ImageError("truncated", f"The {kind} breaks off before its end ({told}). Get the file again.")
    if stage == "header":
        return ImageError("not_an_image", f"It begins like {kind}, but its header cannot be read ({told}).")
    return ImageError("truncated", f"The {kind} is damaged ({told}). Get the file again.")


_UNSUPPORTED = ("unsupported", "not supported", "not available", "unknown pixel mode", "not installed")


_stderr_lock = threading.Lock()


@contextmanager
def quiet_libtiff(kind: str) -> Iterator[None]:
    """Keep what libtiff writes on stderr about a damaged file from the user: Pillow leaves its handler on.

    While a TIFF is decoded, what other threads of this process write on stderr is lost too.
    """
    if kind != "TIFF":
        yield
        return
    with _stderr_lock:
        try:
            kept = os.dup(2)
        except OSError:  # no stderr, nothing to keep quiet
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class _Quiet:
    """Counts who is inside: with `warnings.catch_warnings` threads would restore one another's filters."""

    lock = threading.Lock()
    n_inside = 0
    entry: Any = None


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep warnings that Pillow's modules raise (corrupt EXIF and the like) from the user's stderr."""
    with _Quiet.lock:
        if _Quiet.n_inside == 0:
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif)\b")
            _Quiet.entry = warnings.filters[0]
        _Quiet.n_inside += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.n_inside -= 1
            if _Quiet.n_inside == 0 and _Quiet.entry in warnings.filters:
                warnings.filters.remove(_Quiet.entry)  # type: ignore[attr-defined]
