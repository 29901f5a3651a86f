"""The rows of a scan on their way to a file: what was judged is kept, whatever stops the scan.

    OUTPUT.partial/scan.json     what is scanned, how, and a lock while somebody writes
    OUTPUT.partial/rows.jsonl    one row a file, appended and flushed as they come

A finished scan becomes OUTPUT in one rename and the folder goes. After Ctrl-C, kill -9 or a full disk it stays, and
`--resume` goes on: files that have a row are skipped, a row that was cut in the middle is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mai.errors import UsageError
from mai.images.find import Found
from mai.report.jsonlines import line
from mai.types import Record

SYNC_S = 5.0
"""Seconds after which rows are forced to the disk: what a loss of power may cost."""


def _digest(path: str) -> int:
    return int.from_bytes(
        hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big"
    )


class Journal:
    """Rows beside an output file until they are all there.

    Args:
        output: the file to be.
        settings: JSON-able; what must be the same for a scan to go on.
        resume: go on with what is there.
        is_folder: the output will be a folder.

    Attributes:
        before: label -> rows that earlier runs made; `none` for files that were not judged.
        firsts: where `--group-duplicates` may keep what it knows, see copies.py.
        is_finished: an earlier run made the output and was stopped before it could tidy up.

    Raises:
        UsageError: another scan writes there; there is an unfinished one and `resume` is not asked; it was made with
            other settings; the folder cannot be made.
    """

    def __init__(
        self, output: Path, settings: Mapping[str, Any], resume: bool, is_folder: bool = False
    ) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self._rows_file = self.folder / "rows.jsonl"
        self.firsts = self.folder / "firsts.sqlite"
        self.before: Counter[str] = Counter()
        told = json.dumps(dict(settings), sort_keys=True, default=str)
        try:
            if output.is_dir() and not is_folder:
                raise IsADirectoryError(21, "it is a folder")
            self._lock = self._take_lock()
            self._lock.seek(0)
            before = self._lock.read()
            # The rows' file is made before scan.json says anything, and leaves it last: scan.json alone is the end.
            self.is_finished = bool(before) and not self._rows_file.exists() and output.exists()
            if self.is_finished and resume:
                return
            if before and not self.is_finished:
                self._go_on(before, told, resume)
            done = self._read_done()
            self._stream = self._rows_file.open("ab")
            if before != told:  # then there are no rows
                self._lock.truncate(0)
                self._lock.write(told)
                self._lock.flush()
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{output} cannot be written: {reason}. Give another --output.") from error
        self._done, self._n_left = np.unique(done, return_counts=True)
        self.n_before = self.n = len(done)
        self._synced = time.monotonic()

    def _take_lock(self) -> IO[str]:
        """scan.json, open and ours alone."""
        while True:
            self.folder.mkdir(parents=False, exist_ok=True)
            lock = (self.folder / "scan.json").open("a+", encoding="utf-8")
            try:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:  # Windows: two scans with one output are not told apart there
                return lock
            except OSError as error:
                lock.close()
                raise UsageError(
                    f"Another scan is writing {self.output}. Wait for it, or give another --output."
                ) from error
            try:  # the one that had it may have ended, and taken the file away, while we opened it
                if os.fstat(lock.fileno()).st_ino == (self.folder / "scan.json").stat().st_ino:
                    return lock
            except FileNotFoundError:
                pass
            lock.close()

    def _go_on(self, before: str, told: str, resume: bool) -> None:
        n = 0 if resume else sum(1 for _ in self._whole_rows())
        if resume and before != told:
            self._lock.close()
            raise UsageError(
                f"{self.folder} was begun with other options (detectors, weights, thresholds, limits or paths). "
                "Give the same ones, or delete that folder."
            )
        if n:
            self._lock.close()
            raise UsageError(
                f"{self.folder} holds {n:,} rows of a scan that did not end. Add --resume to go on with it, or delete "
                "that folder."
            )

    def _whole_rows(self) -> Iterator[bytes]:
        if self._rows_file.is_file():
            with self._rows_file.open("rb") as file:
                for row in file:
                    if row.endswith(b"\n"):
                        yield row

    def _read_done(self) -> NDArray[np.uint64]:
        """Digests of the paths that have a row (8 bytes a file), after a cut last row is taken away."""
        digests, n_bytes = array("Q"), 0
        for text in self._whole_rows():
            try:
                row = json.loads(text)
                label = row["label"] or "none"
                digests.append(_digest(row["path"]))
            except (ValueError, KeyError, TypeError):
                break  # a disk that lost power may hold anything from here on: made again
            self.before[label] += 1
            n_bytes += len(text)
        if self._rows_file.is_file() and self._rows_file.stat().st_size > n_bytes:
            with self._rows_file.open("rb+") as file:
                file.truncate(n_bytes)
        return np.frombuffer(digests, np.uint64) if len(digests) else np.empty(0, np.uint64)

    def left(self, founds: Iterable[Found]) -> Iterator[Found]:
        """Those files that have no row yet; a file that is named n times has n rows."""
        if not len(self._done):
            yield from founds
            return
        for found in founds:
            digest = np.uint64(_digest(found.path))
            place = int(np.searchsorted(self._done, digest))
            if place < len(self._done) and self._done[place] == digest and self._n_left[place]:
                self._n_left[place] -= 1
            else:
                yield found

    def write(self, record: Record) -> None:
        """Append one row."""
        self._stream.write(line(record).encode("utf-8", "backslashreplace") + b"\n")
        self._stream.flush()
        self.n += 1
        if time.monotonic() - self._synced > SYNC_S:
            os.fsync(self._stream.fileno())
            self._synced = time.monotonic()

    def records(self) -> Iterator[Record]:
        """All rows, those of earlier runs first."""
        for row in self._whole_rows():
            yield Record.from_dict(json.loads(row))

    def finish(self, is_the_output: bool) -> None:
        """All rows are there: the rows become the output (JSON Lines), or they were written elsewhere; clean up."""
        os.fsync(self._stream.fileno())
        self._stream.close()
        if is_the_output:
            target = self.output.resolve()  # through a link, which stays one
            if target.exists():
                self._rows_file.chmod(target.stat().st_mode & 0o777)
            self._rows_file.replace(target)
        self.tidy()

    def tidy(self) -> None:
        """Take the folder away."""
        self._rows_file.unlink(missing_ok=True)
        self.firsts.unlink(missing_ok=True)
        (self.folder / "scan.json").unlink(missing_ok=True)
        self._lock.close()
        with suppress(OSError):  # somebody put something into it, or has begun another scan there
            self.folder.rmdir()

    def close(self) -> None:
        """Stop here; what was written stays. After `finish` there is nothing to do."""
        if self._lock.closed:
            return
        try:
            self._stream.close()
        finally:
            if self.n:
                self._lock.close()
            else:  # nothing to go on with
                self.tidy()
