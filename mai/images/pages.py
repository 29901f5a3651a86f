"""Large pages of a Parquet column, value by value: pyarrow holds a page five times over, and a page may be one value.

A column of bytes lies in pages: a header (Thrift, compact), levels that say which rows are empty, then the values, each
behind its length (PLAIN), or numbers of a dictionary that is a page itself. Source: the Parquet format, parquet.thrift
and Encodings.md of apache/parquet-format.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

LARGE = 16 * 2**20
"""Bytes of a page up to which pyarrow reads it."""

_HEADER_BYTES = 2**16
"""Most bytes of a page's header; writers leave large statistics out."""

_STREAMED = {"UNCOMPRESSED": "", "ZSTD": "zstd", "GZIP": "gzip", "BROTLI": "brotli"}
WHOLE = {"SNAPPY": "snappy"}
"""A format that is unpacked in one go: the page is held once, and where the file is mapped, no copy of the packed."""

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_PLAIN, _NUMBERED = 0, (2, 8)
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class TooLong:
    """In place of a value above the limit.

    Attributes:
        n_bytes: of the value.
    """

    n_bytes: int


Value = bytes | TooLong | None


@dataclass(frozen=True, slots=True)
class _Page:
    kind: int
    start: int
    n_packed: int
    n_bytes: int
    n_values: int
    encoding: int
    n_level_bytes: int = 0
    is_packed: bool = True


class Column:
    """The pages of one column of bytes in one row group.

    Args:
        file: a pyarrow NativeFile that can be read at any place.
        chunk: pyarrow's ColumnChunkMetaData.
        n_levels: pyarrow's max_definition_level: the level of a row that has a value.

    Raises:
        ValueError, EOFError: a page's header is damaged.
    """

    def __init__(self, file: Any, chunk: Any, n_levels: int) -> None:
        self._file, self._codec, self._n_levels = file, chunk.compression, n_levels
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and chunk.dictionary_page_offset:
            start = min(start, chunk.dictionary_page_offset)
        self._pages = list(_pages(file, start, start + chunk.total_compressed_size))

    @property
    def is_large(self) -> bool:
        """A page is better read here than by pyarrow, and can be."""
        if max((page.n_bytes for page in self._pages), default=0) <= LARGE:
            return False
        known = all(page.encoding == _PLAIN or page.encoding in _NUMBERED for page in self._pages)
        return known and (self._codec in _STREAMED or self._codec in WHOLE)

    def values(self, max_bytes: int) -> Iterator[Value]:
        """The values row by row; None: the row has none.

        Args:
            max_bytes: of a larger value only the size is told.

        Raises:
            ValueError, EOFError, OSError: a page is damaged.
        """
        dictionary: list[Value] = []  # a page at most
        for page in self._pages:
            stream = _Reader(self._body(page), page.n_bytes - page.n_level_bytes)
            if page.kind == _DICTIONARY:
                dictionary = [stream.value(max_bytes) for _ in range(page.n_values)]
                continue
            levels = self._levels(page, stream)
            numbers: Iterator[int] | None = None
            if page.encoding in _NUMBERED:
                width = stream.take(1)[0]
                numbers = _hybrid(stream, width)
            for level in levels:
                if level != self._n_levels:
                    yield None
                elif numbers is None:
                    yield stream.value(max_bytes)
                else:
                    yield dictionary[next(numbers)]

    def _body(self, page: _Page) -> Any:
        import pyarrow

        start, n = page.start + page.n_level_bytes, page.n_packed - page.n_level_bytes
        if self._codec in _STREAMED or not page.is_packed:
            raw = self._file.get_stream(start, n)
            codec = _STREAMED.get(self._codec, "") if page.is_packed else ""
            return pyarrow.CompressedInputStream(raw, codec) if codec else raw
        self._file.seek(start)
        packed = self._file.read_buffer(n)
        n_bytes = page.n_bytes - page.n_level_bytes
        whole = pyarrow.Codec(WHOLE[self._codec]).decompress(packed, decompressed_size=n_bytes)
        return pyarrow.BufferReader(whole)

    def _levels(self, page: _Page, stream: _Reader) -> Iterator[int]:
        """The level of each row of a page; those of a page of the second kind lie before the packed part."""
        if not self._n_levels:
            return _same(0, page.n_values)
        if page.kind == _DATA_V2:
            data = self._file.read_at(page.n_level_bytes, page.start)
        else:
            data = stream.take(int.from_bytes(stream.take(4), "little"))
        return _first(
            _hybrid(_Reader(io.BytesIO(data), len(data)), self._n_levels.bit_length()), page.n_values
        )


def _same(value: int, n: int) -> Iterator[int]:
    for _ in range(n):
        yield value


def _first(numbers: Iterator[int], n: int) -> Iterator[int]:
    for _ in range(n):
        yield next(numbers)


