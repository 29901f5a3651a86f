"""Batch jobs: many pictures that are looked at when there is room, and rows that outlast the process.

    DATA/jobs.sqlite        jobs and their rows
    DATA/uploads/ID/N       pictures as they came, under numbers, or one archive; deleted when the job is finished

A job that was interrupted goes on with the first picture that has no row. Rows are deleted a set time after the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mai.errors import UsageError
from mai.serve.archive import Bounds, Item, items
from mai.serve.desk import Desk
from mai.serve.look import Answer, Ask, answer
from mai.serve.metrics import Metrics
from mai.serve.refusal import Refusal
from mai.serve.unpack import Reader
from mai.types import Record

SWEEP_S = 60.0
"""Seconds between two looks for jobs whose time is up."""

PAUSE_S = 5.0
"""Seconds before the store is tried again after it failed."""

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


async def _pause(error: Exception) -> None:
    """Say what failed, and wait: a disk that is full may have room again, and jobs then go on."""
    print(f"mai serve: The jobs cannot be kept: {error}. Tried again.", file=sys.stderr, flush=True)
    await asyncio.sleep(PAUSE_S)


def _job(row: sqlite3.Row) -> Job:
    values = {key: row[key] for key in row.keys()}  # noqa: SIM118  # iterating a Row gives its values
    values["names"] = tuple(json.loads(values["names"]))
    values["labels"] = json.loads(values["labels"])
    return Job(**values)


class Jobs:
    """Runs the jobs of a store, one after another, as many pictures at a time as there are workers.

    Args:
        store: where they lie.
        desk: what looks at their pictures; they do not take places from those who wait for an answer.
        metrics: counters.
        n_workers: pictures at a time.
        keep_s: seconds after which a finished job is deleted.
        bounds: of archives.
    """

    def __init__(
        self,
        store: Store,
        desk: Desk,
        metrics: Metrics,
        n_workers: int,
        keep_s: float,
        bounds: Bounds,
    ) -> None:
        self.store, self.keep_s = store, keep_s
        self._desk, self._metrics, self._n_workers = desk, metrics, n_workers
        self._bounds = bounds
        self._news = asyncio.Event()
        self._changed: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._cancelled: set[str] = set()
        self._readers: dict[str, Reader] = {}

    def start(self) -> None:
        """Begin; what an earlier process left is gone on with."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._sweep())]

    async def close(self) -> None:
        """Stop between two pictures; rows that are there stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()

    def has_news(self) -> None:
        """A job was added."""
        self._news.set()

    def cancel(self, job: Job) -> None:
        """Stop a job and delete all of it."""
        if not job.is_over:
            self._cancelled.add(job.id)
            if job.id in self._readers:  # it may be at a member that never ends
                self._readers[job.id].kill()
        self.store.delete(job.id)
        self._tell(job.id)

    async def changes(self, job: str, most_s: float) -> None:
        """Return when something changed about a job, or after a time."""
        event = self._changed.setdefault(job, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), most_s)

    def _tell(self, job: str) -> None:
        event = self._changed.pop(job, None)
        if event is not None:
            event.set()

    async def _sweep(self) -> None:
        while True:
            try:
                self.store.sweep(self.keep_s)
            except (sqlite3.Error, OSError) as error:
                await _pause(error)
            await asyncio.sleep(min(SWEEP_S, self.keep_s))

    async def _run(self) -> None:
        while True:
            self._news.clear()
            try:
                waiting = self.store.open_jobs()
                for job in waiting:
                    await self._do(job)
            except sqlite3.Error as error:
                await _pause(error)
                continue
            if not waiting:
                await self._news.wait()

    async def _do(self, job: Job) -> None:
        self.store.set_state(job.id, "running")
        self._tell(job.id)
        try:
            n_files, told = await self._look_at_all(job)
            if job.id not in self._cancelled:
                self.store.set_state(job.id, "finished", n_files, told)
        except Refusal as refusal:  # the service stops, or the desk is broken: it goes on another time
            self.store.set_state(job.id, "queued", message=refusal.message)
            await asyncio.sleep(1)
        except Exception as error:
            self.store.set_state(
                job.id, "failed", message=f"The job cannot be done: {type(error).__name__}: {error}"
            )
        finally:
            self._cancelled.discard(job.id)
            found = self.store.get(job.id)
            if found is None or found.is_over:
                shutil.rmtree(self.store.folder_of(job.id), ignore_errors=True)
            self._tell(job.id)

    async def _look_at_all(self, job: Job) -> tuple[int, str | None]:
        """The number of pictures, and why an archive was not read to its end."""
        done = self.store.done(job.id)
        room = asyncio.Semaphore(self._n_workers)
        n_files, told = 0, None
        try:
            async with contextlib.aclosing(self._items(job)) as found, asyncio.TaskGroup() as group:
                async for item in found:
                    n_files += 1
                    if item.ends_archive:
                        told = str(item.error)
                    if item.number in done:
                        if item.is_ours:  # or a job that goes on would fill the disk with what it has seen
                            item.file.unlink(missing_ok=True)
                        continue
                    if job.id in self._cancelled:
                        break
                    await room.acquire()
                    group.create_task(self._look_at(job.id, item, room))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        return n_files, told

    async def _items(self, job: Job) -> AsyncGenerator[Item]:
        """Pictures one after another; those of archives come from a process of their own."""
        folder = self.store.folder_of(job.id)
        if job.archive is None:
            for item in items(folder, job.names, None, self._bounds):
                yield item
            return
        name = job.names[0] if job.names else job.archive
        reader = await asyncio.to_thread(Reader, folder, name, job.archive, self._bounds)
        self._readers[job.id] = reader
        if job.id in self._cancelled:  # while the reader was started
            reader.kill()
        try:
            while (found := await asyncio.to_thread(reader.next)) is not None:
                yield found
        finally:
            del self._readers[job.id]
            reader.kill()  # a thread that still waits for it is let go
            await asyncio.to_thread(reader.close)

    async def _look_at(self, job: str, item: Item, room: asyncio.Semaphore) -> None:
        try:
            if item.error is not None:
                found = answer(Record(item.path, item.error.status, message=str(item.error)))
            else:
                found = await self._desk.ask(Ask(item.path, item.file))
            self.store.add_row(job, item.number, found)
            self._metrics.image(found)
            if item.is_ours:
                item.file.unlink(missing_ok=True)
            self._tell(job)
        finally:
            room.release()
