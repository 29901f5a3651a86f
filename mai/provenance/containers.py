"""A file's bytes -> all fields that its container holds in their place."""

from __future__ import annotations

from collections.abc import Callable

from mai.images import kinds
from mai.provenance import boxes, exif, gif, jpeg, png, riff, samsung
from mai.provenance.reading import Reading

_READERS: dict[str, Callable[[bytes, Reading], None]] = {
    "PNG": png.read,
    "JPEG": jpeg.read,
    "WEBP": riff.read,
    "AVIF": boxes.read,
    "HEIF": boxes.read,
    "JPEG2000": boxes.read_jpeg2000,
    "TIFF": exif.read_tiff,
    "GIF": gif.read,
}
"""Kind (mai.images.kinds) -> its reader. BMP has no place where a generator is known to write."""


def read(data: bytes) -> Reading:
    """Read what a file says, within the limits of `reading.py`; damage is a problem in the answer, never raised.

    Args:
        data: the whole encoded file.
    """
    kind = kinds.of_bytes(data[: kinds.HEAD_BYTES])
    reading = Reading(kind)
    if kind not in _READERS:
        return reading
    try:
        _READERS[kind](data, reading)
        if kind in ("JPEG", "PNG"):
            samsung.read(memoryview(data), reading)
    except Exception as error:  # foreign bytes; what was read before the damage stands
        reading.problem(f"The {kind} is damaged ({type(error).__name__}); the rest was not read.")
    return reading
