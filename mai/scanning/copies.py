"""Pictures that look the same are judged once: `--group-duplicates`.

    files -> difference hash of each (a small decoding) -> the first of its kind?
        yes: judged as always, what was found in its pixels is kept
        no:  what the file says itself (c2pa, metadata) is read; what was found in the pixels is that of the first

In input order, so that the rows do not depend on the number of workers. A file is read twice for it.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mai.data.near import MAX_BITS, difference_hash, says_something
from mai.errors import ImageError
from mai.images import decode as decoding
from mai.images.find import Found
from mai.images.source import open_source
from mai.pipeline import Scanner
from mai.types import Evidence, Record

RECENT = 4096
"""Hashes that are compared one by one, at least; older ones are found by pieces of them."""

Run = Callable[[Iterable[Any], Callable[[Scanner, Any], Any]], Iterator[Any]]
"""Does something with each item in worker processes and gives the results in order."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A file and how it is to be looked at.

    Attributes:
        found: the file.
        first: number of the picture that it is a copy of, None for one that is judged itself.
        own: its number, where it may have copies.
    """

    found: Found
    first: int | None
    own: int | None

    @property
    def path(self) -> str:
        """How it is called."""
        return self.found.path

    @property
    def data(self) -> bytes | None:
        """Bytes of a member of a shard."""
        return self.found.data


NO_HASH = -1


def hash_of(scanner: Scanner, found: Found) -> int:
    """Difference hash of a file, NO_HASH for one that cannot be decoded or is all but blank."""
    limits = scanner.settings.limits
    try:
        value = difference_hash(decoding.small(open_source(found, limits), limits))
    except (ImageError, MemoryError):
        return NO_HASH
    return value if says_something(value) else NO_HASH


def look(scanner: Scanner, asked: Asked) -> Record:
    """The row of a file; of a copy only with what it says itself."""
    return scanner.scan(asked.found) if asked.first is None else scanner.statements(asked.found)


def scan_grouped(founds: Iterable[Found], scanner: Scanner, run: Run, kept: Path | None) -> Iterator[Record]:
    """Judge many files, those that look the same once; rows in input order.

    Args:
        founds: read lazily.
        scanner: of the same settings as that of the workers; decides about the copies.
        run: see Run.
        kept: file in which the first pictures are kept over a resume; None: nowhere.
    """
    firsts = _Firsts(kept)
    try:
        waiting: deque[Asked] = deque()
        for record in run(_asked(founds, firsts, run, waiting), look):
            asked = waiting.popleft()
            if asked.first is not None and record.status == "ok":
                shared = firsts.evidence(asked.first)
                # The first may have failed after all: then a copy is judged for itself.
                yield scanner.join(record, shared) if shared else scanner.scan(asked.found)
            else:
                if asked.own is not None and record.status == "ok":
                    firsts.keep(asked.own, record, scanner)
                yield record
    finally:
        firsts.close()


def _asked(founds: Iterable[Found], firsts: _Firsts, run: Run, waiting: deque[Asked]) -> Iterator[Asked]:
    taken: deque[Found] = deque()

    def seen() -> Iterator[Found]:
        for found in founds:
            taken.append(found)
            yield found

    for value in run(seen(), hash_of):
        found = taken.popleft()
        has_hash = isinstance(value, int) and value != NO_HASH  # a worker that died gives a row
        first = firsts.find(value) if has_hash else None
        is_itself = first is not None and firsts.path(first) == found.path  # begun before a resume
        own = first if is_itself else None
        if first is None and has_hash:
            own = firsts.add(value, found.path)
        waiting.append(Asked(found, None if is_itself else first, own))
        yield waiting[-1]


class _Firsts:
    """The first pictures of their kind: their hashes in memory, what was found in them in SQLite.

    Args:
        kept: the SQLite file; None: one that goes with this process.
    """

    def __init__(self, kept: Path | None) -> None:
        # The files to come are compared in one thread, the rows that are there are kept in another.
        self._lock = Lock()
        self._db = sqlite3.connect(kept or "", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS firsts (number INTEGER PRIMARY KEY, hash TEXT, path TEXT, evidence TEXT)"
        )
        # A first whose row was never made is no first: another run may meet its copies before it.
        self._db.execute("DELETE FROM firsts WHERE evidence IS NULL")
        self._index = NearIndex()
        self._numbers: list[int] = []
        for number, value in self._db.execute("SELECT number, hash FROM firsts ORDER BY number"):
            self._index.add(int(value))
            self._numbers.append(number)

    def find(self, value: int) -> int | None:
        """Number of the first picture that looks like it."""
        place = self._index.find(value)
        return None if place is None else self._numbers[place]

    def _do(self, words: str, *values: object) -> sqlite3.Cursor:
        with self._lock:
            return self._db.execute(words, values)

    def add(self, value: int, path: str) -> int:
        """A new first; its number."""
        self._index.add(value)
        shown = path.encode("utf-8", "replace").decode()
        number = self._do("INSERT INTO firsts (hash, path) VALUES (?,?)", str(value), shown).lastrowid
        assert number is not None
        self._numbers.append(number)
        return number

    def path(self, number: int) -> str | None:
        """How the first is called."""
        row = self._do("SELECT path FROM firsts WHERE number=?", number).fetchone()
        return row[0] if row else None

    def keep(self, number: int, record: Record, scanner: Scanner) -> None:
        """Keep what was found in its pixels."""
        found = [e.to_dict() for e in record.evidence if scanner.detectors[e.detector].needs == "pixels"]
        self._do("UPDATE firsts SET evidence=? WHERE number=?", json.dumps(found), number)

    def evidence(self, number: int) -> list[Evidence]:
        """What was found in the first, said so; nothing if that failed."""
        path, text = self._do("SELECT path, evidence FROM firsts WHERE number=?", number).fetchone()
        return [
            replace(
                (one := Evidence.from_dict(values)),
                note=f"{one.note} Taken from {path}, which looks the same.",
                details={**one.details, "shared_from": path},
            )
            for values in json.loads(text or "[]")
        ]

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()


class NearIndex:
    """Hashes of 64 bits, and which of them was the first within MAX_BITS of another.

    Two hashes that differ in at most k bits agree in at least one of k + 1 pieces: older hashes are sorted by each
    piece. 88 bytes a hash.
    """

    def __init__(self) -> None:
        self._hashes = np.empty(RECENT, np.uint64)
        self._n = self._n_sorted = 0
        self._edges = list(pairwise(np.linspace(0, 64, MAX_BITS + 2).astype(int).tolist()))
        self._sorted: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []

    def add(self, value: int) -> int:
        """Put a hash in; its place."""
        if self._n == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty(self._n, np.uint64)])
        self._hashes[self._n] = value
        self._n += 1
        if self._n - self._n_sorted > max(RECENT, self._n_sorted // 8):
            self._sort()
        return self._n - 1

    def _sort(self) -> None:
        self._n_sorted = self._n
        self._sorted = []
        for low, high in self._edges:
            pieces = self._piece(self._hashes[: self._n], low, high)
            order = np.argsort(pieces, kind="stable")
            self._sorted.append((pieces[order], order))

    @staticmethod
    def _piece(values: NDArray[np.uint64], low: int, high: int) -> NDArray[np.uint64]:
        return (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)

    def find(self, value: int) -> int | None:
        """Place of the first hash that differs in at most MAX_BITS bits."""
        wanted = np.array([value], np.uint64)
        places = [np.arange(self._n_sorted, self._n)]
        for (low, high), (pieces, order) in zip(self._edges, self._sorted, strict=False):
            piece = self._piece(wanted, low, high)[0]
            begin, end = np.searchsorted(pieces, [piece, piece + np.uint64(1)])
            places.append(order[begin:end])
        near = np.concatenate(places)
        differ = self._hashes[near] ^ wanted[0]
        n_bits = _ONES[differ.view(np.uint16)].reshape(-1, 4).sum(1)
        close = near[n_bits <= MAX_BITS]
        return int(close.min()) if len(close) else None


_ONES = np.array([i.bit_count() for i in range(2**16)], np.uint8)
