"""From what the user names (files, folders, globs, lists, shards, addresses) to the files that are looked at.

Lazy: a folder of ten million files is read as it goes, and nothing is opened that a name already tells.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from mai.errors import ImageError
from mai.images import globs, kinds, lists, remote, shards
from mai.images.files import path_error

Source = str | bytes | Path

SORTED = 10_000
"""Entries up to which a folder is read whole and sorted; a larger one is taken in the file system's order."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, slots=True)
class Found:
    """One thing to look at.

    Attributes:
        path: how it is called in the output; bytes that are not UTF-8 stand as `\\xNN`.
        file: what to open, None for what is in memory already.
        data: bytes already read (members of shards), else None.
        url: the address to fetch, None for what is on this machine.
        named: the user named it, so that it gets a row whatever it is.
        error: it cannot be looked at, and why; this becomes its row.
    """

    path: str
    file: Path | None = None
    data: bytes | None = None
    named: bool = False
    error: ImageError | None = None
    url: str | None = None


def find(
    sources: Iterable[Source],
    *,
    hidden: bool = False,
    follow_links: bool = True,
    max_bytes: int = shards.MAX_BYTES,
) -> Iterator[Found]:
    """What the sources mean, in their order; inside a folder by the bytes of the names, up to SORTED of them.

    A source is a file, a folder (recursive), a tar, zip or Parquet shard, `-` (a list of paths on stdin), `@FILE`
    (a list in a file), a CSV or TSV with a column of paths, an address (`s3://...`, see mai/images/remote.py), a glob
    with `*`, `?`, `[...]` and `**`, or several with a range as WebDataset writes it (`part-{000..127}.tar`). A path
    that exists is taken as it stands. A list holds one path a line, or paths that end in NUL, which are taken as they
    stand. In a folder, and in a shard, a file is found if its name or its first bytes say image. A folder met twice is
    read once.

    Args:
        sources: paths; bytes are decoded as the file system does.
        hidden: also files and folders whose name begins with a dot, unless they were named.
        follow_links: also links found in folders.
        max_bytes: larger members of shards are named and not read.
    """
    search = _Search(hidden, follow_links, max_bytes)
    for source in sources:
        yield from search.source(os.fsdecode(source))


