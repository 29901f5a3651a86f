"""Lists of files: one path a line, or a CSV or TSV with a column of paths."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import BinaryIO, TextIO

from mai.errors import ImageError
from mai.images import kinds, remote

MAX_PATH_BYTES = 2**16
"""Longest entry of a list of paths: sixteen times what Linux lets a path have."""

TABLE_SUFFIXES = (".csv", ".tsv")

UTF16 = (
    "It is UTF-16 text, as Excel's 'Unicode Text' or PowerShell's > write it. Save it as UTF-8: 'CSV UTF-8' in Excel, "
    "| Out-File -Encoding utf8 in PowerShell."
)
_UTF16_MARKS = ("\udcff\udcfe", "\udcfe\udcff")
"""Its first bytes, in text read as UTF-8 with `surrogateescape`."""

COLUMNS = (
    *("file", "path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name"),
    *("url", "image_url", "uri", "image_uri", "key", "image", "img"),
)
"""Names of a column of paths or addresses, best first."""


def is_table(name: str) -> bool:
    """True if the file name is that of a CSV or TSV."""
    return name.lower().endswith(TABLE_SUFFIXES)


def path_column(names: list[str]) -> int | None:
    """Which of the columns holds paths, None if no name says so."""
    lower = [name.strip().lower() for name in names]
    return next((lower.index(name) for name in COLUMNS if name in lower), None)


def table_entries(stream: BinaryIO, is_tsv: bool) -> Iterator[str]:
    """The paths of a CSV or TSV, read line by line; those that are not UTF-8 keep their bytes.

    The column is found by its name (COLUMNS). A table of one column needs no header.

    Raises:
        ImageError: no column has such a name, or it is no such table.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        first = text.readline()
        if first.startswith(_UTF16_MARKS):
            raise ImageError("unsupported", UTF16)
        delimiter = "\t" if is_tsv else delimiter_of(first)
        # The header was read to know the delimiter; what follows it is read on from there.
        rows = csv.reader(_again(first, text), delimiter=delimiter)
        header = next(rows, [])
        column = path_column(header)
        if column is None and delimiter == ";" and _is_path(first.strip()) and not kinds.of_name(header[0]):
            # No table of several columns: the first of the paths has semicolons in its name.
            rows = csv.reader(_again(first, text), delimiter="\x1f")
            header = next(rows)
        if column is None:
            if len(header) != 1 or not _is_path(header[0]):
                told = ", ".join(header[:12]) or "none"
                raise ImageError(
                    "unsupported",
                    f"No column of this table is known to hold paths. Columns: {told[:300]}. Call one of them 'file'.",
                )
            column = 0
            yield header[0]
        for row in rows:
            if len(row) > column and row[column]:
                yield row[column]
    except csv.Error as error:
        raise ImageError("unsupported", f"The table cannot be read: {error}.") from error


def delimiter_of(header: str) -> str:
    """What parts a table's cells, by its first line: Excel writes semicolons where the comma is the decimal mark."""
    return max(",;\t", key=header.count)


def records(file: TextIO) -> csv.DictReader[str]:
    """The rows of a CSV with a header, whatever delimiter it has; names of columns in small letters.

    Args:
        file: opened as `utf-8-sig` with `surrogateescape` and `newline=""`.

    Raises:
        ImageError: it is UTF-16.
    """
    first = file.readline()
    if first.startswith(_UTF16_MARKS):
        raise ImageError("unsupported", UTF16)
    reader = csv.DictReader(_again(first, file), delimiter=delimiter_of(first))
    reader.fieldnames = _plain(reader.fieldnames or [])
    return reader


def _plain(names: Sequence[str]) -> list[str]:
    """Names of columns in small letters, as spreadsheets begin them with capitals; one that would come twice stays."""
    lower = [(name or "").strip().lower() for name in names]
    return [small if lower.count(small) == 1 else name for small, name in zip(lower, names, strict=True)]


def _again(first: str, rest: TextIO) -> Iterator[str]:
    yield first
    yield from rest


def _is_path(text: str) -> bool:
    return bool(kinds.of_name(text) or remote.scheme(text) or PurePath(text).is_absolute())


def entries(stream: BinaryIO) -> Iterator[bytes]:
    """Entries of a list, as they come in: NUL ends them if the first piece has one, else a line end.

    Raises:
        ImageError: it is UTF-16.
    """
    rest, end = b"", b""
    is_first = True
    while piece := getattr(stream, "read1", stream.read)(MAX_PATH_BYTES):
        if is_first:
            if piece.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise ImageError("unsupported", UTF16)
            piece = piece.removeprefix(b"\xef\xbb\xbf")
            end = b"\0" if b"\0" in piece else b"\n"
            is_first = False
        *whole, rest = (rest + piece).split(end)
        for entry in whole:
            if entry := _trimmed(entry, end):
                yield entry
        if len(rest) > MAX_PATH_BYTES:
            break
    if entry := _trimmed(rest, end):
        yield entry


def _trimmed(entry: bytes, end: bytes) -> bytes:
    return entry.removesuffix(b"\r") if end == b"\n" else entry
