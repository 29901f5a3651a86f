"""Finds the C2PA manifest store of a file, only where its container puts it, without opening it.

Most files have none: this look costs microseconds, and the C2PA library is loaded at the first file that has one.
Containers: C2PA Technical Specification 2.1, appendix A.3, 'Embedding manifests into various file formats'.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PARTS = 50_000
"""Segments, chunks, boxes or tags looked at in one file; a 64 MB PNG of 8 KB chunks has 8,192."""

MAX_BOXES = 1_000
"""JUMBF boxes of one store. The library's time grows with the square of a manifest's ingredients: 500 take it 0.5 s,
1,000 take 2 s, and a 64 MB file could hold hours (measured with c2pa-python 0.38.1). A history of 60 edits with
thumbnails has 550 boxes."""

MAX_CLAIM_BYTES = 1_000_000
"""Bytes of one store beside its thumbnails: claims, assertions, signatures. The library takes up to 3 s and 180 MB
for a megabyte of small numbers; a history of 60 edits, each with a signature of 15 KB, has as much."""

C2PA_UUID = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""ISOBMFF `uuid` box of a manifest store."""

XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
"""ISOBMFF `uuid` box of XMP (XMP Specification, part 3, section 1.2.7.1)."""

XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
"""Head of a JPEG APP1 segment with XMP."""

REMOTE = b"dcterms:provenance"
"""XMP property with the address of a manifest that is not in the file."""

AVIF_BRANDS = (b"avif", b"avis")
HEIF_BRANDS = (
    b"heic",
    b"heix",
    b"hevc",
    b"heim",
    b"heis",
    b"hevm",
    b"hevs",
    b"mif1",
    b"msf1",
    b"mif2",
    b"miaf",
)


@dataclass(frozen=True, slots=True)
class Store:
    """Where a file may have a C2PA manifest.

    Attributes:
        mime: the container, as the C2PA library calls it.
        data: the embedded manifest store with its framing, None if there is none.
        is_remote: XMP has an entry about a manifest elsewhere; the library reads which.
    """

    mime: str
    data: bytes | None
    is_remote: bool


def find(data: bytes) -> Store | None:
    """The file's manifest store, None where its container has none or is not one of the six that are read."""
    reader = _reader(data)
    if reader is None:
        return None
    mime, parts = reader
    store, is_remote = [], False
    for kind, part in parts:
        if kind == "c2pa":
            store.append(bytes(part))
        elif REMOTE in bytes(part):
            is_remote = True
    if not store and not is_remote:
        return None
    return Store(mime, b"".join(store) if store else None, is_remote)


def too_much(store: bytes) -> str | None:
    """Why a store is not given to the library, which has no limits on time and memory; None where it may be."""
    start = max(store.find(b"jumb") - 4, 0)  # an ISOBMFF box has a purpose and an offset before it
    n_boxes, n_bytes = _boxes(store, start)
    # Also by their bare names, should the library read on where the walk stops at damage.
    n_boxes = max(n_boxes, store.count(b"jumd"))
    if n_boxes > MAX_BOXES:
        return f"it holds {n_boxes:,} boxes, more than the {MAX_BOXES:,} that are opened"
    if n_bytes > MAX_CLAIM_BYTES:
        return f"its claims take {n_bytes:,} bytes, more than the {MAX_CLAIM_BYTES:,} that are read"
    if b"brob" in store and b"jumdc2cm" in store:
        return "it is compressed, and a few bytes can unfold into minutes of work"
    return None


def _boxes(store: bytes, start: int) -> tuple[int, int]:
    """Number of JUMBF boxes, and bytes of content that is no embedded file (ISO/IEC 19566-5, annex A and B)."""
    n_boxes = n_bytes = 0
    open_ = [(start, len(store))]
    while open_ and n_boxes <= MAX_BOXES:
        position, end = open_.pop()
        while position + 8 <= end:
            length, kind = struct.unpack_from(">I4s", store, position)
            head = 8
            if length == 1:
                length, head = int.from_bytes(store[position + 8 : position + 16], "big"), 16
            elif length == 0:
                length = end - position
            if length < head or position + length > end:  # damaged: what follows may be anything
                return n_boxes, n_bytes + end - position
            if kind == b"jumb":
                n_boxes += 1
                open_.append((position + head, position + length))
            elif kind != b"bidb":
                n_bytes += length
            position += length
    return n_boxes, n_bytes


Parts = Iterator[tuple[str, memoryview]]
"""(`c2pa` or `xmp`, its bytes), in file order."""


