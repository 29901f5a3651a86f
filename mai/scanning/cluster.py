"""Many images on a Ray cluster, or on Ray's own processes of this machine: the same rows, in the same order.

    find() -> feed -> errands of CHUNK files -> actors, each with a Scanner, two errands each -> rows, in order

An actor that dies, or whose node is lost, is replaced, and its errands are given to others; one that is slow at the
end of a scan has its errand given to an idle one as well, and the first answer counts. The driver only moves names and
rows; files are read where they are judged, so that they must lie where all nodes see them: a shared folder or `s3://`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from mai import __version__
from mai.errors import MaiError, UsageError, require
from mai.images.find import Found
from mai.pipeline import ScanSettings
from mai.scanning.ahead import Ahead
from mai.scanning.errands import Errand, died, late
from mai.scanning.feed import Feed
from mai.scanning.worker_process import make_scanner
from mai.scanning.workers import WINDOW
from mai.types import Record

CHUNK = 16
"""Files in one errand: a call of an actor costs about a millisecond."""

CHUNK_BYTES = 16 * 2**20
"""Bytes of shard members in one errand, which travel to the actor."""

MAX_DEATHS = 3
"""Actors that a file, handed out alone, may cost before it is blamed."""

MAX_FALSE_STARTS = 3
"""Actors, beyond one a place, that may end one after another before they can look at anything."""

STRAGGLER_S = 10.0
"""Least time after which an errand is given to a second actor, once nothing else is left to hand out."""

POLL_S = 0.05
GROW_S = 10.0
"""How often nodes that have joined are looked for."""


@dataclass(slots=True, eq=False)
class _Actor:
    """One actor and what it is at: answers to come -> errand, the files handed out for it, when it was given."""

    handle: Any
    begun: Any
    node: str | None = None
    given: dict[Any, tuple[Errand, list[Found], float]] = field(default_factory=dict)


def scan_ray(
    founds: Iterable[Found],
    settings: ScanSettings,
    n_workers: int | None = None,
    timeout_s: float | None = None,
    n_gpus: float = 0.0,
    address: str | None = None,
) -> Iterator[Record]:
    """Judge many images on Ray, rows in input order.

    Args:
        founds: read lazily.
        settings: what each actor makes its Scanner of.
        n_workers: actors of one CPU each; None: as many as the cluster has CPUs, also those that join later.
        timeout_s: seconds that one file may take; files are then handed out one by one.
        n_gpus: GPUs of one actor; 0.25: four actors share one.
        address: of the cluster; None: that of RAY_ADDRESS, else Ray is started on this machine and ended afterwards.

    Raises:
        MissingExtraError: ray is not installed.
        UsageError: the time limit is none.
        MaiError: there is no cluster at the address, or its nodes have another MAI.
        UsageError, WeightsError, MissingExtraError: as Scanner; never for a bad image.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise UsageError(f"A time limit is a number of seconds above 0, not {timeout_s:g}.")
    ray = require("ray", "scale", "--engine ray")
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, address)
    try:
        yield from _Driver(ray, settings, n_workers, timeout_s, n_gpus).run(founds)
    finally:
        if is_ours:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or Ray warns about what will come
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        options["include_dashboard"] = False
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise MaiError(
            f"No Ray cluster can be reached at {address or 'this machine'}: {first}. Start one with `ray start "
            "--head`, or leave the address out."
        ) from error


