"""Text hidden in the lowest bits of pixels: NovelAI, the web UI's and Forge's stealth option, SwarmUI.

The bits run down the columns: of the alpha channel, or of red, green, blue in turn. They begin with 15 bytes of
magic, then the length of the text in bits (32 bit, big-endian), then the text, plain or gzip.

In a PNG only the magic is looked for, and without decoding the picture: it lies in the first column, and the first
byte of a row can be restored from the first byte of the row above alone, whatever the filter (PNG, 9.2: left and upper
left are zero there, so Sub is nothing, Paeth is Up, Average is half of Up). A picture is decoded only once the
whole magic stands there, or as much of it as a low picture's first column holds; chance does that once in 2**32.

A WebP keeps its alpha channel to the last bit even where the colours are lossy (libwebp's default). Nothing can be
read of it without decoding, so a still WebP is decoded where, and only where, it has an alpha channel.

Source: https://github.com/NovelAI/novelai-image-metadata; https://github.com/ashen-sensored/sd_webui_stealth_pnginfo;
https://github.com/mcmonkeyprojects/SwarmUI/pull/871
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from mai.images.pillow import open_lazily, quiet_pillow
from mai.provenance import png, riff
from mai.provenance.reading import Reading, decoded, json_object

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAGICS = {
    b"stealth_pnginfo": ("alpha", False),
    b"stealth_pngcomp": ("alpha", True),
    b"stealth_rgbinfo": ("rgb", False),
    b"stealth_rgbcomp": ("rgb", True),
}
"""Magic -> channels that carry it, and whether the text is gzip."""

MAX_PIXELS = 40_000_000
"""Pixels of a picture that is decoded once it carries the magic."""

_N_BITS = 8 * 15
_LEAST_BYTES = 4
"""Of the magic, in the first column of a PNG too low for all of it."""
_CHANNELS = {2: 3, 6: 4}
"""PNG colour type -> channels: RGB, RGBA. The bits are written by programs that save nothing else."""
_NAMED = frozenset({"Software", "Source", "Comment", "Description", "parameters"})


def read(data: bytes, reading: Reading) -> None:
    """Add the hidden fields of a PNG or WebP, if it has any."""
    place = _place(data) if reading.container == "PNG" else riff.has_still_alpha(data) and "alpha"
    if not place:
        return
    bits = _bits(data, place, reading)
    if bits is None:
        return
    magic = MAGICS.get(_bytes(bits[:_N_BITS]))
    if magic is None or magic[0] != place:
        return
    text = _text(bits, magic[1], reading)
    if not text:
        reading.problem("The pixels carry the mark of a hidden text, but it cannot be read.")
        return
    inner = json_object(text) or {}
    named = {name: value for name, value in inner.items() if name in _NAMED and isinstance(value, str)}
    for name, value in named.items():
        reading.add("stealth", name, value)
    if not named:  # not the PNG texts of a program, but what it writes as `parameters`
        reading.add("stealth", "parameters", text)
    reading.add("stealth", "text", text)


def _place(data: bytes) -> str | None:
    """Where the first column of a PNG holds a magic, or its beginning in a low picture; None if nowhere."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour, interlace = data[24], data[25], data[28]
    n_channels = _CHANNELS.get(colour, 0)
    if depth != 8 or interlace or not n_channels or not width or width * height > MAX_PIXELS:
        return None
    column = _FirstColumn(data, width * n_channels, n_channels)
    for place, per_row in (("alpha", 1), ("rgb", 3)):
        if place == "alpha" and n_channels < 4:
            continue
        n_there = min(15, height * per_row // 8)
        if n_there >= _LEAST_BYTES and _begins_with_magic(column, place, per_row, n_there):
            return place
    return None


def _begins_with_magic(column: _FirstColumn, place: str, per_row: int, n_there: int) -> bool:
    """Whether that many bytes of the column begin a magic of this place, inflated no further than it fits."""
    magics = [magic for magic, (where, _) in MAGICS.items() if where == place]
    for n_bytes in range(1, n_there + 1):
        bits = [bit for row in column.rows(-(-8 * n_bytes // per_row)) for bit in _row_bits(row, place)]
        if len(bits) < 8 * n_bytes:
            return False
        found = int("".join(map(str, bits[: 8 * n_bytes])), 2).to_bytes(n_bytes, "big")
        if not any(magic.startswith(found) for magic in magics):
            return False
    return True


def _row_bits(pixel: bytes, place: str) -> tuple[int, ...]:
    """The bits that the first pixel of a row carries."""
    return (pixel[3] & 1,) if place == "alpha" else (pixel[0] & 1, pixel[1] & 1, pixel[2] & 1)


class _FirstColumn:
    """The first pixel of each row, inflated no further than asked."""

    def __init__(self, data: bytes, row_bytes: int, n_channels: int) -> None:
        self._stride, self._n_channels = row_bytes + 1, n_channels
        self._packed = (
            memoryview(data)[at : at + size] for kind, at, size in png.chunks(data) if kind == b"IDAT"
        )
        self._unpack = zlib.decompressobj()
        self._waiting = b""
        self._raw = bytearray()
        self._rows: list[bytes] = []

    def rows(self, n: int) -> list[bytes]:
        """The first pixels of the first n rows, fewer if the file is damaged."""
        while len(self._rows) < n:
            if not self._fill(self._stride):
                break
            above = self._rows[-1] if self._rows else bytes(self._n_channels)
            kind, pixel = self._raw[0], bytes(self._raw[1 : 1 + self._n_channels])
            del self._raw[: self._stride]
            shift = {0: 0, 1: 0, 2: 1, 3: 2, 4: 1}.get(kind)
            if shift is None:
                break
            if shift:
                pixel = bytes(
                    (low + (up if shift == 1 else up >> 1)) & 255
                    for low, up in zip(pixel, above, strict=True)
                )
            self._rows.append(pixel)
        return self._rows[:n]

    def _fill(self, n_bytes: int) -> bool:
        """Inflate until that many bytes are at hand."""
        try:
            while len(self._raw) < n_bytes and not self._unpack.eof:
                if not self._waiting:
                    self._waiting = bytes(next(self._packed, b""))
                    if not self._waiting:
                        return False
                self._raw += self._unpack.decompress(self._waiting, n_bytes - len(self._raw))
                self._waiting = self._unpack.unconsumed_tail
        except zlib.error:
            return False
        return len(self._raw) >= n_bytes


def _bits(data: bytes, place: str, reading: Reading) -> NDArray[np.uint8] | None:
    """The lowest bits of all pixels in writing order: uint8 (N,), 0 or 1."""
    import numpy as np

    try:
        with quiet_pillow(), open_lazily(str(reading.container), data, MAX_PIXELS) as picture:
            pixels = np.asarray(picture)
    except Exception:  # a broken picture; images/ says so where pixels are asked for
        if reading.container == "PNG":
            reading.problem("The pixels carry the mark of a hidden text, but they cannot be decoded.")
        return None
    if pixels.ndim != 3 or pixels.shape[2] < (4 if place == "alpha" else 3):
        return None
    part = pixels[:, :, 3] if place == "alpha" else pixels[:, :, :3]
    columns = part.swapaxes(0, 1)  # x outer, y inner
    return (columns & np.uint8(1)).reshape(-1)


def _bytes(bits: NDArray[np.uint8]) -> bytes:
    """Bits, the highest of each byte first, as bytes."""
    import numpy as np

    return np.packbits(bits).tobytes()


def _text(bits: NDArray[np.uint8], is_packed: bool, reading: Reading) -> str:
    """The text behind magic and length, empty if the length or the gzip cannot be."""
    n_bits = int.from_bytes(_bytes(bits[_N_BITS : _N_BITS + 32]), "big")
    start = _N_BITS + 32
    if not 8 <= n_bits <= min(len(bits) - start, 8 * reading.allowance()):
        return ""
    block = _bytes(bits[start : start + n_bits // 8 * 8])
    if is_packed:
        limit = reading.allowance()
        try:
            unpack = zlib.decompressobj(wbits=31)
            block = unpack.decompress(block, limit + 1)
        except zlib.error:
            return ""
        if len(block) > limit or not unpack.eof:
            return ""
    return decoded(reading.take(block, "hidden text"))
