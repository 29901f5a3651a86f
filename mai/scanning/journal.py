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
from collections.abc import Iterable, Iterator, Mapping
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

    Raises:
        UsageError: another scan writes there; there is an unfinished one and `resume` is not asked; it was made with
            other settings; the folder cannot be made.
    """

    def __init__(self, output: Path, settings: Mapping[str, Any], resume: bool) -> None:
        self.output = output
        self.folder = output.with_name(output.name + ".partial")
        self._rows_file = self.folder / "rows.jsonl"
        told = json.dumps(dict(settings), sort_keys=True, default=str)
        try:
            if output.is_dir():
                raise IsADirectoryError(21, "it is a folder")
            self.folder.mkdir(parents=False, exist_ok=True)
            self._lock: IO[str] = (self.folder / "scan.json").open("a+", encoding="utf-8")
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"{output} cannot be written: {reason}. Give another --output.") from error
        self._take_lock()
        self._lock.seek(0)
        before = self._lock.read()
        if before and not resume:
            n = sum(1 for _ in self._whole_rows())
            self._lock.close()
            raise UsageError(
                f"{self.folder} holds {n:,} rows of a scan that did not end. Add --resume to go on with it, or delete "
                "that folder."
            )
        if before and before != told:
            self._lock.close()
            raise UsageError(
                f"{self.folder} was begun with other options (detectors, weights, thresholds, limits or paths). "
                "Give the same ones, or delete that folder."
            )
        if not before:
            self._lock.write(told)
            self._lock.flush()
        self._done, self.n_before = self._read_done()
        self._stream = self._rows_file.open("ab")
        self._synced = time.monotonic()
        self.n = self.n_before

    def _take_lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: two scans with one output are not told apart there
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise UsageError(
                f"Another scan is writing {self.output}. Wait for it, or give another --output."
            ) from error

    def _whole_rows(self) -> Iterator[bytes]:
        if self._rows_file.is_file():
            with self._rows_file.open("rb") as file:
                for row in file:
                    if row.endswith(b"\n"):
                        yield row

    def _read_done(self) -> tuple[NDArray[np.uint64], int]:
        """Digests of the paths that have a row, sorted (8 bytes a file), after a cut last row is taken away."""
        digests, n_bytes = array("Q"), 0
        for row in self._whole_rows():
            try:
                digests.append(_digest(json.loads(row)["path"]))
            except (ValueError, KeyError, TypeError):
                break  # a disk that lost power may hold anything from here on: made again
            n_bytes += len(row)
        if self._rows_file.is_file() and self._rows_file.stat().st_size > n_bytes:
            with self._rows_file.open("rb+") as file:
                file.truncate(n_bytes)
        done = np.frombuffer(digests, np.uint64) if len(digests) else np.empty(0, np.uint64)
        return np.sort(done), len(digests)

    def left(self, founds: Iterable[Found]) -> Iterator[Found]:
        """Those files that have no row yet."""
        if not len(self._done):
            yield from founds
            return
        for found in founds:
            digest = np.uint64(_digest(found.path))
            place = int(np.searchsorted(self._done, digest))
            if place == len(self._done) or self._done[place] != digest:
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
        self._rows_file.unlink(missing_ok=True)
        (self.folder / "scan.json").unlink(missing_ok=True)
        self._lock.close()
        self.folder.rmdir()

    def close(self) -> None:
        """Stop here; what was written stays."""
        if not self._stream.closed:
            self._stream.close()
        self._lock.close()
        if not self.n:  # nothing to go on with
            self._rows_file.unlink(missing_ok=True)
            (self.folder / "scan.json").unlink(missing_ok=True)
            self.folder.rmdir()
