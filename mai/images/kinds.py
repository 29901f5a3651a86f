"""What a file is, by its first bytes or by its name: read before any decoder sees it.

Magic numbers: the formats' own specifications, as collected in https://en.wikipedia.org/wiki/List_of_file_signatures
"""

from __future__ import annotations

import re
import struct
from pathlib import PurePath

HEAD_BYTES = 1024
"""How many first bytes `of_bytes` wants (SVG hides behind comments; all others need 32)."""

OPENABLE = frozenset({"JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "JPEG2000", "HEIF"})
"""Kinds that decode.py opens; an MPO begins as a JPEG."""

NOT_PICTURES = frozenset({"PDF document", "PostScript", "video"})
"""Kinds that get a row only when they were named."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (8, b"CR\x02", "camera raw"),
    (0, b"IIRO", "camera raw"),
    (0, b"IIU\0", "camera raw"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (0, b"FOVb", "camera raw"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"8BPS", "Photoshop document"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"gimp xcf", "GIMP document"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"DDS |", "DirectDraw surface"),
    (0, b"qoif", "QOI"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"icns", "icon"),
    (0, b"%PDF-", "PDF document"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (0, b"FLV\x01", "video"),
    (0, b"\0\0\x01\xba", "video"),
)

_BRANDS: tuple[tuple[frozenset[bytes], str], ...] = (
    (frozenset({b"avif", b"avis"}), "AVIF"),
    (frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}), "HEIF"),
    (frozenset({b"crx "}), "camera raw"),
)
"""Brands of an ISO base media file, in the order they are asked for; any other is taken for a video."""

_RAW = (
    "3fr arw cr2 cr3 crw dcr dng erf iiq k25 kdc mef mos mrw nef nrw orf pef raf raw rw2 rwl sr2 srf srw x3f"
)
_NAMES: dict[str, str] = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif", "mpo"), "JPEG"),
    **dict.fromkeys(("png", "apng"), "PNG"),
    **dict.fromkeys(("webp",), "WEBP"),
    **dict.fromkeys(("avif", "avifs"), "AVIF"),
    **dict.fromkeys(("heic", "heif", "hif"), "HEIF"),
    **dict.fromkeys(("gif",), "GIF"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("jp2", "j2k", "jpx", "j2c", "jpc", "jpf"), "JPEG2000"),
    **dict.fromkeys(_RAW.split(), "camera raw"),
    "jxl": "JPEG XL",
    "psd": "Photoshop document",
    "psb": "Photoshop document",
    "svg": "SVG drawing",
    "xcf": "GIMP document",
    "exr": "OpenEXR",
    "hdr": "Radiance HDR",
    "tga": "Targa",
    "ico": "icon",
    "qoi": "QOI",
    "ppm": "netpbm",
    "pgm": "netpbm",
    "pbm": "netpbm",
    "pnm": "netpbm",
}


def of_name(name: str) -> str | None:
    """The kind that a file name claims, None if its suffix is not one of an image."""
    return _NAMES.get(PurePath(name).suffix[1:].lower())


def of_bytes(head: bytes) -> str | None:
    """The kind that a file's first bytes show, None if it is not known as an image, document or video.

    Args:
        head: the first HEAD_BYTES bytes, or all if there are fewer.
    """
    for offset, magic, kind in _MAGIC:
        if head.startswith(magic, offset):
            return kind
    if head[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "video"}.get(head[8:12])
    if head[4:8] == b"ftyp":
        end = min(int.from_bytes(head[:4], "big"), 256)
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}
        return next((kind for known, kind in _BRANDS if known & brands), "video")
    # 'BM' alone would take a text for a bitmap; the size of its second header is one of few.
    if head[:2] == b"BM" and head[14:18] in _DIB_SIZES:
        return "BMP"
    if re.match(rb"P[1-6][ \t\r\n#]", head):
        return "netpbm"
    if head[:4] == b"\0\0\1\0" and 0 < int.from_bytes(head[4:6], "little") < 64 and head[9:10] == b"\0":
        return "icon"
    if re.match(rb"(\xef\xbb\xbf)?\s*<", head) and re.search(rb"<svg[\s>]", head):
        return "SVG drawing"
    return None


_DIB_SIZES = frozenset(struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124))


def is_picture(name: str, head: bytes = b"") -> bool:
    """True if the name or the first bytes say image: what earns a file in a folder its row."""
    if of_name(name):
        return True
    kind = of_bytes(head)
    return kind is not None and kind not in NOT_PICTURES


def declared_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """Width and height that the file declares, where Pillow would allocate, or trust another, before we ask.

    WebP: libwebp allocates the canvas when it is opened. JPEG 2000: the codestream may be larger than the box
    around it says. PNG: a file that breaks off behind its header says how large it would be, and Pillow does not.
    Others: None, Pillow's header reading allocates nothing.

    Sources: RFC 9649 (WebP container), section 2.7; ISO/IEC 15444-1, A.5.1 (SIZ); PNG, third edition, 11.2.1 (IHDR).
    """
    if kind == "PNG" and len(data) >= 24 and data[12:16] == b"IHDR":
        width, height = struct.unpack_from(">2I", data, 16)
        return width, height
    if kind == "WEBP" and len(data) >= 30:
        if data[12:16] == b"VP8X":
            return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
        if data[12:16] == b"VP8 ":
            width, height = struct.unpack_from("<2H", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        if data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == "JPEG2000":
        at = data.find(b"\xff\x4f\xff\x51")
        if at >= 0 and len(data) >= at + 24:
            right, bottom, left, top = struct.unpack_from(">4I", data, at + 8)
            return max(right - left, 0), max(bottom - top, 0)
    return None


def is_cut(kind: str, data: bytes) -> bool:
    """True if the container says that bytes are missing at the end. Asked only once decoding has failed."""
    size = len(data)
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-4096:]
    if kind == "PNG":
        return b"IEND" not in data[-4096:]
    if kind == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if kind == "WEBP":
        return size < 20 or size < 8 + int.from_bytes(data[4:8], "little")
    if kind == "BMP":
        return size < int.from_bytes(data[2:6], "little")
    if kind == "TIFF":
        return _is_tiff_cut(data)
    if data[:2] == b"\xff\x4f":
        return not data.endswith(b"\xff\xd9")
    return _is_box_cut(data)


def _is_tiff_cut(data: bytes) -> bool:
    """True if the first directory of a TIFF, or what it points at, lies behind the end (TIFF 6.0, section 2)."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        start = struct.unpack_from(order + "I", data, 4)[0]
        count = struct.unpack_from(order + "H", data, start)[0]
        facts: dict[int, int] = {}
        for index in range(count):
            tag, kind, n, value = struct.unpack_from(order + "HHII", data, start + 2 + 12 * index)
            n_bytes = n * {2: 1, 3: 2, 4: 4, 5: 8}.get(kind, 1)
            if n_bytes > 4 and value + n_bytes > len(data):
                return True
            # A short stands in the first half of the four bytes.
            facts[tag] = value >> 16 if kind == 3 and order == ">" else value
            if tag in {273, 279} and n != 1:
                facts.pop(tag)
    except struct.error:
        return True
    return facts.get(273, 0) + facts.get(279, 0) > len(data)  # StripOffsets, StripByteCounts


def _is_box_cut(data: bytes) -> bool:
    """True if a top-level box of an ISO base media file (AVIF, HEIF, JP2) ends after the data does."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length == 0:  # lasts to the end of the file
            return False
        if length < 8:
            return False
        at += length
    return at != len(data)