class _Reader:
    def __init__(self, stream: Any, n_bytes: int) -> None:
        self._stream, self._left = stream, n_bytes

    def take(self, n: int) -> bytes:
        """Exactly n bytes; memory grows with what comes, not with what is claimed, and ends where the page does."""
        if n > self._left:  # a few kilobytes of zstd may unpack to any number
            raise EOFError("a page ends too soon")
        self._left -= n
        pieces, left = [], n
        while left:
            piece = self._stream.read(min(left, _PIECE))
            if not piece:
                raise EOFError("a page ends too soon")
            left -= len(piece)
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def value(self, max_bytes: int) -> bytes | TooLong:
        n = int.from_bytes(self.take(4), "little")
        if n <= max_bytes:
            return self.take(n)
        left = n
        while left:
            left -= len(self.take(min(left, _PIECE)))
        return TooLong(n)

    def varint(self) -> int:
        number = 0
        for place in range(10):
            (byte,) = self.take(1)
            number |= (byte & 0x7F) << 7 * place
            if byte < 0x80:
                return number
        raise ValueError("a number in a page is damaged")


def _hybrid(stream: _Reader, width: int) -> Iterator[int]:
    """Numbers of so many bits as runs and as packed groups of eight (Encodings.md, RLE)."""
    if width > 32:
        raise ValueError(f"a page claims numbers of {width} bits")
    while True:
        head = stream.varint()
        if head & 1:
            for _ in range(head >> 1):
                packed = int.from_bytes(stream.take(width), "little")
                for place in range(8):
                    yield packed >> place * width & (1 << width) - 1
        else:
            yield from _same(int.from_bytes(stream.take((width + 7) // 8), "little"), head >> 1)


def _pages(file: Any, place: int, end: int) -> Iterator[_Page]:
    while place < end:
        head = file.read_at(min(256, end - place), place)
        try:
            fields, n_head = _fields(head)
        except IndexError:
            try:
                fields, n_head = _fields(file.read_at(min(_HEADER_BYTES, end - place), place))
            except IndexError:
                raise ValueError("a page's header is damaged") from None
        page = _page(fields, place + n_head)
        if page is not None:
            yield page
        place += n_head + _number(fields, 3)


def _number(fields: dict[int, Any], name: int) -> int:
    """A field that is an int32 and counts something.

    Raises:
        ValueError: it is missing, of another kind, or out of range.
    """
    value = fields.get(name)
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError("a page's header is damaged")
    return value


def _page(fields: dict[int, Any], start: int) -> _Page | None:
    """A page by its header; None for an index."""
    kind, n_bytes, n_packed = _number(fields, 1), _number(fields, 2), _number(fields, 3)
    if kind not in (_DATA, _DICTIONARY, _DATA_V2):
        return None
    own = fields.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}[kind])
    if not isinstance(own, dict):
        raise ValueError("a page's header is damaged")
    if kind == _DATA_V2:
        n_levels = _number(own, 5) + _number(own, 6)
        if n_levels > min(n_packed, n_bytes):
            raise ValueError("a page's header is damaged")
        is_packed = bool(own.get(7, True))
        return _Page(kind, start, n_packed, n_bytes, _number(own, 1), _number(own, 4), n_levels, is_packed)
    return _Page(kind, start, n_packed, n_bytes, _number(own, 1), _number(own, 2))


def _fields(data: bytes) -> tuple[dict[int, Any], int]:
    """The fields of a Thrift struct in the compact protocol by their numbers, and its length in bytes.

    Raises:
        IndexError: it does not end within the data.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        number = shift = 0
        while True:
            byte = data[place]
            place += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    def value(kind: int, depth: int) -> Any:
        nonlocal place
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            place += 1
            return data[place - 1]
        if kind in (4, 5, 6):
            number = varint()
            return number >> 1 ^ -(number & 1)
        if kind == 7:
            place += 8
            return None
        if kind == 8:
            n = varint()
            place += n
            return None
        if kind in (9, 10) and depth < 8:
            head = data[place]
            place += 1
            n = head >> 4 if head >> 4 < 15 else varint()
            for _ in range(n):
                if head & 15 in (1, 2):
                    place += 1
                else:
                    value(head & 15, depth + 1)
                if place > len(data):  # within the loop: a count that is claimed may be endless
                    raise IndexError
            return None
        if kind == 12 and depth < 8:
            return struct(depth + 1)
        raise ValueError("a page's header is damaged")

    def struct(depth: int) -> dict[int, Any]:
        nonlocal place
        found: dict[int, Any] = {}
        number = 0
        while True:
            head = data[place]
            place += 1
            if head == 0:
                return found
            if head >> 4:
                number += head >> 4
            else:
                zigzag = varint()
                number = zigzag >> 1 ^ -(zigzag & 1)
            found[number] = value(head & 15, depth)

    fields = struct(0)
    return fields, place
