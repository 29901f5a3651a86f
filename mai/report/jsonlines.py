"""Rows as JSON: one object a line (`--jsonl`), or one array that is written as it grows (`--json`)."""

from __future__ import annotations

import json
from typing import TextIO

from mai.report.escape import safe_json
from mai.types import Record


def line(record: Record) -> str:
    """One row as JSON without a line break, UTF-8, nothing in it that a terminal would obey."""
    row = record.to_dict()
    try:
        text = json.dumps(row, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # NaN or an infinity among a detector's details, which JSON has no word for
        row = json.loads(json.dumps(row, default=str), parse_constant=lambda _: None)
        text = json.dumps(row, ensure_ascii=False)
    return safe_json(text)


class JsonLines:
    """One row a line, flushed as it comes, so that a pipe sees each verdict when it is made."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        """Write one row."""
        self._stream.write(line(record) + "\n")
        self._stream.flush()

    def finish(self) -> None:
        """Nothing is left to write."""


class JsonArray:
    """A JSON array of rows, one row a line; valid when finished."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._is_empty = True

    def write(self, record: Record) -> None:
        """Write one row."""
        self._stream.write(("[\n" if self._is_empty else ",\n") + line(record))
        self._is_empty = False

    def finish(self) -> None:
        """Close the array."""
        self._stream.write("[]\n" if self._is_empty else "\n]\n")
        self._stream.flush()
