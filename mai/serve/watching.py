"""A folder that is watched: what arrives waits until it has stopped growing, is judged, and is moved if asked.

watchfiles tells what changed (inotify and its like); what a crash or a full queue of the system may have lost is found
by looking through the folder when the watch begins with `--existing`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mai.images import kinds
from mai.images.find import Found, display, find
from mai.pipeline import ScanSettings
from mai.report.jsonlines import line
from mai.scanning.workers import Crew
from mai.types import Record

NOT_JUDGED = "not-judged"
"""Folder of files without a label."""

TICK_S = 0.2
"""Seconds between two looks at files that may still be growing."""

MAX_NAME_TRIES = 10_000


class Watch:
    """Watches one folder.

    Args:
        folder: watched with all below it.
        settings: what each worker makes its Scanner of.
        stream: where rows go, one JSON object a line, flushed one by one.
        move_to: files are moved below it, by label; None: they stay.
        settle_s: seconds for which a file must not change.
        n_workers: processes.
        timeout_s: seconds that one file may take.
    """

    def __init__(
        self,
        folder: Path,
        settings: ScanSettings,
        stream: TextIO,
        move_to: Path | None,
        settle_s: float,
        n_workers: int,
        timeout_s: float,
    ) -> None:
        self._folder, self._settings, self._stream, self._move_to = folder, settings, stream, move_to
        self._settle_s, self._n_workers, self._timeout_s = settle_s, n_workers, timeout_s
        self._growing: dict[
            str, tuple[tuple[int, int], float]
        ] = {}  # path -> size and time, since when the same
        self._stop = threading.Event()
        self._n = 0

    def run(self, has_existing: bool, is_once: bool) -> int:
        """Watch until stopped; the number of files that were looked at.

        Args:
            has_existing: begin with what is there.
            is_once: end after that.
        """
        with _signals(self._stop):
            crew = Crew(self._settings, self._n_workers, self._timeout_s, has_ahead=False)
            try:
                if is_once:
                    self._judge(crew, self._existing())
                else:
                    self._go(crew, has_existing)
            finally:
                crew.close()
        return self._n

    def _go(self, crew: Crew, has_existing: bool) -> None:
        from watchfiles import Change, watch

        changes = watch(
            self._folder,
            stop_event=self._stop,
            rust_timeout=round(TICK_S * 1000),
            step=50,
            debounce=200,
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        is_first = True
        for batch in changes:
            if is_first and has_existing:  # only now, so that nothing arrives unseen between the two
                self._judge(crew, self._existing())
            is_first = False
            for change, path in batch:
                if change is Change.deleted:
                    self._growing.pop(path, None)
                else:
                    self._growing.setdefault(path, ((-1, -1), 0.0))
            self._judge(crew, [found for path in self._settled() for found in self._founds(path)])

    def _existing(self) -> list[Found]:
        found = [one for one in find([self._folder]) if one.file is not None]
        for one in found:
            self._growing.pop(str(one.file), None)
        return found

    def _settled(self) -> list[str]:
        """Files that have not changed for long enough; those that are gone are forgotten."""
        now = time.monotonic()
        ready = []
        for path, (before, since) in list(self._growing.items()):
            try:
                facts = Path(path).stat()
            except OSError:
                del self._growing[path]
                continue
            size = (facts.st_size, facts.st_mtime_ns)
            if size != before:
                self._growing[path] = (size, now)
            elif now - since >= self._settle_s:
                del self._growing[path]
                ready.append(path)
        return sorted(ready, key=os.fsencode)

    def _founds(self, path: str) -> Iterator[Found]:
        """The picture at a path: by its name or first bytes, as in a folder; a folder that was moved in, whole."""
        name = Path(path).name
        if name.startswith("."):
            return
        if Path(path).is_dir():
            yield from (one for one in find([path]) if one.file is not None)
            return
        if kinds.of_name(name) or kinds.is_picture(name, _head(path)):
            yield Found(display(path), Path(path))

    def _judge(self, crew: Crew, founds: list[Found]) -> None:
        """Rows in the order of the files. What was not begun when a stop came is left for another time."""
        for start in range(0, len(founds), 4 * self._n_workers):
            if self._stop.is_set():
                return
            some = founds[start : start + 4 * self._n_workers]
            errands = [crew.add([found]) for found in some]
            while not all(errand.is_done for errand in errands):
                crew.turn()
            for found, errand in zip(some, errands, strict=True):
                self._take(found, errand.records[0])

    def _take(self, found: Found, record: Record) -> None:
        self._stream.write(line(record) + "\n")
        self._stream.flush()
        self._n += 1
        if self._move_to is not None and found.file is not None and record.status != "not_found":
            with contextlib.suppress(FileNotFoundError):
                _move(found.file, self._move_to / (record.label or NOT_JUDGED))


def _move(file: Path, folder: Path) -> Path:
    """Move a file into a folder; a name that is taken gets a number, nothing is overwritten."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(MAX_NAME_TRIES):
        target = folder / (file.name if not number else f"{file.stem}-{number}{file.suffix}")
        try:
            target.hardlink_to(file)  # unlike rename, it fails where something is
        except FileExistsError:
            continue
        except OSError:  # another file system, or one without hard links
            if target.exists():
                continue
            shutil.move(file, target)
            return target
        file.unlink()
        return target
    raise FileExistsError(17, "too many files of that name", str(folder / file.name))


def _head(path: str) -> bytes:
    """First bytes of a regular file; a pipe or a device is never opened."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return b""
        with Path(path).open("rb", buffering=0) as stream:
            return stream.read(kinds.HEAD_BYTES)
    except OSError:
        return b""


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the watch between two files."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
