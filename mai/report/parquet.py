"""Rows as Parquet: flat columns, `evidence` as JSON; written in groups, so memory does not grow.

One file, or a folder of files by the value of a column (`label=synthetic/part-00000.parquet`, as Hive, Spark, pyarrow
and DuckDB read them) or by number of rows.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from mai.errors import UsageError, require
from mai.report.jsonlines import json_text
from mai.report.tabular import COLUMNS, Value, flat
from mai.types import Record

GROUP = 10_000
"""Rows in a row group."""

PART_ROWS = 1_000_000
"""Rows in one file of a folder."""

PARTITIONS = ("label", "status", "rows")
"""What a folder can be divided by; `rows`: files of PART_ROWS rows in the scan's order."""

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Hive calls the partition of rows that have no value."""


class Parquet:
    """Writes beside its place and takes its name when finished.

    Args:
        path: the file; one that stands there is replaced.
        left_out: a column that is not written.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, path: Path, left_out: str | None = None) -> None:
        self._arrow = require("pyarrow", "data", "Writing Parquet")
        writer = require("pyarrow.parquet", "data", "Writing Parquet")
        kinds = {"TEXT": self._arrow.string(), "REAL": self._arrow.float64(), "INTEGER": self._arrow.int64()}
        fields = [
            (name, self._arrow.bool_() if name == "edited" else kinds[kind])
            for name, kind in COLUMNS.items()
            if name != left_out
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

    def drop(self) -> None:
        """Take an unfinished file away."""
        self._part.unlink(missing_ok=True)


class ParquetFolder:
    """A folder of Parquet files; appears whole, in the place of an earlier one.

    Args:
        folder: the folder to be.
        by: see PARTITIONS.

    Raises:
        UsageError: something else stands there.
    """

    def __init__(self, folder: Path, by: str) -> None:
        refuse_other(folder)
        self._folder, self._by = folder, by
        self._part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".part"))
        self._part.chmod(0o755)
        self._open: dict[str, Parquet] = {}
        self._n: dict[str, int] = {}

    def write(self, record: Record) -> None:
        """Write one row into the file of its value."""
        value = {"label": record.label, "status": record.status, "rows": ""}[self._by]
        key = "" if self._by == "rows" else f"{self._by}={value or NO_VALUE}"
        n = self._n.get(key, 0)
        if n % PART_ROWS == 0:
            if n:
                self._open[key].finish()
            home = self._part / key
            home.mkdir(exist_ok=True)
            left_out = None if self._by == "rows" else self._by
            self._open[key] = Parquet(home / f"part-{n // PART_ROWS:05}.parquet", left_out)
        self._open[key].write(record)
        self._n[key] = n + 1

    def finish(self) -> None:
        """Finish all files and put the folder in its place."""
        if not self._open:
            self._open[""] = Parquet(self._part / "part-00000.parquet")
        for file in self._open.values():
            file.finish()
        old = self._folder.with_name(f".{self._folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if self._folder.exists():
            self._folder.replace(old)
        self._part.replace(self._folder)
        shutil.rmtree(old, ignore_errors=True)

    def drop(self) -> None:
        """Take an unfinished folder away."""
        shutil.rmtree(self._part, ignore_errors=True)


def refuse_other(folder: Path) -> None:
    """Raise UsageError if something stands there that is no folder of Parquet parts."""
    if folder.exists() and not (
        folder.is_dir() and all(p.is_dir() or p.name.startswith("part-") for p in folder.rglob("*"))
    ):
        raise UsageError(f"{folder} is there and is no folder of Parquet parts. Give another --output.")
