"""Samsung's own trailer: named blocks behind the picture, with a directory at the very end of the file.

    [block]... SEFH version count (0, type, distance, size)... length SEFT      all little-endian

A block is `0, type, length of its name, name, value`. In HEIC the whole stands in a box `sefd`. A bare string
behind the end of a picture is none of this and is not read.

Source: ExifTool, lib/Image/ExifTool/Samsung.pm, ProcessSamsung (the format is not published).
"""

from __future__ import annotations

import struct

from mai.provenance.reading import Reading, decoded

WANTED = ("PhotoEditor_Re_Edit_Data", "PEg_Info")
"""The editor's notes, and what it notes of pictures that it generated."""
_MAX_ENTRIES = 256


def read(trailer: bytes | memoryview, reading: Reading) -> None:
    """Add the editor's block of a file, or `sefd` box, that ends with Samsung's directory."""
    size = len(trailer)
    if size < 20 or trailer[-4:] != b"SEFT":
        return
    (length,) = struct.unpack_from("<I", trailer, size - 8)
    start = size - 8 - length
    if length < 12 or start < 0 or trailer[start : start + 4] != b"SEFH":
        return
    (count,) = struct.unpack_from("<I", trailer, start + 8)
    for index in range(min(count, _MAX_ENTRIES, (length - 12) // 12)):
        distance, n_bytes = struct.unpack_from("<II", trailer, start + 12 + 12 * index + 4)
        if not 8 <= n_bytes <= distance <= start:
            continue
        block = trailer[start - distance : start - distance + n_bytes]
        (n_name,) = struct.unpack_from("<I", block, 4)
        name = decoded(bytes(block[8 : 8 + min(n_name, 64)]))
        if name in WANTED:
            text = reading.take(block[8 + n_name :], "Samsung editor block")
            reading.add("samsung", name, decoded(text).rstrip("\0"))
