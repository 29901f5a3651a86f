"""GIF: its comments, where the web UI writes its parameters, and its XMP.

Sources: GIF89a (CompuServe, 1990), 18 to 26; XMP Specification Part 3 (Adobe, 2020), 1.1.2. What stands behind the
trailer is not read.
"""

from __future__ import annotations

from mai.provenance import xmp
from mai.provenance.reading import MAX_PARTS, Reading, decoded

_XMP = b"\x0bXMP DataXMP"
_TRAILER_BYTES = 258
"""Behind an XMP packet, which is not cut into blocks: so many bytes that a walk over blocks ends at the last."""


def read(data: bytes, reading: Reading) -> None:
    """Add the comments and the XMP of a GIF."""
    at, left = 13 + _table(data[10:11]), MAX_PARTS
    while at + 1 < len(data) and left > 0:
        kind, label, start = data[at], data[at + 1], at + 2
        if kind == 0x2C:  # a picture: its place, perhaps its colours, then its pixels
            start = at + 10 + _table(data[at + 9 : at + 10]) + 1
        elif kind != 0x21:
            return
        at, left = _skip(data, start, left)
        if at > len(data):
            break
        if kind == 0x21 and label == 0xFE:
            block = reading.take(_joined(data, start), "comment")
            reading.add("comment", "GIF", decoded(block).rstrip("\0"))
        elif kind == 0x21 and label == 0xFF and data[start : start + len(_XMP)] == _XMP:
            packet = memoryview(data)[start + len(_XMP) : max(start + len(_XMP), at - _TRAILER_BYTES)]
            xmp.read(reading.take(packet, "XMP"), reading)
    if left <= 0:
        reading.problem(f"It has more than {MAX_PARTS:,} blocks; the rest was not read.")


def _table(flags: bytes) -> int:
    """Bytes of the colour table that a byte of flags announces."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def _skip(data: bytes, at: int, left: int) -> tuple[int, int]:
    """Behind the blocks that begin here (beyond the end, if they are cut), and how many more may be walked."""
    while at < len(data) and left > 0:
        size = data[at]
        at, left = at + 1 + size, left - 1
        if not size:
            return at, left
    return len(data) + 1, left


def _joined(data: bytes, at: int) -> bytes:
    """The bytes of whole blocks, without their lengths."""
    parts = []
    while data[at]:
        parts.append(data[at + 1 : at + 1 + data[at]])
        at += 1 + data[at]
    return b"".join(parts)