def display(path: str) -> str:
    """A path for people and JSON: bytes that are not UTF-8 stand as `\\xNN`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class _Search:
    hidden: bool
    follow_links: bool
    max_bytes: int

    def source(self, source: str) -> Iterator[Found]:
        if source == "-":
            # Without a buffer, whose lock a thread that waits here would hold when Python ends.
            try:
                yield from self.listed(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer))
            except ImageError as error:
                told = ImageError(error.status, f"The list on standard input cannot be read. {error}")
                yield Found("-", named=True, error=told)
        elif _exists(source):
            yield from self.path(source)
        elif match := _RANGE.search(source):
            for number in range(int(match[1]), int(match[2]) + 1):
                name = f"{number:0{len(match[1])}}"
                yield from self.source(source[: match.start()] + name + source[match.end() :])
        elif remote.scheme(source):
            yield from self.address(source)
        elif source.startswith("@") and len(source) > 1:
            yield from self.list_file(source, source[1:])
        elif globs.is_pattern(source):
            yield from self.pattern(source)
        else:
            yield from self.path(source)

    def path(self, path: str) -> Iterator[Found]:
        """A path that was named, as it stands."""
        if remote.scheme(path) and not _exists(path):
            yield from self.address(path)
            return
        try:
            mode = Path(path).stat().st_mode
        except (OSError, ValueError) as error:
            yield Found(display(path), Path(path), named=True, error=path_error(error))
            return
        if stat.S_ISDIR(mode):
            yield from self.folder(path)
        elif stat.S_ISREG(mode) and shards.is_shard(path):
            yield from self.shard(path, named=True)
        elif stat.S_ISREG(mode) and lists.is_table(path):
            yield from self.list_file(path, path)
        else:
            yield Found(display(path), Path(path), named=True)

    def list_file(self, source: str, name: str) -> Iterator[Found]:
        """A list in a file, or at an address."""
        try:
            if remote.scheme(name) and not _exists(name):
                with remote.open_stream(name) as stream:
                    yield from self._named_in(stream, name)
                return
            mode = Path(name).stat().st_mode
            # A FIFO is what a shell makes of <(find ...); a device may never end.
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                kind = ImageError("not_a_file", f"The list '{display(name)}' is not a file.")
                yield Found(display(source), named=True, error=kind)
                return
            with Path(name).open("rb") as stream:
                yield from self._named_in(stream, name)
        except (OSError, ValueError, ImageError) as error:
            cause = error if isinstance(error, ImageError) else path_error(error)
            told = ImageError(cause.status, f"The list '{display(name)}' cannot be read. {cause}")
            yield Found(display(source), named=True, error=told)

    def _named_in(self, stream: BinaryIO, name: str) -> Iterator[Found]:
        if not lists.is_table(remote.plain(name)):
            yield from self.listed(stream)
            return
        for entry in lists.table_entries(stream, name.lower().endswith(".tsv")):
            if lists.is_table(entry):  # it may name itself
                told = ImageError(
                    "unsupported", "A table in a table is not read. Give it on the command line."
                )
                yield Found(display(entry), named=True, error=told)
            else:
                yield from self.path(_beside(entry, name))

    def listed(self, stream: BinaryIO) -> Iterator[Found]:
        """The entries of a list of paths.

        Raises:
            ImageError: it is no such list.
        """
        for entry in lists.entries(stream):
            if len(entry) > lists.MAX_PATH_BYTES:
                told = ImageError(
                    "not_found", "The list of paths has an entry that is too long to be a path."
                )
                yield Found(display(os.fsdecode(entry[:60])) + "...", named=True, error=told)
            else:
                yield from self.path(_unquoted(os.fsdecode(entry)))

    def address(self, url: str) -> Iterator[Found]:
        """What an address means: a file, a shard, a list, a folder or a pattern."""
        try:
            if url.startswith("@"):
                yield from self.list_file(url, url[1:])
            elif globs.is_pattern(url) and not remote.is_web(url):
                yield from self._matching(url)
            elif shards.is_shard(remote.plain(url)):
                yield from self._remote_shard(url, named=True)
            elif lists.is_table(remote.plain(url)):
                yield from self.list_file(url, url)
            elif not kinds.of_name(url) and remote.is_folder(url):
                for entry in remote.walk(url):
                    yield from self._remote(entry.url)
            else:
                yield Found(url, named=True, url=url)
        except ImageError as error:
            yield Found(url, named=True, error=error)

    def _matching(self, url: str) -> Iterator[Found]:
        """Files whose address matches a pattern."""
        n_found = 0
        for entry in remote.matching(url):
            n_found += 1
            yield from self._remote(entry.url)
        if not n_found:
            yield Found(url, named=True, error=ImageError("not_found", "No file there matches this pattern."))

    def _remote(self, url: str) -> Iterator[Found]:
        """A remote file that was met, not named. One whose name has no ending is asked for its first bytes."""
        name = url.rsplit("/", 1)[1]
        if name.startswith(".") and not self.hidden:
            return
        if shards.is_shard(url):
            yield from self._remote_shard(url)
        elif kinds.of_name(url) or (
            "." not in name and kinds.is_picture(url, remote.head(url, kinds.HEAD_BYTES))
        ):
            yield Found(url, url=url)

    def _remote_shard(self, url: str, named: bool = False) -> Iterator[Found]:
        name = remote.plain(url)
        seek = not name.lower().endswith(shards.TAR_SUFFIXES)
        shard = shards.Shard(name, lambda: remote.open_stream(url, seek), None)
        yield from self._members(shard, url, url, named)

    def pattern(self, pattern: str) -> Iterator[Found]:
        """Files that match are named, as if the shell had written them, but for a last `*` or `**`."""
        last = Path(pattern).name
        is_deep = "**" in Path(pattern).parts
        n_found = 0
        for path in globs.matches(pattern, self.hidden):
            # A deep pattern reaches the files of a folder by itself; walking it too would find them twice.
            if is_deep and Path(path).is_dir():
                continue
            n_found += 1
            if last in {"*", "**"} and not Path(path).is_dir():
                yield from self._in_folder(path)
            else:
                yield from self.path(path)
        if not n_found:
            told = ImageError("not_found", "Nothing is at this path, and no file matches it as a pattern.")
            yield Found(display(pattern), named=True, error=told)

    def folder(self, root: str) -> Iterator[Found]:
        """All that is below a folder. A stack of our own: folders may be deeper than Python's."""
        seen: set[tuple[int, int]] = set()
        stack: list[Iterator[os.DirEntry[str]]] = []
        pending: str | None = root
        while pending is not None or stack:
            if pending is not None:
                try:
                    if globs.is_new(pending, seen):
                        stack.append(self._entries(pending))
                except OSError as error:
                    yield Found(
                        display(pending), Path(pending), named=pending == root, error=_folder_error(error)
                    )
                pending = None
                continue
            try:
                entry = next(stack[-1], None)
            except OSError as error:  # a disk or a server that went away in the middle
                stack.pop()
                yield Found(display(root), Path(root), error=_folder_error(error))
                continue
            if entry is None:
                stack.pop()
            elif _is_folder(entry):
                pending = entry.path
            else:
                yield from self._in_folder(entry.path)

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        """Entries of a folder: sorted, or as they come where they are many.

        Raises:
            OSError: the folder cannot be read.
        """
        entries = os.scandir(folder)
        kept = (
            entry
            for entry in entries
            if (self.hidden or not entry.name.startswith("."))
            and (self.follow_links or not entry.is_symlink())
        )
        first = list(islice(kept, SORTED + 1))
        if len(first) > SORTED:
            return chain(_let_go(first[::-1]), kept)
        entries.close()
        return _let_go(sorted(first, key=lambda entry: os.fsencode(entry.name), reverse=True))

    def _in_folder(self, path: str) -> Iterator[Found]:
        """A file that was met, not named: found if its name, else its first bytes, say image."""
        if shards.is_shard(path):
            yield from self.shard(path)
        elif kinds.of_name(path) or kinds.is_picture(path, _head(path)):
            yield Found(display(path), Path(path))

    def shard(self, path: str, named: bool = False) -> Iterator[Found]:
        shown = display(path)
        try:
            if not stat.S_ISREG(Path(path).stat().st_mode):
                told = ImageError("not_a_file", "It is named like a shard, but is no regular file.")
                yield Found(shown, Path(path), error=told)
                return
            shard = shards.of_file(Path(path))
        except OSError as error:
            yield Found(shown, Path(path), error=path_error(error))
            return
        yield from self._members(shard, shown, path, named)

    def _members(self, shard: shards.Shard, shown: str, place: str, named: bool) -> Iterator[Found]:
        """What is in a shard; the files that a table names only if it was named itself."""
        for member in shards.members(shard, hidden=self.hidden, max_bytes=self.max_bytes, places=named):
            if member.place is not None:
                where = _beside(member.place, place)
                if remote.scheme(where):
                    yield Found(where, named=True, url=where)
                else:
                    yield Found(display(where), Path(where), named=True)
                continue
            inner = shown if member.name is None else f"{shown}::{display(member.name)}"
            yield Found(inner, data=member.data, error=member.error)


