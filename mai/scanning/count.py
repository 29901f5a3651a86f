"""How many files there are to come, counted beside the scan, so that the time left can be told."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Thread

from mai.errors import ImageError
from mai.images import globs, kinds, lists, remote, shards

PAUSE_EVERY = 2000
PAUSE_S = 0.002
"""Counting leaves the processor to the scan: so many names, then a pause."""


class _UnknownError(Exception):
    """The number cannot be known without reading what the scan itself reads."""


class Count:
    """Counts names in a thread; opens nothing but lists and the directories of zip and Parquet shards.

    Args:
        sources: as for mai.images.find.find.

    Attributes:
        total: files to come; None while it is counted, and for good where that would mean to read everything (a tar, a
            list on standard input, an address).
    """

    def __init__(self, sources: Iterable[str]) -> None:
        self.total: int | None = None
        self._is_closed = False
        self._n_seen = 0
        Thread(target=self._count, args=(list(sources),), daemon=True).start()

    def close(self) -> None:
        """Count no further."""
        self._is_closed = True

    def _count(self, sources: list[str]) -> None:
        try:
            self.total = sum(sum(self._source(source)) for source in sources)
        except (_UnknownError, OSError, ValueError):
            self.total = None

    def _step(self) -> None:
        self._n_seen += 1
        if self._is_closed:
            raise _UnknownError
        if self._n_seen % PAUSE_EVERY == 0:
            time.sleep(PAUSE_S)

    def _source(self, source: str) -> Iterator[int]:
        if source == "-" or (remote.scheme(source) and not Path(source).exists()):
            raise _UnknownError
        if Path(source).exists():
            yield from self._path(source, named=True)
        elif source.startswith("@"):
            yield from self._entries(source[1:])
        elif globs.is_pattern(source):
            for path in globs.matches(source, hidden=False):
                yield from self._path(path, named=True)
        else:
            yield 1

    def _path(self, path: str, named: bool) -> Iterator[int]:
        if Path(path).is_dir():
            yield from self._folder(path)
        elif shards.is_shard(path):
            yield _in_shard(Path(path))
        elif named and lists.is_table(path):
            yield from self._entries(path)
        elif named or kinds.of_name(path):
            yield 1

    def _folder(self, root: str) -> Iterator[int]:
        folders = [root]
        while folders:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    self._step()
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_symlink() and entry.is_dir():
                        raise _UnknownError  # a link may lead to what is counted already
                    else:
                        yield from (
                            self._path(entry.path, named=False)
                            if shards.is_shard(entry.name)
                            else ([1] if kinds.of_name(entry.name) else [])
                        )

    def _entries(self, name: str) -> Iterator[int]:
        """One for each entry of a list, which may name folders too: then it is too few, and no time is told."""
        if not Path(name).is_file():
            raise _UnknownError
        with Path(name).open("rb") as stream:
            entries = (
                lists.table_entries(stream, name.endswith(".tsv"))
                if lists.is_table(name)
                else lists.entries(stream)
            )
            for _ in entries:
                self._step()
                yield 1


def _in_shard(path: Path) -> int:
    if path.name.lower().endswith(shards.ZIP_SUFFIXES):
        import zipfile

        from mai.images.zip_list import Zip

        try:
            with path.open("rb") as file:
                return sum(bool(kinds.of_name(entry.filename)) for entry in Zip(file).entries())
        except (zipfile.BadZipFile, ImageError):
            return 1
    if path.name.lower().endswith(shards.PARQUET_SUFFIXES):
        try:
            from pyarrow import parquet

            return int(parquet.ParquetFile(path).metadata.num_rows)
        except (ImportError, OSError, ValueError):
            return 1
    raise _UnknownError
