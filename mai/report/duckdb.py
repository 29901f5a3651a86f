"""Rows as a DuckDB file: table `records`, one row a file; `evidence` holds JSON."""

from __future__ import annotations

from pathlib import Path

from mai.errors import require
from mai.report.parquet import Parquet
from mai.types import Record


class DuckDb:
    """Writes beside its place and takes its name when finished.

    The rows go through a Parquet file, which DuckDB reads a hundred times faster than row by row.

    Args:
        path: the file; one that stands there is replaced.

    Raises:
        MissingExtraError: duckdb or pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._duckdb = require("duckdb", "scale", "Writing DuckDB")
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._part.unlink(missing_ok=True)
        self._table = path.with_name(f".{path.name}.rows.parquet")
        self._rows = Parquet(self._table)

    def write(self, record: Record) -> None:
        """Write one row."""
        self._rows.write(record)

    def finish(self) -> None:
        """Read the rows into a table and put the file in its place."""
        self._rows.finish()
        with self._duckdb.connect(str(self._part)) as db:
            db.execute("SET preserve_insertion_order = true")
            db.execute("CREATE TABLE records AS SELECT * FROM read_parquet(?)", [str(self._table)])
        self._table.unlink()
        self._part.replace(self._path)

    def drop(self) -> None:
        """Take what is unfinished away."""
        self._rows.drop()
        for path in (self._table, self._part, self._part.with_name(self._part.name + ".wal")):
            path.unlink(missing_ok=True)
