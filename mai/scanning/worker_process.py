"""One worker process from within: its own Scanner, and errands until the parent closes the pipe."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

from mai.errors import MaiError, UsageError, WeightsError
from mai.pipeline import Scanner, ScanSettings
from mai.scanning.ahead import Ahead


def make_scanner(settings: ScanSettings) -> Scanner:
    """The Scanner that the settings mean."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    return Scanner(values.pop("detectors"), **values)


def answer_errands(
    pipe: Connection, settings: ScanSettings, look: Callable[[Scanner, Any], Any] | None = None
) -> None:
    """A worker's life: load the detectors once, answer errands until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    try:
        try:
            scanner = make_scanner(settings)
        except MaiError as error:
            kinds = (UsageError, WeightsError, MaiError)  # some of their children do not survive a pipe
            pipe.send(next(kind for kind in kinds if isinstance(error, kind))(str(error)))
            return
        pipe.send(None)
        errands: SimpleQueue[list[Any] | None] = SimpleQueue()
        # A thread that always takes what comes: were both ends to wait with a full pipe, they would wait for ever.
        ahead = Ahead(settings.limits.max_bytes)
        Thread(target=_take, args=(pipe, errands, ahead), daemon=True).start()
        while (founds := errands.get()) is not None:
            for record in _looked_at(scanner, look, (ahead.end(found) for found in founds)):
                pipe.send(record)
        scanner.close()
    except (EOFError, OSError):
        return


def _looked_at(
    scanner: Scanner, look: Callable[[Scanner, Any], Any] | None, items: Iterable[Any]
) -> Iterator[Any]:
    return scanner.scan_many(items) if look is None else (look(scanner, item) for item in items)


def _take(pipe: Connection, errands: SimpleQueue[list[Any] | None], ahead: Ahead) -> None:
    try:
        while True:
            errands.put([ahead.begin(item) for item in pipe.recv()])
    except (EOFError, OSError):  # the parent is done, or gone
        errands.put(None)
