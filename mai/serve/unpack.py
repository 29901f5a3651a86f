"""The members of a job's archive, from a process of its own: what an archive costs can be stopped.

service  -- next -->  reader        one member at a time, so that no more lie unpacked than are looked at
         <-- Item --
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic

from mai.errors import ImageError
from mai.serve.archive import Bounds, Item, items
from mai.serve.look import bound, limit

START_S = 120.0
"""Seconds that the process has to begin, on a machine with other things to do."""

CPU_SPARE_S = 10
"""Seconds of CPU beyond its time, after which the system ends it, should nobody be left who does."""


class Reader:
    """The pictures of one archive. All but `kill` takes its time and belongs into a thread, one at a time.

    Args:
        folder: of the job; the archive lies there under 0, and members are put there.
        name: what the client called the archive.
        kind: `zip` or `tar`.
        bounds: how much, and for how long.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, folder: Path, name: str, kind: str, bounds: Bounds) -> None:
        self._folder, self._name, self._bounds = folder, name, bounds
        self._left_s = bounds.timeout_s
        self._n = 0
        self._is_over = False
        # Not plain fork, as for the workers: it copies locks that other threads hold.
        context = (
            multiprocessing.get_context("forkserver")
            if "forkserver" in multiprocessing.get_all_start_methods()
            else multiprocessing.get_context("spawn")
        )
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_read, args=(theirs, folder, name, kind, bounds), name="mai-archive", daemon=True
        )
        self._process.start()
        theirs.close()

    def next(self) -> Item | None:
        """The next picture, or what ended the archive early; None behind the last."""
        if self._is_over:
            return None
        try:
            if not self._n and not self._pipe.poll(START_S):
                return self._end("detector_failed", "The process that reads archives did not start in time.")
            if not self._n:
                self._pipe.recv()
            begin = monotonic()
            self._pipe.send(None)
            is_there = self._pipe.poll(max(0.0, self._left_s))
            self._left_s -= monotonic() - begin
            if not is_there:
                return self._end(
                    "timed_out",
                    f"Reading the archive took longer than {self._bounds.timeout_s:g} s, and was stopped; the rest is "
                    "left out. Send it in parts.",
                )
            found: Item | None = self._pipe.recv()
        except (EOFError, OSError):
            return self._end(
                "detector_failed",
                "The process that read the archive died: out of memory, or a crash in a decompressor; the rest is left "
                "out. Unpack it, and send the files.",
            )
        self._n += 1
        self._is_over = found is None
        return found

    def _end(self, status: str, told: str) -> Item:
        self._is_over = True
        self.kill()
        error = ImageError(status, told)  # type: ignore[arg-type]
        return Item(self._n, self._name, self._folder, error, ends_archive=True)

    def kill(self) -> None:
        """End the process now, whatever it is at; a `next` that waits for it returns."""
        self._process.kill()

    def close(self) -> None:
        """End the process and wait for its end."""
        self.kill()
        self._process.join()


def _read(pipe: Connection, folder: Path, name: str, kind: str, bounds: Bounds) -> None:
    """The process's life: a member when it is asked for one, until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    limit(bounds.memory_mb)
    if sys.platform != "win32":
        import resource

        bound(resource.RLIMIT_CPU, int(bounds.timeout_s) + CPU_SPARE_S)
    with contextlib.suppress(EOFError, OSError):
        pipe.send(None)
        found = items(folder, (name,), kind, bounds)
        for number in itertools.count():
            pipe.recv()
            try:
                item = next(found, None)
            except OSError as error:
                told = (
                    f"A member of the archive could not be stored: {error.strerror or type(error).__name__}."
                )
                item = Item(number, name, folder, ImageError("detector_failed", told), ends_archive=True)
            pipe.send(item)
