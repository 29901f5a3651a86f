"""Many images on this machine: worker processes, rows in input order, memory that does not grow.

    find() -> chunks of a few files -> at most WINDOW chunks a worker in flight -> rows, in order

Each worker has its own Scanner and one thread, which uses n cores better than n threads on one image. A file
that hangs (with a time limit) or that kills its worker (out of memory, a crash inside a decoder) gets a row; the
rest go on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from mai.errors import UsageError
from mai.images.find import Found
from mai.pipeline import Scanner, ScanSettings
from mai.scanning.workers import Crew, make_scanner
from mai.types import Record

CHUNK = 4
"""Files in one errand of a worker: few, so that rows come soon and Ctrl-C is quick."""

CHUNK_BYTES = 16 * 2**20
"""Bytes of shard members in one errand, which travel to the worker."""

FEW = 32
"""Files up to which starting workers costs more than it saves (a worker takes about half a second)."""


def n_cpus() -> int:
    """CPUs that this process may use, which a container may have made fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def scan_local(
    founds: Iterable[Found],
    settings: ScanSettings,
    n_workers: int | None = None,
    scanner: Scanner | None = None,
    timeout_s: float | None = None,
) -> Iterator[Record]:
    """Judge many images, rows in input order.

    Args:
        founds: from mai.images.find.find; read lazily.
        settings: what each worker makes its Scanner of.
        n_workers: processes; 1 works in this process. None: this process for up to FEW files, else one a CPU.
        scanner: a Scanner of the same settings, if there is one already, for work in this process.
        timeout_s: seconds that one file may take, above 0; a file that takes longer gets a row `timed_out`.
            The work is then always done in workers, as nothing else can be stopped. None: no limit.

    Raises:
        UsageError: the time limit is none.
        UsageError, WeightsError, MissingExtraError: as Scanner; never for a bad image.
        MaiError: worker processes cannot be started.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise UsageError(f"A time limit is a number of seconds above 0, not {timeout_s:g}.")
    founds = iter(founds)
    if n_workers is None:
        first = list(islice(founds, FEW + 1))
        n_workers = 1 if len(first) <= FEW else n_cpus()
        founds = chain(first, founds)
    if n_workers <= 1 and timeout_s is None:
        own = scanner or make_scanner(settings)
        try:
            yield from own.scan_many(founds)
        finally:
            own.close()
    else:
        yield from Crew(settings, n_workers, timeout_s).run(_chunks(founds))


def _chunks(founds: Iterable[Found]) -> Iterator[list[Found]]:
    chunk: list[Found] = []
    n_bytes = 0
    for found in founds:
        chunk.append(found)
        n_bytes += len(found.data or b"")
        if len(chunk) >= CHUNK or n_bytes >= CHUNK_BYTES:
            yield chunk
            chunk, n_bytes = [], 0
    if chunk:
        yield chunk
