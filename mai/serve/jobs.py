"""Batch jobs: many pictures that are looked at when there is room, and rows that outlast the process (job_store.py).

A job that was interrupted goes on with the first picture that has no row. Rows are deleted a set time after the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
import sys
from collections.abc import AsyncGenerator

from mai.serve.archive import Bounds, Item, items
from mai.serve.desk import Desk
from mai.serve.job_store import Job, Store
from mai.serve.look import Ask, answer
from mai.serve.metrics import Metrics
from mai.serve.refusal import Refusal
from mai.serve.unpack import Reader
from mai.types import Record

SWEEP_S = 60.0
"""Seconds between two looks for jobs whose time is up."""

RETRY_S = 60.0
"""Seconds after which a job that there was no place for may be sent again."""

PAUSE_S = 5.0
"""Seconds before the store is tried again after it failed."""


async def _pause(error: Exception) -> None:
    """Say what failed, and wait: a disk that is full may have room again, and jobs then go on."""
    print(f"mai serve: The jobs cannot be kept: {error}. Tried again.", file=sys.stderr, flush=True)
    await asyncio.sleep(PAUSE_S)


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
        self._held: dict[str, contextlib.ExitStack] = {}

    def start(self) -> None:
        """Begin; what an earlier process left is gone on with."""
        self._tasks = [asyncio.create_task(self._run()), asyncio.create_task(self._sweep())]

    async def close(self) -> None:
        """Stop between two pictures; rows that are there stay."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.store.close()

    def check_places(self, n_most: int) -> None:
        """Refuse one job more where so many wait.

        Raises:
            Refusal: there is no place.
        """
        if self.store.n_open >= n_most:
            raise Refusal("queue_full", f"{n_most} jobs are waiting already. Try again later.", RETRY_S)

    def added(self, job: str, held: contextlib.ExitStack) -> None:
        """A job was added; what it holds of its client's share is given back when it is over."""
        self._held[job] = held
        self._news.set()

    def _let_go(self, job: str) -> None:
        if job in self._held:
            self._held.pop(job).close()

    def cancel(self, job: Job) -> None:
        """Stop a job and delete all of it."""
        if not job.is_over:
            self._cancelled.add(job.id)
            if job.id in self._readers:  # it may be at a member that never ends
                self._readers[job.id].kill()
        self.store.delete(job.id)
        self._let_go(job.id)
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
            self._cancelled.clear()  # none is at work: who was deleted while it waited is not met again
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
                self._let_go(job.id)
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
