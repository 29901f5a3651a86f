"""WebP: the chunks `EXIF` and `XMP ` of its RIFF container, wherever they stand in it.

Source: RFC 9649, 2.3 to 2.7. What lies behind the size that the container states is not read.
"""

from __future__ import annotations

from mai.provenance import exif, xmp
from mai.provenance.reading import MAX_PARTS, Reading


def read(data: bytes, reading: Reading) -> None:
    """Add the fields of a WebP file."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    at, seen = 12, set[bytes]()
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if at + 8 + length > end:
            return
        if kind in (b"EXIF", b"XMP ") and kind not in seen:  # readers take the first of each
            seen.add(kind)
            block = reading.take(memoryview(data)[at + 8 : at + 8 + length], kind.decode().strip())
            (exif if kind == b"EXIF" else xmp).read(block, reading)
        at += 8 + length + length % 2
    reading.problem(f"It has more than {MAX_PARTS:,} chunks; the rest was not read.")


def has_still_alpha(data: bytes) -> bool:
    """Whether the file is one picture with an alpha channel, by its header (RFC 9649, 2.7) or its lossless stream."""
    if data[12:16] == b"VP8L":
        return len(data) > 24 and data[20] == 0x2F and bool(data[24] & 0x10)
    if data[12:16] != b"VP8X" or len(data) < 21:
        return False
    return bool(data[20] & 0x10) and not data[20] & 0x02