def _reader(data: bytes) -> tuple[str, Parts] | None:
    view = memoryview(data)
    if data[:3] == b"\xff\xd8\xff":
        return "image/jpeg", _jpeg(data, view)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "image/png", _png(data, view)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", _webp(data, view)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "image/tiff", _tiff(data, view)
    if data[4:8] == b"ftyp" and data[8:12] in AVIF_BRANDS + HEIF_BRANDS:
        return "image/avif" if data[8:12] in AVIF_BRANDS else "image/heic", _isobmff(data, view)
    return None


def _jpeg(data: bytes, view: memoryview) -> Parts:
    """APP11 segments with a JUMBF box of type c2pa, and APP1 XMP, up to the first scan."""
    position, own = 2, None
    for _ in range(MAX_PARTS):
        if position + 4 > len(data) or data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in (0xDA, 0xD9):  # the scan, the end
            return
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        part = view[position + 4 : position + 2 + length]
        if marker == 0xEB and bytes(part[:2]) == b"JP":
            # CI `JP`, box instance (2), packet number (4), then LBox, TBox and, where LBox is 1, XLBox:
            # JPEG XT, ISO/IEC 18477-3, annex B. All packets of one box carry the same instance number.
            head = 24 if bytes(part[8:12]) == b"\0\0\0\1" else 16
            is_c2pa = bytes(part[12:16]) == b"jumb" and bytes(part[head + 4 : head + 12]) == b"jumdc2pa"
            if is_c2pa and own is None:
                own = bytes(part[2:4])
            if own is not None and bytes(part[2:4]) == own:
                yield "c2pa", part[8:] if is_c2pa else part[head:]  # later packets repeat the box's head
        elif marker == 0xE1 and bytes(part[: len(XMP_HEAD)]) == XMP_HEAD:
            yield "xmp", part[len(XMP_HEAD) :]
        position += 2 + max(length, 2)


def _png(data: bytes, view: memoryview) -> Parts:
    """Chunks `caBX`, and `iTXt` with the keyword of XMP, before IEND."""
    position = 8
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        part = view[position + 8 : position + 8 + length]
        if kind == b"caBX":
            yield "c2pa", part
        elif kind == b"iTXt" and bytes(part[:18]) == b"XML:com.adobe.xmp\0":
            yield "xmp", part[18:]
        elif kind == b"IEND":
            return
        position += 12 + length


def _webp(data: bytes, view: memoryview) -> Parts:
    """Chunks `C2PA` and `XMP ` inside the RIFF form; what lies after it is no part of the picture."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > end:
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        part = view[position + 8 : min(end, position + 8 + length)]
        if kind == b"C2PA":
            yield "c2pa", part
        elif kind == b"XMP ":
            yield "xmp", part
        position += 8 + length + length % 2


def _tiff(data: bytes, view: memoryview) -> Parts:
    """Tags 52545 (C2PA) and 700 (XMP) of the first directory, in TIFF and BigTIFF."""
    order = "<" if data[:2] == b"II" else ">"
    is_big = data[2:4] in (b"+\0", b"\0+")
    entry_at, count, entry, size = (8, "Q", "HHQ", 20) if is_big else (4, "H", "HHI", 12)
    try:
        (directory,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, entry_at)
        (n_entries,) = struct.unpack_from(order + count, data, directory)
        first = directory + struct.calcsize("<" + count)
        for number in range(min(n_entries, MAX_PARTS)):
            at = first + number * size
            tag, _, length = struct.unpack_from(order + entry, data, at)
            if tag in (700, 52545):
                value_at = at + (12 if is_big else 8)
                (offset,) = struct.unpack_from(order + ("Q" if is_big else "I"), data, value_at)
                if length > (8 if is_big else 4):  # a shorter value stands in the entry itself
                    yield "c2pa" if tag == 52545 else "xmp", view[offset : offset + length]
    except (struct.error, OverflowError):
        return  # an offset beyond the end of the file


def _isobmff(data: bytes, view: memoryview) -> Parts:
    """Top-level `uuid` boxes of C2PA and XMP."""
    position = 0
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[position + 8 : position + 16], "big"), 16
        elif length == 0:  # to the end of the file
            length = len(data) - position
        if kind == b"uuid":
            own = data[position + head : position + head + 16]
            part = view[position + head + 16 : position + length]
            if own == C2PA_UUID:
                yield "c2pa", part
            elif own == XMP_UUID:
                yield "xmp", part
        position += max(length, head)
