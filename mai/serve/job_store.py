"""Jobs and their rows on the disk, for as long as they are kept.

DATA/jobs.sqlite        jobs and their rows
DATA/uploads/ID/N       pictures as they came, under numbers, or one archive; deleted when the job is finished
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mai.errors import UsageError
from mai.serve.look import Answer

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, finished REAL,
  names TEXT NOT NULL, archive TEXT, n_files INTEGER, n_done INTEGER NOT NULL DEFAULT 0,
  n_failed INTEGER NOT NULL DEFAULT 0, labels TEXT NOT NULL DEFAULT '{}', message TEXT
);
CREATE TABLE IF NOT EXISTS rows (
  job TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, number INTEGER NOT NULL, row TEXT NOT NULL,
  PRIMARY KEY (job, number)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands.

    Attributes:
        id: what it is asked for by; nobody can guess one.
        owner: who may ask for it: a key's name; empty where there are no keys.
        state: `queued`, `running`, `finished`, `cancelled`, `failed`.
        created: seconds since 1970.
        finished: the same, None before.
        names: what the client called the files, in order; of an archive, none.
        archive: `zip` or `tar`, None for files.
        n_files: pictures, None of an archive that is still being read.
        n_done: rows so far.
        n_failed: of them not judged.
        labels: label -> rows.
        message: why it failed.
    """

    id: str
    owner: str
    state: str
    created: float
    finished: float | None
    names: tuple[str, ...]
    archive: str | None
    n_files: int | None
    n_done: int
    n_failed: int
    labels: dict[str, int]
    message: str | None

    @property
    def is_over(self) -> bool:
        """No row comes any more."""
        return self.state in ("finished", "cancelled", "failed")

    def to_dict(self, keep_s: float) -> dict[str, Any]:
        """As it is answered."""
        return {
            "id": self.id,
            "state": self.state,
            "created": _iso(self.created),
            "finished": _iso(self.finished),
            "deleted_at": _iso(self.finished + keep_s if self.finished else None),
            "n_files": self.n_files,
            "n_done": self.n_done,
            "n_failed": self.n_failed,
            "labels": self.labels,
            "message": self.message,
        }


def _iso(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Store:
    """Jobs and rows on the disk.

    Args:
        folder: made if it is not there, readable by its owner alone.

    Raises:
        UsageError: it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads = folder / "uploads"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.uploads.mkdir(exist_ok=True, mode=0o700)
            self._file = folder / "jobs.sqlite"
            self._base = self._open()
            self._base.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"--data {folder} cannot be used: {error}.") from error

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._file, isolation_level=None, check_same_thread=False, timeout=10)
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=NORMAL")
        base.execute("PRAGMA foreign_keys=ON")
        base.row_factory = sqlite3.Row
        return base

    def close(self) -> None:
        """Close the file."""
        self._base.close()

    def folder_of(self, job: str) -> Path:
        """Where a job's pictures lie."""
        return self.uploads / job

    def new_folder(self) -> tuple[str, Path]:
        """A new job's id and its folder; it is no job before `add`."""
        job = secrets.token_urlsafe(18)
        folder = self.folder_of(job)
        folder.mkdir(mode=0o700)
        return job, folder

    def add(self, job: str, owner: str, names: list[str], archive: str | None) -> None:
        """Make it a job."""
        self._base.execute(
            "INSERT INTO jobs (id, owner, state, created, names, archive, n_files) VALUES (?, ?, 'queued', ?, ?, ?, ?)",
            (job, owner, time.time(), json.dumps(names), archive, None if archive else len(names)),
        )

    def get(self, job: str) -> Job | None:
        """A job, None if there is none."""
        row = self._base.execute("SELECT * FROM jobs WHERE id = ?", (job,)).fetchone()
        return _job(row) if row else None

    def open_jobs(self) -> list[Job]:
        """Jobs that are not over, oldest first."""
        rows = self._base.execute("SELECT * FROM jobs WHERE finished IS NULL ORDER BY created, id")
        return [_job(row) for row in rows]

    @property
    def n_open(self) -> int:
        """Jobs that are not over."""
        return int(self._base.execute("SELECT count(*) FROM jobs WHERE finished IS NULL").fetchone()[0])

    def add_row(self, job: str, number: int, found: Answer) -> None:
        """Keep a row and count it, in one transaction. A job that was deleted meanwhile is left alone."""
        with contextlib.suppress(sqlite3.IntegrityError), self._transaction():
            self._base.execute(
                "INSERT INTO rows (job, number, row) VALUES (?, ?, ?)", (job, number, found.text.decode())
            )
            told = self._base.execute("SELECT labels FROM jobs WHERE id = ?", (job,)).fetchone()
            labels = json.loads(told[0])
            if found.label is not None:
                labels[found.label] = labels.get(found.label, 0) + 1
            self._base.execute(
                "UPDATE jobs SET n_done = n_done + 1, n_failed = n_failed + ?, labels = ? WHERE id = ?",
                (found.label is None, json.dumps(labels), job),
            )

    def set_state(self, job: str, state: str, n_files: int | None = None, message: str | None = None) -> None:
        """Note where a job is."""
        finished = time.time() if state in ("finished", "cancelled", "failed") else None
        self._base.execute(
            "UPDATE jobs SET state = ?, finished = ?, n_files = coalesce(?, n_files), message = ? WHERE id = ?",
            (state, finished, n_files, message, job),
        )

    def done(self, job: str) -> set[int]:
        """Numbers of the pictures that have a row."""
        return {row[0] for row in self._base.execute("SELECT number FROM rows WHERE job = ?", (job,))}

    def rows(self, job: str) -> Iterator[str]:
        """Rows in the order of the files, read as they are taken."""
        base = self._open()
        try:
            for (row,) in base.execute("SELECT row FROM rows WHERE job = ? ORDER BY number", (job,)):
                yield row
        finally:
            base.close()

    def delete(self, job: str) -> None:
        """Delete a job, its rows and its pictures."""
        self._base.execute("DELETE FROM jobs WHERE id = ?", (job,))
        shutil.rmtree(self.folder_of(job), ignore_errors=True)

    def sweep(self, keep_s: float) -> None:
        """Delete jobs whose time is up, and folders that belong to no job (an upload that broke off)."""
        for (job,) in self._base.execute(
            "SELECT id FROM jobs WHERE finished < ?", (time.time() - keep_s,)
        ).fetchall():
            self.delete(job)
        known = {row[0] for row in self._base.execute("SELECT id FROM jobs")}
        for folder in self.uploads.iterdir():
            if folder.name not in known and time.time() - folder.stat().st_mtime > keep_s:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")


def _job(row: sqlite3.Row) -> Job:
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118  # iterating a Row gives its values
    values["names"] = tuple(json.loads(values["names"]))
    values["labels"] = json.loads(values["labels"])
    return Job(**values)
