"""IPTC-IIM, alone (TIFF) or in Photoshop's resource 0x0404 (JPEG): the fields that say who made a picture.

Sources: IPTC-NAA Information Interchange Model 4.2, 1.5 and 6; Adobe Photoshop File Formats, 'Image resource
blocks'.
"""

from __future__ import annotations

import struct

from mai.provenance.reading import MAX_PARTS, Reading, decoded

_IIM = 0x0404
_NAMES = {65: "OriginatingProgram", 110: "Credit"}
"""Data sets of record 2 that a rule reads. The caption (2:120) is a person's text and not asked."""


def read_resources(block: bytes, reading: Reading) -> None:
    """Add the IPTC fields among Photoshop's image resources."""
    at = 0
    for _ in range(MAX_PARTS):
        if block[at : at + 4] != b"8BIM" or at + 7 > len(block):
            return
        name = block[at + 6]
        at_size = at + 6 + (1 + name + 1) // 2 * 2  # a Pascal string, padded to an even length
        if at_size + 4 > len(block):
            return
        (size,) = struct.unpack_from(">I", block, at_size)
        if at_size + 4 + size > len(block):
            return
        if block[at + 4 : at + 6] == _IIM.to_bytes(2, "big"):
            read(block[at_size + 4 : at_size + 4 + size], reading)
        at = at_size + 4 + size + size % 2


def read(block: bytes, reading: Reading) -> None:
    """Add the fields of a row of IIM data sets."""
    at = 0
    for _ in range(MAX_PARTS):
        if at + 5 > len(block) or block[at] != 0x1C:
            return
        record, number = block[at + 1], block[at + 2]
        (size,) = struct.unpack_from(">H", block, at + 3)
        at += 5
        if size & 0x8000:  # extended: the length follows in that many bytes
            width = size & 0x7FFF
            if width > 4 or at + width > len(block):
                return
            size = int.from_bytes(block[at : at + width], "big")
            at += width
        if at + size > len(block):
            return
        if record == 2 and number in _NAMES:
            reading.add("iptc", _NAMES[number], decoded(block[at : at + size]).strip("\0 "))
        at += size
