"""Worker processes of this machine, each with its own Scanner, told apart when one hangs or dies.

    parent  -- an errand: a few files -->  worker     one at work and one ahead, so that no worker waits
            <-- one Record a file -------

Python's process pool can neither stop one worker nor say which file it was at; both are needed for a row
`timed_out` and for the blame of a crash, so each worker has a pipe of its own here.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import connection as pipes
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from mai.errors import MaiError
from mai.images.find import Found
from mai.pipeline import Scanner, ScanSettings
from mai.scanning.errands import Errand, died, late
from mai.scanning.feed import Feed
from mai.scanning.worker_process import answer_errands
from mai.types import Record

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

CHUNK = 4
"""Files in one errand of a worker: few, so that rows come soon and Ctrl-C is quick."""

CHUNK_BYTES = 16 * 2**20
"""Bytes of shard members in one errand, which travel to the worker."""

WINDOW = 3
"""Errands in flight a worker: one at work and two waiting."""

MAX_FALSE_STARTS = 3
"""Workers that may die one after another before they can look at anything."""

CLOSE_S = 2.0
"""Time that a worker has to end by itself, in seconds."""


@dataclass(slots=True, eq=False)
class _Worker:
    """One process, the parent's end of its pipe, and what it is at.

    Attributes:
        is_ready: its detectors are loaded.
        given: errands that it has, the one at work first, each with the rows that it still owes for it.
        since: when it began with the file at hand, seconds of the monotonic clock.
    """

    process: BaseProcess
    pipe: Connection
    is_ready: bool = False
    given: deque[tuple[Errand, int]] = field(default_factory=deque)
    since: float = 0.0

    def has_room(self, errand: Errand) -> bool:
        """One errand at work and one ahead; alone where a guilty file is looked for, so that no other is blamed."""
        if not self.is_ready or not self.given:
            return self.is_ready
        return len(self.given) == 1 and not errand.one_by_one and not self.given[0][0].one_by_one


class Crew:
    """Up to n workers, ended by `close`. `run` takes a stream of files; `add` and `turn` are for a loop elsewhere.

    Args:
        settings: what each worker makes its Scanner of.
        n_workers: most processes.
        timeout_s: seconds that one file may take; None: as long as it likes.
        look: what a worker does with a file, picklable, and never None; None: it makes the file's row.
        has_ahead: send a worker its next errand while it is at work, so that it need not wait. Without, no file waits
            behind a slow one while another worker is idle.
    """

    def __init__(
        self,
        settings: ScanSettings,
        n_workers: int,
        timeout_s: float | None = None,
        *,
        look: Callable[[Scanner, Any], Any] | None = None,
        has_ahead: bool = True,
    ) -> None:
        self._settings = settings
        self._n_workers = n_workers
        self._timeout_s = timeout_s
        self._look = look
        self._has_ahead = has_ahead
        self._workers: list[_Worker] = []
        self._waiting: deque[Errand] = deque()
        self._n_false_starts = 0
        # Not plain fork: it copies locks that threads of onnxruntime or numpy hold, and the child hangs.
        has_forkserver = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: SpawnContext | ForkServerContext = (
            multiprocessing.get_context("forkserver")
            if has_forkserver
            else multiprocessing.get_context("spawn")
        )

    def run(self, founds: Iterable[Found]) -> Iterator[Record]:
        """Rows in input order, each as soon as it and those before it are there; files are taken only as rows leave.

        Raises:
            MaiError: the workers cannot start.
        """
        pending: deque[Errand] = deque()
        n_most = self._n_workers * WINDOW
        chunk = max(CHUNK, self._settings.batch)
        feed = Feed(founds, max(n_most, chunk))
        try:
            while True:
                while len(pending) < n_most and (files := feed.take(chunk, CHUNK_BYTES)):
                    pending.append(self.add(files))
                if not pending and feed.is_over:
                    return
                self._hand_out()
                if pending and len(pending[0].records) > pending[0].n_out:
                    errand = pending[0]
                    fresh = errand.records[errand.n_out :]
                    errand.n_out += len(fresh)
                    if errand.is_done:
                        pending.popleft()
                    yield from fresh
                else:
                    self._listen([feed.signal] if len(pending) < n_most and not feed.is_over else [])
        finally:
            feed.close()
            self.close()

    def start(self) -> None:
        """Start all workers now, before there is anything to do."""
        while len(self._workers) < self._n_workers:
            self._start()

    @property
    def n_ready(self) -> int:
        """Workers whose detectors are loaded."""
        return sum(worker.is_ready for worker in self._workers)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid or 0 for worker in self._workers]

    def add(self, founds: list[Any]) -> Errand:
        """Put files in the queue; their rows are in the errand when it `is_done`."""
        errand = Errand(founds)
        self._waiting.append(errand)
        return errand

    def drop(self, errand: Errand) -> bool:
        """Take an errand out of the queue; False if a worker has it."""
        if errand not in self._waiting:
            return False
        self._waiting.remove(errand)
        return True

    def turn(self, wakers: Sequence[int] = ()) -> None:
        """Hand out what waits, then wait until a worker says something, its time is up, or a waker can be read.

        Args:
            wakers: file descriptors that end the wait.

        Raises:
            MaiError: the workers cannot start.
        """
        self._hand_out()
        self._listen(wakers)

    def close(self) -> None:
        """End all workers: those that wait by themselves, those at work at once."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.given or not worker.is_ready:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(CLOSE_S)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join(CLOSE_S)
        self._workers.clear()

    def _hand_out(self) -> None:
        n_idle = sum(not worker.given for worker in self._workers)
        for _ in range(min(len(self._waiting) - n_idle, self._n_workers - len(self._workers))):
            self._start()
        for n_given in (0, 1) if self._has_ahead else (0,):  # who waits comes first
            for worker in list(self._workers):
                if self._waiting and len(worker.given) == n_given and worker.has_room(self._waiting[0]):
                    self._give(worker, self._waiting.popleft())

    def _give(self, worker: _Worker, errand: Errand) -> None:
        files = errand.rest
        if not worker.given:
            worker.since = monotonic()
        worker.given.append((errand, len(files)))
        try:
            worker.pipe.send(files)
        except OSError:
            self._bury(worker)

    def _start(self) -> None:
        while True:
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=answer_errands, args=(theirs, self._settings, self._look), daemon=True
            )
            try:
                if not os.access(Path.cwd(), os.X_OK):  # multiprocessing changes into it in each worker
                    raise PermissionError(13, "this account may not enter the current folder; cd to another")
                process.start()
            except (BrokenPipeError, ConnectionResetError):  # it was killed while it was told what to do
                ours.close()
                theirs.close()
                self._n_false_starts += 1
                if self._n_false_starts >= MAX_FALSE_STARTS:
                    raise _no_start(None) from None
                continue
            except OSError as error:  # no folder for a socket, or one with too long a name
                raise MaiError(
                    f"Worker processes cannot be started: {error.strerror or error}. They need a current folder that "
                    "can be entered, and a folder for temporary files with a short name (TMPDIR=/tmp)."
                ) from error
            theirs.close()  # so that our end tells when the worker is gone
            self._workers.append(_Worker(process, ours))
            return

    def _listen(self, wakers: Sequence[int | Connection] = ()) -> None:
        """Wait for a worker to say something, for the time of one to be up, or for a waker."""
        wait_s = None
        if self._timeout_s is not None:
            ends = [w.since + self._timeout_s for w in self._workers if w.given]
            wait_s = max(min(ends) - monotonic(), 0.0) if ends else None
        ready = set(pipes.wait([*(worker.pipe for worker in self._workers), *wakers], wait_s))
        for worker in [worker for worker in self._workers if worker.pipe in ready]:
            self._hear(worker)
        for worker in list(self._workers):
            is_late = (
                self._timeout_s is not None
                and worker.given
                and monotonic() - worker.since >= self._timeout_s
                and not worker.pipe.poll()  # the row may have come while we were busy elsewhere
            )
            if is_late:
                self._give_up(worker)

    def _hear(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return
        if isinstance(message, MaiError):
            raise message
        if message is None:
            worker.is_ready = True
            self._n_false_starts = 0
            return
        errand, n_due = worker.given.popleft()  # only an errand is answered
        errand.add(message)
        worker.since = monotonic()
        if n_due > 1:
            worker.given.appendleft((errand, n_due - 1))
        else:
            self._take_back(errand)

    def _bury(self, worker: _Worker) -> None:
        """A worker died. Its file is tried again alone; the second death is the file's fault."""
        errand = self._remove(worker)
        if errand is None:
            self._n_false_starts += not worker.is_ready
            if self._n_false_starts >= MAX_FALSE_STARTS:
                raise _no_start(worker.process.exitcode)
            return
        errand.deaths += 1
        if errand.one_by_one and errand.deaths > 1:
            errand.add(self._died(errand.rest[0]))
        errand.one_by_one = True
        self._take_back(errand)

    def _give_up(self, worker: _Worker) -> None:
        """The time of the file at hand is up: a row for it, and another worker for the rest."""
        errand = self._remove(worker)
        assert errand is not None
        assert self._timeout_s is not None
        errand.add(self._late(errand.rest[0], self._timeout_s))
        self._take_back(errand)

    def _take_back(self, errand: Errand) -> None:
        if not errand.is_done:
            self._waiting.appendleft(errand)

    def _remove(self, worker: _Worker) -> Errand | None:
        """End a worker. What it was sent ahead waits again; what it was at is handed back, None for nothing."""
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.kill()
        worker.process.join(CLOSE_S)
        if not worker.given:
            return None
        first, *ahead = [errand for errand, _ in worker.given]
        self._waiting.extendleft(reversed(ahead))
        return first

    def _died(self, found: Any) -> Any:
        """The row of a file whose worker died twice."""
        return died(found)

    def _late(self, found: Any, timeout_s: float) -> Any:
        """The row of a file that took too long."""
        return late(found, timeout_s)


def _no_start(exitcode: int | None) -> MaiError:
    told = "" if exitcode is None else f" (exit code {exitcode})"
    return MaiError(
        f"The worker processes end before they begin{told}: too little memory, or a system that forbids them. "
        "Try --workers 1."
    )
