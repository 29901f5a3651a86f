"""The loop of one worker: take a shard that nobody has, make its part, give it its name, until all are there.

    for each shard without a part: lease -> make (a temporary file) -> fsync -> final name -> lease released

kill -9 at any moment leaves a temporary file and a stale lease: another worker, or the next run, does that shard again
and removes the file (mai/jobs/leftovers.py).
Ctrl-C ends after the row in hand; what the shard has so far is kept under work/ and taken up again.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mai.jobs import leftovers
from mai.jobs.leases import LEASE_S, Lease, LeaseLostError, Leases
from mai.jobs.parts import give_name, room_needed

POLL_S = 1.0
"""Between two looks at shards that others have."""


class Watch:
    """What the maker of a part tells and asks while it works.

    Args:
        lease: of the shard.
        stop: says that the worker is to end after the row in hand.
        tell: called with rows done since the last call.
        every_s: most seconds between two looks at the lease.
    """

    def __init__(
        self, lease: Lease, stop: Callable[[], bool], tell: Callable[[int], None], every_s: float
    ) -> None:
        self._lease, self._stop, self._tell, self._every_s = lease, stop, tell, every_s
        self._checked = time.monotonic()

    @property
    def is_stopping(self) -> bool:
        """True when the worker is to end now."""
        return self._stop()

    def rows(self, n_rows: int) -> None:
        """How many rows the shard has."""
        self._lease.n_rows = n_rows

    def step(self, n: int = 1) -> None:
        """Rows were done.

        Raises:
            LeaseLostError: another worker has the shard.
        """
        self._lease.rows += n
        self._tell(n)
        if time.monotonic() - self._checked > self._every_s:
            self._checked = time.monotonic()
            self._lease.check()


class Task(Protocol):
    """One pass over all shards."""

    @property
    def name(self) -> str:
        """Of the pass, a word for file names."""
        ...

    @property
    def n_shards(self) -> int:
        """Parts that are to be made."""
        ...

    def part(self, shard: int) -> Path:
        """The final name of a shard's part."""
        ...

    def make(self, shard: int, part: Path, partial: Path | None, watch: Watch) -> bool:
        """Write a shard's rows into `part`.

        Args:
            shard: which.
            part: a temporary name, to be written.
            partial: rows of an interrupted try, to be taken over.
            watch: is told of each row and says when to stop.

        Returns:
            False if it was stopped; `part` then holds the rows so far, or does not exist.
        """
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a worker ended.

    Attributes:
        n_parts: parts that it made.
        n_lost: shards that others took over while it worked on them.
        n_left: shards without a part.
        is_stopped: by Ctrl-C or a signal.
    """

    n_parts: int
    n_lost: int
    n_left: int
    is_stopped: bool


def missing(task: Task) -> list[int]:
    """Shards without a part."""
    folders = {task.part(shard).parent for shard in range(min(task.n_shards, 1))}
    present = {path.name for folder in folders if folder.exists() for path in folder.iterdir()}
    return [shard for shard in range(task.n_shards) if task.part(shard).name not in present]


def work(
    folder: Path,
    task: Task,
    *,
    stop: Callable[[], bool] = lambda: False,
    tell: Callable[[int], None] = lambda _: None,
    lease_s: float = LEASE_S,
    is_waiting: bool = True,
) -> Outcome:
    """Work until every shard has its part; what killed workers left is removed at the start and at the end.

    Args:
        folder: of the run, shared by all workers; `folder/work` is made.
        task: the pass.
        stop: asked between rows.
        tell: called with rows done.
        lease_s: silence after which another worker's shard is taken over.
        is_waiting: also wait for the shards that others have; False ends when all are taken.

    Raises:
        MaiError: the disk is full.
    """
    place = folder / "work"
    place.mkdir(parents=True, exist_ok=True)
    leases = Leases(place / f"leases-{task.name}", lease_s)
    n_parts = n_lost = 0
    leftovers.clear(place, task.name, leases)
    left = missing(task)
    while left and not stop():
        held = leases.held()
        open_shards = [s for s in left if s not in held or held[s].is_stale(lease_s)]
        if not open_shards:
            if not is_waiting:
                break
            time.sleep(min(POLL_S, lease_s / 4))
            left = missing(task)
            continue
        # Far from where others begin: fewer of them ask for the same shard.
        shard = open_shards[random.randrange(len(open_shards))] if held else open_shards[0]
        with room_needed(place):
            lease = leases.take(shard, held.get(shard))
        if lease is not None:
            if shard in held:
                leftovers.clear(place, task.name, leases)
            try:
                n_parts += _one(place, task, lease, stop, tell, lease_s)
            except LeaseLostError:
                n_lost += 1
        left = missing(task)
    sweep(folder, task, lease_s)
    return Outcome(n_parts, n_lost, len(left), stop())


def _one(
    place: Path,
    task: Task,
    lease: Lease,
    stop: Callable[[], bool],
    tell: Callable[[int], None],
    lease_s: float,
) -> int:
    """Make one part; 1 if it got its name here."""
    final = task.part(lease.shard)
    part = leftovers.unfinished(place, task.name, lease)
    partial = place / f"{task.name}-{lease.shard:05d}.partial"
    lease.beat(lease_s / 6)
    try:
        if final.exists():  # finished between the look and the lease
            return 0
        with room_needed(place):
            watch = Watch(lease, stop, tell, lease_s / 6)
            is_whole = task.make(lease.shard, part, partial if partial.exists() else None, watch)
            lease.check()
            if is_whole:
                try:
                    made = give_name(part, final)
                except FileNotFoundError:  # silent for so long that others took us for dead and swept
                    if final.exists():
                        return 0
                    lease.check()
                    raise
                partial.unlink(missing_ok=True)
                return int(made)
            if part.exists():
                part.replace(partial)
            return 0
    finally:
        part.unlink(missing_ok=True)
        lease.release()


def sweep(folder: Path, task: Task, lease_s: float = LEASE_S) -> None:
    """Once every part is there, remove what workers of this pass left: unfinished parts, kept rows, leases."""
    place = folder / "work"
    if missing(task) or not place.exists():
        return
    leftovers.clear(place, task.name, Leases(place / f"leases-{task.name}", lease_s))
    for pattern in (f"{task.name}-*.partial", f"leases-{task.name}/*"):
        for path in place.glob(pattern):
            path.unlink(missing_ok=True)
