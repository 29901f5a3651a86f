"""AVIF and HEIC: the Exif and XMP items of the meta box, Samsung's box; JPEG 2000: its XMP box.

Sources: ISO/IEC 14496-12 (ISO base media file format), 4.2, 8.11; ISO/IEC 23008-12 (HEIF), annex A;
ISO/IEC 15444-1, I.7; XMP Specification Part 3, 1.1.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from mai.provenance import exif, samsung, xmp
from mai.provenance.reading import MAX_PARTS, Reading

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_XMP_TYPE = b"application/rdf+xml"
_MAX_ITEMS = 16
"""Exif and XMP items read of one file; files have one each, or one a picture."""


@dataclass(slots=True)
class _Item:
    """Where an item's bytes lie: (offset, length) in the file, or in the meta box's own data."""

    kind: str
    in_meta: bool = False
    extents: list[tuple[int, int]] = field(default_factory=list)


def walk(data: memoryview, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and end of the content of each box between two offsets."""
    at = start
    for _ in range(MAX_PARTS):
        if at + 8 > end:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1 and at + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        elif size == 0:
            size = end - at
        if size < head or at + size > end:
            return
        yield kind, at + head, at + size
        at += size


def read(data: bytes, reading: Reading) -> None:
    """Add the fields of an AVIF or HEIC file."""
    view = memoryview(data)
    is_read = False
    for kind, start, end in walk(view, 0, len(data)):
        if kind == b"meta" and not is_read:
            is_read = True
            _read_meta(view, start + 4, end, reading)
        elif kind == b"sefd":
            samsung.read(view[start:end], reading)


def read_jpeg2000(data: bytes, reading: Reading) -> None:
    """Add the XMP of a JPEG 2000 file."""
    for kind, start, end in walk(memoryview(data), 0, len(data)):
        if kind == b"uuid" and data[start : start + 16] == _XMP_UUID:
            xmp.read(reading.take(memoryview(data)[start + 16 : end], "XMP"), reading)
            return


def _read_meta(view: memoryview, start: int, end: int, reading: Reading) -> None:
    items: dict[int, _Item] = {}
    boxes = {kind: (at, stop) for kind, at, stop in walk(view, start, end)}
    if b"iinf" not in boxes or b"iloc" not in boxes:
        return
    for number, kind in _wanted(view, *boxes[b"iinf"]):
        if len(items) < _MAX_ITEMS:
            items[number] = _Item(kind)
    if not items:
        return
    _locate(view[slice(*boxes[b"iloc"])], items)
    own = view[slice(*boxes[b"idat"])] if b"idat" in boxes else view[:0]
    for item in items.values():
        block = _content(item, own if item.in_meta else view, reading)
        if item.kind == "XMP":
            xmp.read(block, reading)
        elif len(block) > 4:  # a 32-bit offset to the TIFF header stands before it
            exif.read(block[4 + int.from_bytes(block[:4], "big") :], reading)


def _wanted(view: memoryview, start: int, end: int) -> Iterator[tuple[int, str]]:
    """Number and kind of the Exif and XMP items in the box `iinf`."""
    version = view[start]
    start += 4 + (2 if version == 0 else 4)
    for kind, at, stop in walk(view, start, end):
        if kind != b"infe" or stop - at < 12:
            continue
        version, wide = view[at], view[at] >= 3
        if version < 2:
            continue
        number = int.from_bytes(view[at + 4 : at + (8 if wide else 6)], "big")
        at += 10 if wide else 8  # flags, number, protection
        item_type = bytes(view[at : at + 4])
        if item_type == b"Exif":
            yield number, "EXIF"
        elif item_type == b"mime":
            texts = bytes(view[at + 4 : min(stop, at + 4 + 512)]).split(b"\0")  # name, content type, encoding
            if len(texts) > 1 and texts[1] == _XMP_TYPE and not (len(texts) > 2 and texts[2]):
                yield number, "XMP"


def _locate(box: memoryview, items: dict[int, _Item]) -> None:
    """Fill in where the items lie, from the box `iloc`."""
    version = box[0]
    n_offset, n_length = box[4] >> 4, box[4] & 15
    n_base, n_index = box[5] >> 4, (box[5] & 15) if version in (1, 2) else 0
    at, n_number = 6, 4 if version == 2 else 2

    def number(n_bytes: int) -> int:
        nonlocal at
        if at + n_bytes > len(box):
            raise ValueError("iloc is cut")
        at += n_bytes
        return int.from_bytes(box[at - n_bytes : at], "big")

    n_read = 0
    for _ in range(number(n_number)):
        item = items.get(number(n_number))
        method = number(2) & 15 if version in (1, 2) else 0
        number(2)  # another file, by reference
        base = number(n_base)
        n_extents = number(2)
        if (
            not n_index + n_offset + n_length
        ):  # they take no room and say nothing: 65,535 would cost nothing to claim
            n_extents = min(n_extents, 1)
        for _ in range(n_extents):
            n_read += 1
            if n_read > MAX_PARTS:
                return
            number(n_index)
            extent = base + number(n_offset), number(n_length)
            if item is not None and method in (0, 1):
                item.in_meta = method == 1
                item.extents.append(extent)


def _content(item: _Item, data: memoryview, reading: Reading) -> bytes:
    """The bytes of an item, joined within the limits."""
    total = sum(length for _, length in item.extents)
    if total > reading.allowance() or len(item.extents) > 256:
        reading.problem(f"The {item.kind} item has {total:,} bytes, over the limit; it was not read.")
        return b""
    if any(offset + length > len(data) for offset, length in item.extents):
        reading.problem(f"The {item.kind} item lies outside of the file; it was not read.")
        return b""
    return reading.take(
        b"".join(data[offset : offset + length] for offset, length in item.extents), item.kind
    )
