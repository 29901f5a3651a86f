"""Scores that were measured once: SQLite, safe with many processes, and what makes a killed run go on."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mai.data.facts import FileFacts

VERSION = 1

Key = tuple[str, str, str, str, str]
"""(sha256 of the file, view, detector's key, protocol, perturbation)."""


Facts = tuple[FileFacts, tuple[float, ...]]
"""A file's own facts and its sharpness, see floors.py."""


def _facts(value: tuple[dict[str, Any], list[float]]) -> Facts:
    return FileFacts(**value[0]), tuple(value[1])


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
        db.execute(
            "CREATE TABLE IF NOT EXISTS facts (sha TEXT, view TEXT, protocol TEXT, value TEXT,"
            " PRIMARY KEY (sha, view, protocol)) WITHOUT ROWID"
        )
        return db

    def read_facts(self, protocol: str) -> dict[tuple[str, str], Facts]:
        """(sha, view) -> what the floors need to know of files under a protocol."""
        rows = self._db.execute("SELECT sha, view, value FROM facts WHERE protocol=?", (protocol,))
        return {(sha, view): _facts(json.loads(value)) for sha, view, value in rows}

    def write_facts(self, sha: str, view: str, facts: Mapping[str, Facts]) -> None:
        """Keep what a file showed under each protocol."""
        with self._db:
            self._db.executemany(
                "INSERT OR REPLACE INTO facts VALUES (?,?,?,?)",
                [
                    (sha, view, protocol, json.dumps([asdict(f), sharp]))
                    for protocol, (f, sharp) in facts.items()
                ],
            )

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
