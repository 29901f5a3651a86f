"""Rows as JSON: one object a line (`--jsonl`), or one array that is written as it grows (`--json`)."""

from __future__ import annotations

import json
from typing import Any, TextIO

from mai.report.escape import safe_json
from mai.types import Record


def line(record: Record) -> str:
    """One row as JSON without a line break, UTF-8, nothing in it that a terminal would obey."""
    return json_text(record.to_dict())


def json_text(values: dict[str, Any], indent: int | None = None) -> str:
    """JSON, UTF-8, nothing in it that a terminal would obey.

    Args:
        values: what to write; what JSON has no word for becomes text, and a number that is none null.
        indent: spaces a level; None: all on one line.
    """
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False, default=str, indent=indent)
    except ValueError:  # NaN or an infinity among a detector's details, which JSON has no word for
        values = json.loads(json.dumps(values, default=str), parse_constant=lambda _: None)
        text = json.dumps(values, ensure_ascii=False, indent=indent)
    return "\n".join(safe_json(part) for part in text.split("\n"))  # the breaks between values are ours


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
