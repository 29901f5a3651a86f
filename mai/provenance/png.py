"""PNG: text chunks, EXIF and XMP between the signature and IEND.

Source: Portable Network Graphics, Third Edition (W3C, 2025), 5.3 and 11.3.3. Chunks behind IEND belong to no
picture and are not read. A text chunk whose checksum is wrong is damaged and says nothing, as in libpng.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from mai.provenance import exif, iptc, xmp
from mai.provenance.reading import MAX_PARTS, Reading, decoded

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = "XML:com.adobe.xmp"
_RAW = "Raw profile type "
"""ImageMagick's and ExifTool's older way to carry JPEG's blocks: hexadecimal text."""
_COMFYUI = b"comf"
"""ComfyUI's own chunk in an animated PNG, made like tEXt. Source: ComfyUI, comfy_api/latest/_ui.py, ImageSaveHelper."""


def chunks(data: bytes, reading: Reading | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each chunk up to IEND; a cut or over-long file just ends."""
    at, size = len(SIGNATURE), len(data)
    for _ in range(MAX_PARTS):
        if at + 12 > size:
            return
        length = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind == b"IEND" or at + 12 + length > size:
            return
        yield kind, at + 8, length
        at += 12 + length
    if reading is not None:
        reading.problem(f"It has more than {MAX_PARTS:,} chunks; the rest was not read.")


def read(data: bytes, reading: Reading) -> None:
    """Add the fields of a PNG."""
    for kind, start, length in chunks(data, reading):
        if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf", _COMFYUI):
            continue
        block = reading.take(memoryview(data)[start : start + length], f"PNG chunk {kind.decode()}")
        if zlib.crc32(kind + block) != int.from_bytes(data[start + length : start + length + 4], "big"):
            reading.problem(f"A PNG chunk {kind.decode()} is damaged (checksum).")
        elif kind == b"eXIf":
            exif.read(block, reading)
        elif (text := _text(kind, block, reading)) is not None:
            _add(*text, reading)


def _text(kind: bytes, block: bytes, reading: Reading) -> tuple[str, bytes] | None:
    """Keyword and text bytes of a text chunk, None if it is malformed."""
    keyword, mark, rest = block.partition(b"\0")
    if not mark or not 1 <= len(keyword) <= 79:
        return None
    packed = False
    if kind == b"zTXt":
        packed, method, rest = True, rest[:1], rest[1:]
        if method != b"\0":
            return None
    elif kind == b"iTXt":
        flag, method, rest = rest[:1], rest[1:2], rest[2:]
        packed = flag == b"\1"
        parts = rest.split(b"\0", 2)  # language, translated keyword, text
        if len(parts) < 3 or flag not in (b"\0", b"\1") or (packed and method != b"\0"):
            return None
        rest = parts[2]
    name = keyword.decode("latin-1")
    if packed:
        rest = _unpacked(rest, name, reading)
    return name, rest


def _unpacked(block: bytes, name: str, reading: Reading) -> bytes:
    """Inflate within the limits; nothing, with a problem, if it is damaged or a bomb."""
    limit = reading.allowance()
    try:
        unpack = zlib.decompressobj()
        text = unpack.decompress(block, limit + 1)
    except zlib.error:
        reading.problem(f"The PNG text {_named(name)} is damaged.")
        return b""
    if len(text) > limit or not unpack.eof:
        cut = len(text) > limit
        reading.problem(
            f"The PNG text {_named(name)} {'unpacks to more than the limit' if cut else 'is cut'}; it was not read."
        )
        reading.n_bytes_left -= min(len(text), limit)
        return b""
    reading.n_bytes_left -= len(text)
    return text


def _named(name: str) -> str:
    return repr(name if name.isascii() and name.isprintable() else "?")


def _add(name: str, text: bytes, reading: Reading) -> None:
    if name == XMP_KEYWORD:
        xmp.read(text, reading)
    elif name.startswith(_RAW):
        _add_raw(name.removeprefix(_RAW), text, reading)
    else:
        reading.add("png", name, decoded(text))


def _add_raw(profile: str, text: bytes, reading: Reading) -> None:
    """`\\nname\\n   length\\nhexadecimal`, source: ImageMagick, coders/png.c, Magick_png_write_raw_profile."""
    parts = text.split(b"\n", 3)
    if len(parts) < 4 or profile not in ("exif", "APP1", "xmp", "iptc", "8bim"):
        return
    try:
        block = bytes.fromhex(parts[3].decode("ascii"))
    except ValueError:
        reading.problem("A raw profile of the PNG is damaged.")
        return
    if profile == "xmp" or block.startswith(xmp.JPEG_HEADER):
        xmp.read(block.removeprefix(xmp.JPEG_HEADER), reading)
    elif profile in ("exif", "APP1"):
        exif.read(block, reading)
    else:
        iptc.read_resources(block, reading)
