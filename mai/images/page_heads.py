"""The headers of a Parquet column's pages: Thrift in its compact protocol (parquet.thrift of apache/parquet-format)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_HEADER_BYTES = 2**16
"""Most bytes of a page's header; writers leave large statistics out."""

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
"""Kinds of pages."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page, by its header.

    Attributes:
        kind: DATA, DICTIONARY or DATA_V2.
        start: where its body begins in the file.
        n_packed: bytes of the body in the file.
        n_bytes: bytes that it claims to unpack to.
        n_values: rows or values that it claims, empty ones too.
        encoding: of the values; 0 is PLAIN.
        n_level_bytes: of the levels before the packed part, in a DATA_V2.
        is_packed: False where a DATA_V2 is stored as it is.
    """

    kind: int
    start: int
    n_packed: int
    n_bytes: int
    n_values: int
    encoding: int
    n_level_bytes: int = 0
    is_packed: bool = True


def heads(file: Any, place: int, end: int) -> Iterator[Page]:
    """The pages between two places of a file, read from their headers alone.

    Raises:
        ValueError, EOFError: a header is damaged.
    """
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


def _page(fields: dict[int, Any], start: int) -> Page | None:
    """A page by its header; None for an index."""
    kind, n_bytes, n_packed = _number(fields, 1), _number(fields, 2), _number(fields, 3)
    if kind not in (DATA, DICTIONARY, DATA_V2):
        return None
    own = fields.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}[kind])
    if not isinstance(own, dict):
        raise ValueError("a page's header is damaged")
    if kind == DATA_V2:
        n_levels = _number(own, 5) + _number(own, 6)
        if n_levels > min(n_packed, n_bytes):
            raise ValueError("a page's header is damaged")
        is_packed = bool(own.get(7, True))
        return Page(kind, start, n_packed, n_bytes, _number(own, 1), _number(own, 4), n_levels, is_packed)
    return Page(kind, start, n_packed, n_bytes, _number(own, 1), _number(own, 2))


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