def _let_go(entries: list[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    """Entries from the last to the first, held no longer than needed: each keeps what it was asked, some 0.6 kB."""
    while entries:
        yield entries.pop()


def _unquoted(entry: str) -> str:
    """A path without the quotes that Windows' 'Copy as path' puts around it, unless a file is called so."""
    inner = entry[1:-1]
    is_quoted = len(entry) > 2 and entry[0] == entry[-1] == '"'
    return inner if is_quoted and not _exists(entry) and _exists(inner) else entry


def _beside(entry: str, table: str) -> str:
    """Where an entry of a table lies: as it stands, or, where nothing is there, beside the table."""
    if remote.scheme(entry) or os.path.isabs(entry):  # noqa: PTH117
        return entry
    if remote.scheme(table):
        return f"{table.rsplit('/', 1)[0]}/{entry}"
    beside = os.path.join(os.path.dirname(table), entry)  # noqa: PTH118, PTH120
    return beside if not _exists(entry) and _exists(beside) else entry


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _head(path: str) -> bytes:
    """First bytes of a regular file; none of what cannot be read, or is no file: that is never opened."""
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            return b""
        with Path(path).open("rb", buffering=0) as stream:
            return stream.read(kinds.HEAD_BYTES)
    except OSError:
        return b""


def _folder_error(error: OSError) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError("not_found", "The folder is not there any more.")
    if isinstance(error, PermissionError):
        return ImageError("not_readable", "The folder may not be read: no permission.")
    return ImageError("not_readable", f"The folder cannot be read: {error.strerror}.")
