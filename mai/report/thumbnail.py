"""A picture made small for a page, as JPEG: whatever the file held, a page shows only these pixels."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mai.types import Pixels

THUMBNAIL_PX = 128
"""Longest side of a thumbnail: 64 CSS pixels on a screen of two device pixels each."""

THUMBNAIL_QUALITY = 75


def jpeg(pixels: Pixels, max_px: int, quality: int = THUMBNAIL_QUALITY) -> bytes:
    """The picture as JPEG, its shape kept, no metadata; never enlarged.

    Args:
        pixels: uint8 RGB (H, W, 3).
        max_px: longest side wanted.
        quality: of Pillow's JPEG encoder, 1..95.
    """
    from PIL import Image

    picture = Image.fromarray(pixels)
    # A 10,000 x 3 pixel strip would round to no rows at all; Pillow keeps one.
    picture.thumbnail((max_px, max_px), Image.Resampling.BICUBIC, reducing_gap=2.0)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def data_url(data: bytes, kind: str = "jpeg") -> str:
    """Image bytes as an address that a page carries in itself."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
