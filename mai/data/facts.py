"""What a file shows without its picture: container, size, shape, chroma, quality. A detector must not see these."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mai.images import pillow

if TYPE_CHECKING:
    from mai.types import Image

# The luminance table of quality 50, natural order. Source: ITU-T T.81 (JPEG), table K.1.
_LUMINANCE = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_SAMPLINGS = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts of one encoded picture.

    Attributes:
        format: Pillow's name of the container.
        width: columns of the upright picture, in pixels.
        height: rows.
        n_bytes: size of the file in bytes.
        subsampling: of the chroma: `4:4:4`, `4:2:2`, `4:2:0`, `other`; None where the format states none.
        quality: of a JPEG, 1..100, None for others; see `jpeg_quality`.
        is_lossless: of a WebP, None for others.
    """

    format: str
    width: int
    height: int
    n_bytes: int
    subsampling: str | None = None
    quality: int | None = None
    is_lossless: bool | None = None


def read_facts(image: Image) -> FileFacts:
    """The facts of an image that `mai.images.decode.read` returned; no pixel is decoded."""
    info, data = image.info, image.data or b""
    subsampling: str | None = None
    quality: int | None = None
    is_lossless: bool | None = None
    if data[:2] == b"\xff\xd8":
        from PIL import JpegImagePlugin

        with pillow.quiet_pillow():
            picture = pillow.open_lazily("JPEG", data, info.width * info.height)
            if isinstance(picture, JpegImagePlugin.JpegImageFile):
                grey = picture.mode == "L"
                sampling = JpegImagePlugin.get_sampling(picture)
                subsampling = None if grey else _SAMPLINGS.get(sampling, "other")
                tables = picture.quantization
                quality = jpeg_quality(tables[0]) if 0 in tables else None
    elif data[8:12] == b"WEBP":
        is_lossless = b"VP8L" in data[12 : 2**16] and b"VP8 " not in data[12 : 2**16]
        subsampling = None if is_lossless else "4:2:0"  # RFC 6386, section 2: VP8 is always 4:2:0
    return FileFacts(info.format, info.width, info.height, len(data), subsampling, quality, is_lossless)


def jpeg_quality(table: list[int]) -> int:
    """The quality, 1..100, whose luminance table of the Independent JPEG Group's scale is nearest.

    Programs with tables of their own (cameras, Photoshop) get the quality that comes nearest to theirs.

    Args:
        table: 64 divisors in natural order.
    """
    distance = np.abs(_tables() - np.asarray(table, np.float64)).sum(axis=1)
    return 100 - int(np.argmin(distance[::-1]))


@lru_cache(maxsize=1)
def _tables() -> NDArray[np.float64]:
    base = np.array([int(value) for value in _LUMINANCE.split()], np.float64)
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)  # jpeg_quality_scaling of libjpeg
    return np.clip((base * scale + 50) // 100, 1, 255)
