"""JPEG: APP1 (EXIF, XMP, extended XMP), APP13 (Photoshop resources with IPTC-IIM) and COM before the first scan.

Sources: ISO/IEC 10918-1, B.1; XMP Specification Part 3 (Adobe, 2020), 1.1.3. The entropy-coded data and what
stands behind them are not walked.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from mai.provenance import exif, iptc, xmp
from mai.provenance.reading import MAX_PARTS, Reading, decoded

EXIF_HEADER = b"Exif\0"
PHOTOSHOP_HEADER = b"Photoshop 3.0\0"
_APP1, _APP13, _COM = 0xE1, 0xED, 0xFE
_SCAN, _END = 0xDA, 0xD9
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers without a length: TEM, RST0 to RST7, SOI."""


def segments(data: bytes, reading: Reading) -> Iterator[tuple[int, memoryview]]:
    """Marker and payload of each segment up to the first scan."""
    view, at, size = memoryview(data), 2, len(data)
    for _ in range(MAX_PARTS):
        if at + 4 > size or data[at] != 0xFF:
            return
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (_SCAN, _END):
            return
        if marker in _BARE:
            at += 2
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        if length < 2 or at + 2 + length > size:
            return
        yield marker, view[at + 4 : at + 2 + length]
        at += 2 + length
    reading.problem(f"It has more than {MAX_PARTS:,} segments; the rest was not read.")


def read(data: bytes, reading: Reading) -> None:
    """Add the fields of a JPEG."""
    packets: list[bytes] = []
    extended: dict[bytes, list[tuple[int, int, memoryview]]] = {}
    resources: list[memoryview] = []
    has_exif = False
    for marker, payload in segments(data, reading):
        if marker == _APP1:
            head = bytes(payload[:40])
            if head.startswith(EXIF_HEADER) and not has_exif:
                has_exif = True
                exif.read(reading.take(payload, "EXIF"), reading)
            elif head.startswith(xmp.JPEG_HEADER) and len(packets) < 4:
                packets.append(reading.take(payload[len(xmp.JPEG_HEADER) :], "XMP"))
            elif head.startswith(xmp.EXTENDED_HEADER):
                _collect(payload[len(xmp.EXTENDED_HEADER) :], extended)
        elif marker == _APP13 and payload[: len(PHOTOSHOP_HEADER)] == PHOTOSHOP_HEADER:
            resources.append(payload[len(PHOTOSHOP_HEADER) :])
        elif marker == _COM:
            _add_comment(decoded(reading.take(payload, "comment")).rstrip("\0"), reading)
    for packet in packets:
        guid = xmp.read(packet, reading)
        if guid and (parts := extended.pop(guid, None)):
            xmp.read(_joined(parts, reading), reading)
    if resources:
        iptc.read_resources(reading.take(b"".join(resources), "Photoshop block"), reading)


def _add_comment(text: str, reading: Reading) -> None:
    """A comment; `parameters` and a zero byte before the text are stable-diffusion.cpp's keyword, as in a PNG."""
    keyword, mark, rest = text.partition("\0")
    if mark and keyword == "parameters":
        reading.add("comment", keyword, rest)
    else:
        reading.add("comment", "COM", text)


def _collect(payload: memoryview, extended: dict[bytes, list[tuple[int, int, memoryview]]]) -> None:
    """File one part of extended XMP under its GUID: 32 hexadecimal digits, full length, offset, bytes."""
    if len(payload) < 40:
        return
    full, offset = struct.unpack_from(">II", payload, 32)
    extended.setdefault(bytes(payload[:32]).upper(), []).append((full, offset, payload[40:]))


def _joined(parts: list[tuple[int, int, memoryview]], reading: Reading) -> bytes:
    """The extended packet, if its parts are all here; they may stand in any order."""
    full = parts[0][0]
    total = sum(len(part) for _, _, part in parts)
    if full > reading.allowance():
        reading.problem(f"The extended XMP states {full:,} bytes, over the limit; it was not read.")
        return b""
    if total != full:
        reading.problem(f"The extended XMP states {full:,} bytes, {total:,} are here; it was not read.")
        return b""
    packet = bytearray()
    for stated, offset, part in sorted(parts, key=lambda each: each[1]):
        if stated != full or offset != len(packet):
            reading.problem("The parts of the extended XMP do not fit together; it was not read.")
            return b""
        packet += part
    return reading.take(bytes(packet), "extended XMP")
