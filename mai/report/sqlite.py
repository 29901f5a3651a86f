"""Rows as an SQLite file: table `records`, one row a file; `evidence` holds JSON."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from mai.report.jsonlines import json_text
from mai.report.tabular import COLUMNS, flat
from mai.types import Record


class Sqlite:
    """Writes beside its place and takes its name when finished.

    Args:
        path: the file; one that stands there is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._part = path, path.with_name(f".{path.name}.part")
        self._part.unlink(missing_ok=True)
        self._db = sqlite3.connect(self._part)
        self._db.execute("PRAGMA journal_mode=OFF")  # an unfinished file is made anew
        columns = ", ".join(f'"{name}" {kind}' for name, kind in COLUMNS.items())
        self._db.execute(f"CREATE TABLE records ({columns}, evidence TEXT)")
        self._insert = f"INSERT INTO records VALUES ({','.join('?' * (len(COLUMNS) + 1))})"

    def write(self, record: Record) -> None:
        """Write one row."""
        evidence = json_text({"evidence": [e.to_dict() for e in record.evidence]})
        self._db.execute(self._insert, (*flat(record).values(), evidence))

    def finish(self) -> None:
        """Index by label and content, and put the file in its place."""
        self._db.execute("CREATE INDEX by_label ON records (label, score)")
        self._db.execute("CREATE INDEX by_content ON records (sha256)")
        self._db.commit()
        self._db.close()
        self._part.replace(self._path)

    def drop(self) -> None:
        """Take an unfinished file away."""
        self._db.close()
        self._part.unlink(missing_ok=True)
