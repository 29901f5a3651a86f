"""Where pictures wait for a worker: a bounded queue in front of a crew that is always there.

    requests, jobs -- Ask --> Desk (event loop) --> one thread drives the Crew --> worker processes
                  <-- Answer --

A file that hangs, crashes a decoder or eats memory takes its worker with it and nothing else. No image is handed out
ahead: it would wait behind a slow one while another worker is idle. Batches over requests are not made: they cost
more than they save on a CPU (docs/log.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from mai.errors import MaiError
from mai.pipeline import ScanSettings
from mai.scanning.errands import Errand
from mai.scanning.workers import Crew
from mai.serve.look import Answer, Ask, Look, answer
from mai.serve.refusal import Refusal
from mai.types import Record

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_GUESS_S = 0.2
"""Seconds that an image takes, before one was looked at."""


class _ServingCrew(Crew):
    """A crew whose rows for files that killed or held up their worker speak to a client."""

    n_deaths = 0

    def _died(self, found: Ask) -> Answer:
        told = (
            "The process that looked at this image died twice: out of memory, or a crash in a decoder. "
            "Try a smaller copy of the image."
        )
        return answer(Record(found.path, "detector_failed", message=told), has_died=True)

    def _late(self, found: Ask, timeout_s: float) -> Answer:
        told = f"Looking at this image took longer than {timeout_s:g} s, and was stopped. Try a smaller copy of it."
        return answer(Record(found.path, "timed_out", message=told))

    def _bury(self, worker: Any) -> None:
        type(self).n_deaths += 1
        super()._bury(worker)


class Desk:
    """Takes pictures up to a number, and answers each.

    Args:
        settings: what each worker makes its Scanner of.
        n_workers: processes.
        queue: most images taken and not answered.
        timeout_s: seconds of work that an image may take.
        wait_s: seconds that an image may wait before.
        memory_mb: see Look.
    """

    def __init__(
        self,
        settings: ScanSettings,
        n_workers: int,
        queue: int,
        timeout_s: float,
        wait_s: float,
        memory_mb: int | None = None,
    ) -> None:
        self._crew = _ServingCrew(settings, n_workers, timeout_s, look=Look(memory_mb), has_ahead=False)
        self._n_workers = n_workers
        self._queue = queue
        self._timeout_s, self._wait_s = timeout_s, wait_s
        self._calls: deque[Callable[[], None]] = deque()
        self._lock = Lock()
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._bell, False)
        os.set_blocking(self._ring, False)
        self._open: dict[int, tuple[Errand, asyncio.Future[Answer]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._is_ending = self._is_rung = False
        self._usual_s = FIRST_GUESS_S
        self.n_taken = 0
        self.failure: str | None = None

    def start(self) -> None:
        """Start the workers and the thread that drives them; call it in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(target=self._live, name="mai-desk", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End the workers; what was not answered is refused."""
        self._call(self._end)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10)
        for handle in (self._bell, self._ring):
            os.close(handle)

    @property
    def n_ready(self) -> int:
        """Workers that could begin now or are at work."""
        return self._crew.n_ready

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return self._crew.pids

    @property
    def n_deaths(self) -> int:
        """Workers that died or were killed by somebody else."""
        return self._crew.n_deaths

    @property
    def is_full(self) -> bool:
        """Not one image more is taken."""
        return self.n_taken >= self._queue

    def refusal(self) -> Refusal:
        """What is said when it is full."""
        wait_s = min(60.0, max(1.0, self.n_taken * self._usual_s / self._n_workers))
        return Refusal(
            "queue_full",
            f"{self.n_taken} images are waiting already, and {self._queue} is the most that this service takes at a "
            f"time. Try again in about {round(wait_s)} s.",
            wait_s,
        )

    @contextlib.contextmanager
    def places(self, n: int) -> Any:
        """Hold n places in the queue.

        Raises:
            Refusal: they are not there.
        """
        if self.failure is not None:
            raise Refusal("stopping", f"The service cannot work: {self.failure}")
        if self.n_taken + n > self._queue:
            raise self.refusal()
        self.n_taken += n
        try:
            yield
        finally:
            self.n_taken -= n

    async def ask(self, wanted: Ask) -> Answer:
        """Look at one picture. If the caller stops waiting, an image that no worker has yet is let go.

        Raises:
            Refusal: it waited too long; the service stops.
        """
        assert self._loop is not None
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._call(lambda: self._add(wanted, future))
        try:
            async with asyncio.timeout(self._wait_s + self._timeout_s):
                found = await future
        except TimeoutError:
            raise Refusal(
                "waited_too_long",
                f"No worker came to this image within {self._wait_s:g} s. Try again later.",
                self._wait_s,
            ) from None
        finally:
            if not future.done() or future.cancelled():
                self._call(lambda: self._let_go(future))
        if found.seconds:
            self._usual_s += 0.1 * (found.seconds - self._usual_s)
        return found

    # Below: in the thread, but for _call.

    def _call(self, what: Callable[[], None]) -> None:
        with self._lock:
            self._calls.append(what)
            if self._is_rung:
                return
            self._is_rung = True
        with contextlib.suppress(OSError):  # full: it will be heard anyway; closed: nobody is there
            os.write(self._ring, b"!")

    def _live(self) -> None:
        try:
            while not self._is_ending:
                self._crew.start()
                self._crew.turn([self._bell])
                with contextlib.suppress(OSError):
                    os.read(self._bell, 4096)
                with self._lock:  # who calls from now on rings again; who called before is heard below
                    self._is_rung = False
                while True:
                    with self._lock:
                        what = self._calls.popleft() if self._calls else None
                    if what is None:
                        break
                    what()
                self._hand_over()
        except MaiError as error:
            self.failure = str(error)
        except Exception as error:  # told by /healthz, so that whoever watches starts the service again
            self.failure = f"{type(error).__name__}: {error}"
        finally:
            self._crew.close()
            for _, future in self._open.values():
                self._tell(future, None)
            self._open.clear()

    def _end(self) -> None:
        self._is_ending = True

    def _add(self, wanted: Ask, future: asyncio.Future[Answer]) -> None:
        self._open[id(future)] = (self._crew.add([wanted]), future)

    def _let_go(self, future: asyncio.Future[Answer]) -> None:
        held = self._open.pop(id(future), None)
        if held is not None:
            self._crew.drop(held[0])

    def _hand_over(self) -> None:
        done = [key for key, (errand, _) in self._open.items() if errand.is_done]
        for key in done:
            errand, future = self._open.pop(key)
            self._tell(future, errand.records[0])

    def _tell(self, future: asyncio.Future[Answer], found: Answer | None) -> None:
        def settle() -> None:
            if future.done():
                return
            if found is None:
                future.set_exception(
                    Refusal("stopping", "The service is stopping. Try again in a moment.", 5.0)
                )
            else:
                future.set_result(found)

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(settle)
