"""What detectors found once: evidence by content, in SQLite, safe with many processes.

The key is all that evidence depends on: the bytes of the file, the detector, its weights, its settings and MAI's own
code. A threshold or a prior is not among them: with others, no network runs again. Losing the cache costs time only,
so every trouble with it (damaged, locked, disk full, of another version) ends in work done anew, never in an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from mai.types import Evidence

VERSION = 1
WRITE_EVERY = 64
"""Rows in one transaction."""

WRITE_AFTER_S = 2.0
"""Seconds after which fewer rows are written too."""


def default_file() -> Path:
    """Where evidence is kept: MAI_CACHE, else the user's cache folder."""
    base = os.environ.get("MAI_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mai" / f"evidence_v{VERSION}.sqlite"


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Digest of the code that makes evidence: what was found by other code is not taken for this one's."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for room in ("images", "provenance", "detectors", "measure"):
        for path in sorted((package / room).rglob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


class EvidenceCache:
    """Evidence by (content, detector's key).

    Args:
        path: the SQLite file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_hits = 0
        self._waiting: list[tuple[str, str, str]] = []
        self._written = time.monotonic()
        self._db: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except (sqlite3.Error, OSError):
            self._set_aside()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=OFF")
        db.execute(
            "CREATE TABLE IF NOT EXISTS evidence (sha TEXT, detector TEXT, found TEXT, PRIMARY KEY (sha, detector))"
            " WITHOUT ROWID"
        )
        return db

    def _set_aside(self) -> None:
        """A damaged file gets another name; without a place to write, nothing is kept."""
        try:
            self.path.replace(self.path.with_suffix(f".damaged-{os.getpid()}"))
            self._db = self._open()
        except (sqlite3.Error, OSError):
            self._db = None

    def read(self, sha: str, keys: Iterable[str]) -> dict[str, Evidence]:
        """Detector's key -> evidence, of those that are known."""
        if self._db is None:
            return {}
        wanted = list(keys)
        marks = ",".join("?" * len(wanted))
        try:
            rows = self._db.execute(
                f"SELECT detector, found FROM evidence WHERE sha=? AND detector IN ({marks})", (sha, *wanted)
            ).fetchall()
            found = {key: Evidence.from_dict(json.loads(text)) for key, text in rows}
        except (sqlite3.Error, ValueError, TypeError):
            return {}
        self.n_hits += len(found)
        return found

    def write(self, sha: str, found: Mapping[str, Evidence]) -> None:
        """Keep evidence; written together with others, see `flush`. Failures are not kept."""
        for key, evidence in found.items():
            if evidence.status != "failed":
                try:
                    text = json.dumps(evidence.to_dict(), allow_nan=False)
                except (TypeError, ValueError):  # a detail that JSON has no word for
                    continue
                self._waiting.append((sha, key, text))
        if len(self._waiting) >= WRITE_EVERY or time.monotonic() - self._written > WRITE_AFTER_S:
            self.flush()

    def flush(self) -> None:
        """Write what waits; if that fails, go on without."""
        rows, self._waiting, self._written = self._waiting, [], time.monotonic()
        if self._db is None or not rows:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO evidence VALUES (?,?,?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                self._db = None

    def close(self) -> None:
        """Write what waits and let go of the file."""
        self.flush()
        if self._db is not None:
            self._db.close()
            self._db = None
