"""Many images on this machine: worker processes, rows in input order, memory that does not grow.

    find() -> feed (a thread) -> errands of a few files, at most WINDOW a worker in flight -> rows, in order

Each worker has its own Scanner and one thread, which uses n cores better than n threads on one image. A file
that hangs (with a time limit) or that kills its worker (out of memory, a crash inside a decoder) gets a row; the
rest go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice
from time import monotonic
from typing import Any

from mai.errors import UsageError
from mai.images.find import Found
from mai.machine import n_cpus
from mai.pipeline import Scanner, ScanSettings
from mai.scanning.copies import Run, hash_of
from mai.scanning.tune import Choice, usual
from mai.scanning.worker_process import make_scanner
from mai.scanning.workers import Crew
from mai.types import Record

FEW = 32
"""Files up to which starting workers costs more than it saves (a worker takes about half a second)."""

SOON_S = 1.0
"""Seconds of work after which workers are started though fewer files than that were seen."""


def scan_local(
    founds: Iterable[Found],
    settings: ScanSettings,
    n_workers: int | None = None,
    scanner: Scanner | None = None,
    timeout_s: float | None = None,
    choose: Callable[[], Choice] = usual,
) -> Iterator[Record]:
    """Judge many images, rows in input order.

    Args:
        founds: from mai.images.find.find; read lazily.
        settings: what each worker makes its Scanner of.
        n_workers: processes; 1 works in this process. None: this process for the first FEW files or SOON_S seconds,
            so that rows come at once also where paths come slowly; then one a CPU.
        scanner: a Scanner of the same settings, if there is one already, for work in this process.
        timeout_s: seconds that one file may take, above 0; a file that takes longer gets a row `timed_out`.
            The work is then always done in workers, as nothing else can be stopped. None: no limit.
        choose: asked for the number of workers and how they work, where `n_workers` is None, once they are started.

    Raises:
        UsageError: the time limit is none.
        UsageError, WeightsError, MissingExtraError: as Scanner; never for a bad image.
        MaiError: worker processes cannot be started.
    """
    if timeout_s is not None and not timeout_s > 0:
        raise UsageError(f"A time limit is a number of seconds above 0, not {timeout_s:g}.")
    founds = iter(founds)
    if timeout_s is None and (n_workers == 1 or n_cpus() == 1 or n_workers is None):
        own = scanner or make_scanner(settings)
        try:
            yield from _few(founds, own) if n_workers is None and n_cpus() > 1 else own.scan_many(founds)
        finally:
            own.close()
        first = list(islice(founds, 1))
        if not first:
            return
        founds = chain(first, founds)
    if n_workers is None:
        choice = choose()
        n_workers = choice.n_workers
        settings = replace(settings, n_threads=choice.n_threads, batch=max(choice.batch, settings.batch))
    yield from Crew(settings, n_workers, timeout_s).run(founds)


def runner(settings: ScanSettings, n_workers: int, timeout_s: float | None, scanner: Scanner) -> Run:
    """What does something with each of many items, in order: in this process for one worker, else in a crew.

    Args:
        settings: what each worker makes its Scanner of.
        n_workers: processes.
        timeout_s: see scan_local.
        scanner: a Scanner of the same settings, for work in this process.
    """
    light = ScanSettings(("metadata",), limits=settings.limits)  # a hash needs no network

    def run(items: Iterable[Any], do: Callable[[Scanner, Any], Any]) -> Iterator[Any]:
        if n_workers == 1 and timeout_s is None:
            return (do(scanner, item) for item in items)
        if do is hash_of:
            return Crew(light, max(1, n_workers // 2), timeout_s, look=do).run(items)
        return Crew(settings, n_workers, timeout_s, look=do).run(items)

    return run


def _few(founds: Iterator[Found], scanner: Scanner) -> Iterator[Record]:
    """The first files, until it is worth while to start workers."""
    seconds = 0.0
    for n_done, found in enumerate(founds, 1):
        began = monotonic()
        yield scanner.scan(found)
        seconds += monotonic() - began
        if n_done >= FEW or seconds > SOON_S:
            return
