"""Many images on this machine: worker processes, rows in input order, memory that does not grow.

    find() -> chunks of a few files -> at most WINDOW chunks a worker in flight -> rows, in order

Each worker has its own Scanner and one thread, which uses n cores better than n threads on one image. A
worker that dies (out of memory, a crash inside a decoder) costs the file it died on, which gets a row; the
rest go on.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from itertools import chain, islice

from mai.images.find import Found
from mai.pipeline import Scanner, ScanSettings
from mai.types import Record

CHUNK = 4
"""Files in one errand of a worker: few, so that rows come soon and Ctrl-C is quick."""

CHUNK_BYTES = 16 * 2**20
"""Bytes of shard members in one errand, which travel to the worker."""

WINDOW = 3
"""Errands in flight a worker: one at work and two waiting."""

FEW = 32
"""Files up to which starting workers costs more than it saves (a worker takes about half a second)."""

_scanner: Scanner | None = None  # of this worker process


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
) -> Iterator[Record]:
    """Judge many images, rows in input order.

    Args:
        founds: from mai.images.find.find; read lazily.
        settings: what each worker makes its Scanner of.
        n_workers: processes; 1 works in this process. None: this process for up to FEW files, else one a CPU.
        scanner: a Scanner of the same settings, if there is one already, for work in this process.

    Raises:
        UsageError, WeightsError, MissingExtraError: as Scanner; never for a bad image.
    """
    founds = iter(founds)
    if n_workers is None:
        first = list(islice(founds, FEW + 1))
        n_workers = 1 if len(first) <= FEW else n_cpus()
        founds = chain(first, founds)
    if n_workers <= 1:
        yield from (scanner or make_scanner(settings)).scan_many(founds)
    else:
        yield from _scan_in_pool(_chunks(founds), settings, n_workers)


def make_scanner(settings: ScanSettings) -> Scanner:
    """The Scanner that the settings mean."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return Scanner(values.pop("detectors"), **values)


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


def _scan_in_pool(chunks: Iterator[list[Found]], settings: ScanSettings, n_workers: int) -> Iterator[Record]:
    pool = _pool(settings, n_workers)
    pending: deque[tuple[list[Found], Future[list[Record]]]] = deque()
    try:
        while True:
            for chunk in islice(chunks, n_workers * WINDOW - len(pending)):
                pending.append((chunk, _submit(pool, chunk)))
            if not pending:
                return
            chunk, future = pending.popleft()
            try:
                records = future.result()
            except BrokenProcessPool:
                # Whose fault it was cannot be known: the oldest errand is done file by file in a process of
                # its own, the others start again. Should the guilty file be among those, its turn comes.
                pool.shutdown(wait=False, cancel_futures=True)
                records = list(_one_by_one(chunk, settings))
                pool = _pool(settings, n_workers)
                pending = deque(
                    (c, f if f.done() and not f.exception() else _submit(pool, c)) for c, f in pending
                )
            yield from records
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(chunk: list[Found], settings: ScanSettings) -> Iterator[Record]:
    """Each file in a single worker, which is replaced when a file kills it."""
    pool = _pool(settings, 1)
    try:
        for found in chunk:
            try:
                yield from _submit(pool, [found]).result()
            except BrokenProcessPool:
                pool.shutdown(wait=False, cancel_futures=True)
                pool = _pool(settings, 1)
                yield Record(
                    found.path,
                    "detector_failed",
                    message="The process that looked at this file died: out of memory or a crash in a "
                    "decoder. Try it alone with --workers 1, or lower --max-pixels.",
                )
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(settings: ScanSettings, n_workers: int) -> ProcessPoolExecutor:
    # Not plain fork: it copies locks that threads of onnxruntime or numpy hold, and the child hangs.
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    return ProcessPoolExecutor(n_workers, mp_context=context, initializer=_start, initargs=(settings,))


def _submit(pool: ProcessPoolExecutor, chunk: list[Found]) -> Future[list[Record]]:
    try:
        return pool.submit(_work, chunk)
    except BrokenProcessPool as error:
        failed: Future[list[Record]] = Future()
        failed.set_exception(error)
        return failed


def _start(settings: ScanSettings) -> None:
    """In a worker: leave Ctrl-C to the parent, load the detectors once."""
    global _scanner  # noqa: PLW0603
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _scanner = make_scanner(settings)


def _work(chunk: list[Found]) -> list[Record]:
    if _scanner is None:
        raise RuntimeError("the worker was not started")
    return list(_scanner.scan_many(chunk))