class _Judge:
    """What an actor is. It is made first and told what to load then, so that a wrong option is an answer, no death."""

    def begin(self, settings: ScanSettings, version: str) -> tuple[str, MaiError | None]:
        """Load the detectors; the node's id, and what went wrong."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        if version != __version__:
            told = f"The Ray node {node[:8]} has MAI {__version__}, this machine {version}. Install the same on all."
            return node, MaiError(told)
        try:
            self._scanner = make_scanner(settings)
        except MaiError as error:
            return node, UsageError(str(error)) if isinstance(error, UsageError) else MaiError(str(error))
        self._ahead = Ahead(settings.limits.max_bytes)
        return node, None

    def judge(self, founds: list[Found]) -> list[Record]:
        """Rows of a few files."""
        return [self._scanner.scan(self._ahead.end(item)) for item in map(self._ahead.begin, founds)]


class _Driver:
    def __init__(
        self, ray: Any, settings: ScanSettings, n_workers: int | None, timeout_s: float | None, n_gpus: float
    ) -> None:
        self._ray, self._settings, self._timeout_s = ray, settings, timeout_s
        self._n_asked, self._n_gpus = n_workers, n_gpus
        self._make = ray.remote(num_cpus=1, num_gpus=n_gpus, max_restarts=0, max_task_retries=0)(_Judge)
        self._actors: list[_Actor] = []
        self._waiting: deque[Errand] = deque()
        self._n_wanted = self._n_fitting()
        self._n_false_starts = 0
        self._grown = monotonic()
        self._seconds: deque[float] = deque(maxlen=100)

    def _n_fitting(self) -> int:
        """Actors that the cluster has room for."""
        if self._n_asked is not None:
            return self._n_asked
        has = self._ray.cluster_resources()
        n = int(has.get("CPU", 1))
        if self._n_gpus:
            n = min(n, int(has.get("GPU", 0) / self._n_gpus))
            if not n:
                raise UsageError(
                    "The Ray cluster has no GPU. Leave --gpus-per-worker out, or add a node with one."
                )
        return max(n, 1)

    def run(self, founds: Iterable[Found]) -> Iterator[Record]:
        """Rows in input order; files are taken only as rows leave."""
        pending: deque[Errand] = deque()
        chunk = 1 if self._timeout_s is not None else CHUNK
        feed = Feed((_anywhere(found) for found in founds), CHUNK * WINDOW)
        try:
            while True:
                self._grow()
                while len(pending) < self._n_wanted * WINDOW and (files := feed.take(chunk, CHUNK_BYTES)):
                    pending.append(Errand(files))
                    self._waiting.append(pending[-1])
                if not pending and feed.is_over:
                    return
                self._hand_out()
                while pending and pending[0].is_done:
                    yield from pending.popleft().records
                self._listen()
        finally:
            feed.close()
            for actor in self._actors:
                self._ray.kill(actor.handle)
            self._actors.clear()

    def _grow(self) -> None:
        """As many actors as there is work for and room."""
        if monotonic() - self._grown > GROW_S:
            self._grown = monotonic()
            self._n_wanted = self._n_fitting()
        n_busy = sum(bool(actor.given) for actor in self._actors)
        while len(self._actors) < min(self._n_wanted, n_busy + len(self._waiting)):
            handle = self._make.remote()
            self._actors.append(_Actor(handle, handle.begin.remote(self._settings, __version__)))

    def _hand_out(self) -> None:
        n_most = 1 if self._timeout_s is not None else 2
        for n_given in range(n_most):  # who waits comes first
            for actor in self._actors:
                if self._waiting and actor.node and len(actor.given) == n_given:
                    if any(errand.one_by_one for errand, _, _ in actor.given.values()):
                        continue  # alone, so that no other is blamed
                    if not (n_given and self._waiting[0].one_by_one):
                        self._give(actor, self._waiting.popleft())
        if not self._waiting:
            self._help_stragglers()

    def _give(self, actor: _Actor, errand: Errand) -> None:
        files = errand.rest
        actor.given[actor.handle.judge.remote(files)] = (errand, files, monotonic())

    def _help_stragglers(self) -> None:
        """Give an errand that takes long to a second actor, if one is idle."""
        usual = sorted(self._seconds)[len(self._seconds) // 2] if self._seconds else STRAGGLER_S
        slow = [
            errand
            for actor in self._actors
            for errand, _, since in actor.given.values()
            if monotonic() - since > max(STRAGGLER_S, 5 * usual) and not errand.one_by_one
        ]
        idle = [actor for actor in self._actors if actor.node and not actor.given]
        for errand, actor in zip(slow, idle, strict=False):
            if sum(errand is other for a in self._actors for other, _, _ in a.given.values()) == 1:
                self._give(actor, errand)

    def _listen(self) -> None:
        """Wait a moment for answers, and look whether somebody's time is up."""
        refs = [ref for actor in self._actors for ref in actor.given]
        refs += [actor.begun for actor in self._actors if actor.node is None]
        if not refs:  # a slow source
            sleep(POLL_S)
            return
        ready = set(self._ray.wait(refs, num_returns=len(refs), timeout=0)[0])
        if not ready:
            ready = set(self._ray.wait(refs, num_returns=1, timeout=POLL_S)[0])
        for actor in list(self._actors):
            if actor.node is None and actor.begun in ready:
                self._begun(actor)
            for ref in [ref for ref in actor.given if ref in ready]:
                if actor in self._actors:
                    self._hear(actor, ref)
        if self._timeout_s is not None:
            for actor in list(self._actors):
                self._check_time(actor, self._timeout_s)

    def _begun(self, actor: _Actor) -> None:
        try:
            actor.node, problem = self._ray.get(actor.begun)
        except self._ray.exceptions.RayError as error:
            self._n_false_starts += 1
            if self._n_false_starts >= MAX_FALSE_STARTS + self._n_wanted:
                told = (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
                raise MaiError(
                    f"The Ray actors end before they begin: {told}. Is MAI installed on all nodes?"
                ) from error
            self._bury(actor)
            return
        self._n_false_starts = 0
        if problem is not None:
            raise problem

    def _hear(self, actor: _Actor, ref: Any) -> None:
        try:
            records = self._ray.get(ref)
        except self._ray.exceptions.RayError:
            self._bury(actor)
            return
        errand, files, since = actor.given.pop(ref)
        self._seconds.append(monotonic() - since)
        if errand.is_done or errand.rest != files:  # somebody else was quicker
            return
        for record in records:
            errand.add(record)
        self._take_back(errand)

    def _bury(self, actor: _Actor) -> None:
        """An actor is gone. Its files are given to others; that a node was lost is no file's fault."""
        self._actors.remove(actor)
        self._ray.kill(actor.handle)
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        for number, (errand, _, _) in enumerate(actor.given.values()):
            if errand.is_done or errand in self._waiting or self._is_with_another(errand):
                continue
            if number == 0 and actor.node in alive:
                errand.deaths += 1
                if errand.one_by_one and errand.deaths >= MAX_DEATHS:
                    errand.add(died(errand.rest[0]))
                errand.one_by_one = True
            self._take_back(errand)

    def _is_with_another(self, errand: Errand) -> bool:
        return any(errand is other for actor in self._actors for other, _, _ in actor.given.values())

    def _check_time(self, actor: _Actor, timeout_s: float) -> None:
        for errand, files, since in list(actor.given.values()):
            if monotonic() - since > timeout_s:
                self._actors.remove(actor)
                self._ray.kill(actor.handle)
                if not errand.is_done:
                    errand.add(late(files[0], timeout_s))
                    self._take_back(errand)
                return

    def _take_back(self, errand: Errand) -> None:
        if not errand.is_done:
            self._waiting.appendleft(errand)


def _anywhere(found: Found) -> Found:
    """A file by a path that does not depend on the folder that a process runs in."""
    if found.file is None or found.file.is_absolute():
        return found
    return replace(found, file=Path(os.path.abspath(found.file)))  # noqa: PTH100  # links stay
