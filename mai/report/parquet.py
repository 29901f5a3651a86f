"""Rows as a Parquet file: flat columns, `evidence` as JSON; written in groups, so memory does not grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mai.errors import require
from mai.report.jsonlines import json_text
from mai.report.tabular import COLUMNS, Value, flat
from mai.types import Record

GROUP = 10_000
"""Rows in a row group."""


class Parquet:
    """Writes beside its place and takes its name when finished.

    Args:
        path: the file; one that stands there is replaced.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._arrow = require("pyarrow", "data", "Writing Parquet")
        writer = require("pyarrow.parquet", "data", "Writing Parquet")
        kinds = {"TEXT": self._arrow.string(), "REAL": self._arrow.float64(), "INTEGER": self._arrow.int64()}
        fields = [
            (name, self._arrow.bool_() if name == "edited" else kinds[kind]) for name, kind in COLUMNS.items()
        ]
        self._schema = self._arrow.schema([*fields, ("evidence", self._arrow.string())])
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._writer: Any = writer.ParquetWriter(self._part, self._schema, compression="zstd")
        self._rows: list[dict[str, Value]] = []

    def write(self, record: Record) -> None:
        """Write one row, with its group."""
        evidence = json_text({"evidence": [e.to_dict() for e in record.evidence]})
        self._rows.append({**flat(record), "evidence": evidence})
        if len(self._rows) >= GROUP:
            self._flush()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []

    def finish(self) -> None:
        """Write the last group and put the file in its place."""
        if self._rows:
            self._flush()
        self._writer.close()
        self._part.replace(self._path)
