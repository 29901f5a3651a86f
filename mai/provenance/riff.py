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
