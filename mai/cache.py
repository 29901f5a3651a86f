"""What detectors found once: evidence by content, in SQLite, safe with many processes.

The key is all that evidence depends on: the bytes of the file, the detector, its weights, its settings and MAI's own
code. A threshold or a prior is not among them: with others, no network runs again. Losing the cache costs time only,
so every trouble with it (damaged, locked, disk full, of another version) ends in work done anew, never in an error.

    makers (id, key)            what made evidence: detector, weights, settings, code
    texts  (id, text)           evidence that many files share word for word ('no metadata'), kept once
    evidence (content, maker, text)   text: a number from `texts`, or the evidence itself
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from mai.types import Evidence

VERSION = 2
WRITE_EVERY = 256
"""Rows in one transaction."""

WRITE_AFTER_S = 2.0
"""Seconds after which fewer rows are written too."""

WAIT_S = 30.0
"""How long a process waits for others that write."""

_CONTENT_BYTES = 16
"""Bytes of the SHA-256 that name a content: two of 10^12 files share them once in 10^14 caches."""

_MAX_TEXTS = 10_000
"""Texts held in memory; there are as many as sentences, which may name sizes."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def default_file() -> Path:
    """Where evidence is kept: MAI_CACHE, else the user's cache folder."""
    base = os.environ.get("MAI_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mai" / f"evidence_v{VERSION}.sqlite"


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Digest of the code that makes evidence: what was found by other code is not taken for this one's."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for room in ("images", "provenance", "detectors", "measure", "weights"):
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
        self._makers: dict[str, int] = {}
        self._texts: dict[int, Evidence] = {}
        self._db: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = self._open()
        except sqlite3.Error as error:
            self._trouble(error)
        except OSError:
            pass

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=WAIT_S, isolation_level=None)
        until = time.monotonic() + WAIT_S
        while True:
            try:
                if db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                    db.execute(
                        "PRAGMA journal_mode=WAL"
                    )  # while others do so too this does not wait, but fails
                break
            except sqlite3.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        db.execute("PRAGMA synchronous=OFF")
        db.execute("PRAGMA temp_store=MEMORY")
        for table in (
            "makers (id INTEGER PRIMARY KEY, key TEXT UNIQUE)",
            "texts (id INTEGER PRIMARY KEY, text TEXT UNIQUE)",
            "evidence (content BLOB, maker INTEGER, text, PRIMARY KEY (content, maker)) WITHOUT ROWID",
        ):
            db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        return db

    def _trouble(self, error: sqlite3.Error) -> None:
        """A damaged file gets another name and an empty one its place, once; of anything else nothing is kept."""
        if self._db is not None:
            with suppress(sqlite3.Error):  # another thread made it
                self._db.close()
            self._db = None
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            return
        self._makers.clear()
        self._texts.clear()
        try:
            self.path.replace(self.path.with_suffix(f".damaged-{os.getpid()}"))
            for ending in ("-wal", "-shm"):  # or SQLite would add what they hold to the new file
                self.path.with_name(self.path.name + ending).unlink(missing_ok=True)
            self._db = self._open()
        except (sqlite3.Error, OSError):
            self._db = None

    def read(self, sha: str, keys: Iterable[str]) -> dict[str, Evidence]:
        """Detector's key -> evidence, of those that are known.

        Args:
            sha: hex SHA-256 of the file's bytes.
            keys: of the detectors, see mai/pipeline.py.
        """
        if self._db is None:
            return {}
        wanted = set(keys)
        try:
            makers = {maker: key for key in wanted if (maker := self._maker(key)) is not None}
            if not makers:
                return {}
            rows = self._db.execute(
                "SELECT maker, text FROM evidence WHERE content=?", (bytes.fromhex(sha)[:_CONTENT_BYTES],)
            ).fetchall()
            found = {makers[maker]: self._evidence(text) for maker, text in rows if maker in makers}
        except sqlite3.Error as error:
            self._trouble(error)
            return {}
        except (ValueError, TypeError):
            return {}
        self.n_hits += len(found)
        return found

    def _maker(self, key: str) -> int | None:
        assert self._db is not None
        if key not in self._makers:
            row = self._db.execute("SELECT id FROM makers WHERE key=?", (key,)).fetchone()
            if row is None:
                return None
            self._makers[key] = row[0]
        return self._makers[key]

    def _evidence(self, text: int | str) -> Evidence:
        assert self._db is not None
        if isinstance(text, str):
            return Evidence.from_dict(json.loads(text))
        if text not in self._texts:
            if len(self._texts) >= _MAX_TEXTS:
                self._texts.clear()
            (whole,) = self._db.execute("SELECT text FROM texts WHERE id=?", (text,)).fetchone() or ("",)
            self._texts[text] = Evidence.from_dict(json.loads(whole))
        return self._texts[text]

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
            for sha, key, text in rows:
                self._db.execute("INSERT OR IGNORE INTO makers (key) VALUES (?)", (key,))
                value: int | str = text
                if '"status": "absent"' in text and len(text) < 2000:
                    self._db.execute("INSERT OR IGNORE INTO texts (text) VALUES (?)", (text,))
                    (value,) = self._db.execute("SELECT id FROM texts WHERE text=?", (text,)).fetchone()
                self._db.execute(
                    "INSERT OR REPLACE INTO evidence SELECT ?, id, ? FROM makers WHERE key=?",
                    (bytes.fromhex(sha)[:_CONTENT_BYTES], value, key),
                )
            self._db.execute("COMMIT")
        except sqlite3.Error as error:  # closing rolls back; a disk that is full now may stay so
            self._trouble(error)

    def close(self) -> None:
        """Write what waits and let go of the file."""
        self.flush()
        if self._db is not None:
            self._db.close()
            self._db = None
