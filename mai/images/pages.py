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

from mai.images.page_heads import DATA_V2, DICTIONARY, Page, heads

LARGE = 16 * 2**20
"""Bytes of a page up to which pyarrow reads it."""

_STREAMED = {"UNCOMPRESSED": "", "ZSTD": "zstd", "GZIP": "gzip", "BROTLI": "brotli"}
WHOLE = {"SNAPPY": "snappy"}
"""A format that is unpacked in one go: the page is held once, and where the file is mapped, no copy of the packed."""

_PLAIN, _NUMBERED = 0, (2, 8)
_PIECE = 2**20
_MOST_REPEATS = 1000
"""Values of a dictionary that stand in it already: writers put each in once, a bomb repeats one without end."""

_SNAPPY_TIMES = 64 / 3
"""Bytes that snappy's densest element, a copy of three bytes, unpacks to, a byte (format_description.txt, 2.2.2)."""


@dataclass(frozen=True, slots=True)
class TooLong:
    """In place of a value above the limit.

    Attributes:
        n_bytes: of the value.
    """

    n_bytes: int


Value = bytes | TooLong | None


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
        self._pages = list(heads(file, start, start + chunk.total_compressed_size))

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
            if page.kind == DICTIONARY:
                dictionary = _dictionary(page, stream, max_bytes)
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

    def _body(self, page: Page) -> Any:
        import pyarrow

        start, n = page.start + page.n_level_bytes, page.n_packed - page.n_level_bytes
        if self._codec in _STREAMED or not page.is_packed:
            raw = self._file.get_stream(start, n)
            codec = _STREAMED.get(self._codec, "") if page.is_packed else ""
            return pyarrow.CompressedInputStream(raw, codec) if codec else raw
        self._file.seek(start)
        packed = self._file.read_buffer(n)
        n_bytes = page.n_bytes - page.n_level_bytes
        told = _Reader(
            io.BytesIO(packed[:10].to_pybytes()), 10
        ).varint()  # snappy says itself how much it holds
        if told != n_bytes or len(packed) * _SNAPPY_TIMES < n_bytes:  # before as much is laid out for it
            raise ValueError(f"a page of {len(packed):,} bytes claims to unpack to {n_bytes:,}")
        whole = pyarrow.Codec(WHOLE[self._codec]).decompress(packed, decompressed_size=n_bytes)
        return pyarrow.BufferReader(whole)

    def _levels(self, page: Page, stream: _Reader) -> Iterator[int]:
        """The level of each row of a page; those of a page of the second kind lie before the packed part."""
        if not self._n_levels:
            return _same(0, page.n_values)
        if page.kind == DATA_V2:
            data = self._file.read_at(page.n_level_bytes, page.start)
            levels = _Reader(io.BytesIO(data), len(data))
        else:
            n = int.from_bytes(stream.take(4), "little")
            if _STREAMED.get(
                self._codec
            ):  # unpacked twice, as a few kilobytes may become any number of levels
                levels = _Reader(self._body(page), 4 + n)
                levels.skip(4)
                stream.skip(n)
            else:
                levels = _Reader(io.BytesIO(stream.take(n)), n)
        return _first(_hybrid(levels, self._n_levels.bit_length()), page.n_values)


def _dictionary(page: Page, stream: _Reader, max_bytes: int) -> list[Value]:
    """The values of a dictionary; as each stands in it once, they need no more memory than the page has."""
    if page.n_values > page.n_bytes // 4:  # each lies behind its length
        raise ValueError(f"a dictionary of {page.n_bytes:,} bytes claims {page.n_values:,} values")
    seen: dict[Value, Value] = {}
    found: list[Value] = []
    for _ in range(page.n_values):
        value = stream.value(max_bytes)
        found.append(seen.setdefault(value, value))
        if len(found) - len(seen) > _MOST_REPEATS:
            raise ValueError("a dictionary repeats its values")
    return found


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
        self.skip(n)
        return TooLong(n)

    def skip(self, n: int) -> None:
        """Pass over n bytes."""
        while n:
            n -= len(self.take(min(n, _PIECE)))

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
