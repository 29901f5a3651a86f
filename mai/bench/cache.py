"""Scores that were measured once: SQLite, safe with many processes, and what makes a killed run go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path

VERSION = 1

Key = tuple[str, str, str, str, str]
"""(sha256 of the file, view, detector's key, protocol, perturbation)."""


class ScoreCache:
    """Raw numbers by Key. A file of another version is set aside, not read."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path.with_name(f"{path.stem}_v{VERSION}{path.suffix}")
        try:
            self._db = self._open()
        except sqlite3.DatabaseError:  # damaged by a full disk, say: measured again
            self.path.replace(self.path.with_suffix(".damaged"))
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=60)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        db.execute(
            "CREATE TABLE IF NOT EXISTS scores (sha TEXT, view TEXT, detector TEXT, protocol TEXT, perturbation TEXT,"
            " value REAL, seconds REAL, PRIMARY KEY (sha, view, detector, protocol, perturbation)) WITHOUT ROWID"
        )
        return db

    def read(
        self, detector: str, protocol: str, perturbation: str
    ) -> dict[tuple[str, str], tuple[float, float]]:
        """(sha, view) -> (number, CPU seconds) of one cell."""
        rows = self._db.execute(
            "SELECT sha, view, value, seconds FROM scores WHERE detector=? AND protocol=? AND perturbation=?",
            (detector, protocol, perturbation),
        )
        return {(sha, view): (value, seconds) for sha, view, value, seconds in rows}

    def write(
        self, values: Mapping[Key, tuple[float, float]] | Iterable[tuple[Key, tuple[float, float]]]
    ) -> None:
        """Keep numbers with the CPU seconds that they took; one transaction."""
        pairs = values.items() if isinstance(values, Mapping) else values
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO scores VALUES (?,?,?,?,?,?,?)",
                [(*key, *value) for key, value in pairs],
            )

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
