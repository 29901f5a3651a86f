"""From what the user names (files, folders, globs, lists, shards) to the files that are looked at.

Lazy: a folder of ten million files is read folder by folder, and nothing is opened that a name already tells.
"""

from __future__ import annotations

import fnmatch
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mai.errors import ImageError
from mai.images import kinds, shards
from mai.images.files import path_error

Source = str | bytes | Path

_MAX_PATH_BYTES = 2**16
"""Longest entry of a list of paths: sixteen times what Linux lets a path have."""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing to look at.

    Attributes:
        path: how it is called in the output; bytes that are not UTF-8 stand as `\\xNN`.
        file: what to open, None for what is in memory already.
        data: bytes already read (members of shards), else None.
        named: the user named it, so that it gets a row whatever it is.
        error: it cannot be looked at, and why; this becomes its row.
    """

    path: str
    file: Path | None = None
    data: bytes | None = None
    named: bool = False
    error: ImageError | None = None


def find(
    sources: Iterable[Source],
    *,
    hidden: bool = False,
    follow_links: bool = True,
    max_bytes: int = shards.MAX_BYTES,
) -> Iterator[Found]:
    """What the sources mean, in their order; inside a folder by the bytes of the names.

    A source is a file, a folder (recursive), a tar or Parquet shard, `-` (a list of paths on stdin), `@FILE`
    (a list in a file) or a glob with `*`, `?`, `[...]` and `**`. A path that exists is taken as it stands.
    A list holds one path a line, or paths that end in NUL, which are taken as they stand. In a folder, and in
    a tar, a file is found if its name or its first bytes say image. A folder met twice is read once.

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
            yield from self.listed(sys.stdin.buffer)
        elif _exists(source):
            yield from self.path(source)
        elif source.startswith("@") and len(source) > 1:
            yield from self.list_file(source)
        elif _is_pattern(source):
            yield from self.glob(source)
        else:
            yield from self.path(source)

    def path(self, path: str) -> Iterator[Found]:
        """A path that was named, as it stands."""
        try:
            mode = Path(path).stat().st_mode
        except (OSError, ValueError) as error:
            yield Found(display(path), Path(path), named=True, error=path_error(error))
            return
        if stat.S_ISDIR(mode):
            yield from self.folder(path)
        elif stat.S_ISREG(mode) and shards.is_shard(path):
            yield from self.shard(path)
        else:
            yield Found(display(path), Path(path), named=True)

    def list_file(self, source: str) -> Iterator[Found]:
        name = source[1:]
        try:
            mode = Path(name).stat().st_mode
            # A FIFO is what a shell makes of <(find ...); a device may never end.
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                kind = ImageError("not_a_file", f"The list '{display(name)}' is not a file.")
                yield Found(display(source), named=True, error=kind)
                return
            with Path(name).open("rb") as stream:
                yield from self.listed(stream)
        except (OSError, ValueError) as error:
            cause = path_error(error)
            told = ImageError(cause.status, f"The list '{display(name)}' cannot be read. {cause}")
            yield Found(display(source), named=True, error=told)

    def listed(self, stream: BinaryIO) -> Iterator[Found]:
        for entry in _entries(stream):
            if len(entry) > _MAX_PATH_BYTES:
                told = ImageError(
                    "not_found", "The list of paths has an entry that is too long to be a path."
                )
                yield Found(display(os.fsdecode(entry[:60])) + "...", named=True, error=told)
            else:
                yield from self.path(os.fsdecode(entry))

    def glob(self, pattern: str) -> Iterator[Found]:
        """Files that match are named, as if the shell had written them, but for a last `*` or `**`."""
        last = Path(pattern).name
        is_deep = "**" in Path(pattern).parts
        n_found = 0
        for path in self._matches(pattern):
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

    def _matches(self, pattern: str) -> Iterator[str]:
        anchor = Path(pattern).anchor
        parts = Path(pattern).parts[1:] if anchor else Path(pattern).parts
        yield from self._expand(anchor, parts, set())

    def _expand(self, base: str, parts: tuple[str, ...], seen: set[tuple[int, int]]) -> Iterator[str]:
        if not parts:
            yield base
            return
        part, rest = parts[0], parts[1:]
        if part == "**":
            if rest:
                yield from self._expand(base, rest, seen)
            for name in self._names(base):
                inner = os.path.join(base, name)  # noqa: PTH118  # Path would drop a leading './'
                if not os.path.isdir(inner):  # noqa: PTH112
                    if not rest:
                        yield inner
                elif _is_new(inner, seen):
                    yield from self._expand(inner, parts, seen)
        elif _is_pattern(part):
            for name in self._names(base, part):
                yield from self._expand(os.path.join(base, name), rest, seen)  # noqa: PTH118
        elif _exists(inner := os.path.join(base, part)):  # noqa: PTH118
            yield from self._expand(inner, rest, seen)

    def _names(self, folder: str, pattern: str = "*") -> list[str]:
        """Sorted names in a folder that match; none if it cannot be read, as in a shell."""
        try:
            names = [entry.name for entry in os.scandir(folder or ".")]
        except OSError:
            return []
        keep_hidden = self.hidden or pattern.startswith(".")
        names = [name for name in names if keep_hidden or not name.startswith(".")]
        return sorted((name for name in names if fnmatch.fnmatchcase(name, pattern)), key=os.fsencode)

    def folder(self, root: str) -> Iterator[Found]:
        """All that is below a folder. A stack of our own: folders may be deeper than Python's."""
        seen: set[tuple[int, int]] = set()
        stack: list[Iterator[os.DirEntry[str]]] = []
        pending: str | None = root
        while pending is not None or stack:
            if pending is not None:
                try:
                    if _is_new(pending, seen):
                        stack.append(iter(self._entries(pending)))
                except OSError as error:
                    yield Found(
                        display(pending), Path(pending), named=pending == root, error=_folder_error(error)
                    )
                pending = None
                continue
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif _is_folder(entry):
                pending = entry.path
            else:
                yield from self._in_folder(entry.path)

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        with os.scandir(folder) as entries:
            kept = [
                entry
                for entry in entries
                if (self.hidden or not entry.name.startswith("."))
                and (self.follow_links or not entry.is_symlink())
            ]
        return sorted(kept, key=lambda entry: os.fsencode(entry.name))

    def _in_folder(self, path: str) -> Iterator[Found]:
        """A file that was met, not named: found if its name, else its first bytes, say image."""
        if shards.is_shard(path):
            yield from self.shard(path)
        elif kinds.of_name(path) or kinds.is_picture(path, _head(path)):
            yield Found(display(path), Path(path))

    def shard(self, path: str) -> Iterator[Found]:
        shown = display(path)
        try:
            if not stat.S_ISREG(Path(path).stat().st_mode):
                told = ImageError("not_a_file", "It is named like a shard, but is no regular file.")
                yield Found(shown, Path(path), error=told)
                return
        except OSError as error:
            yield Found(shown, Path(path), error=path_error(error))
            return
        for member in shards.members(Path(path), hidden=self.hidden, max_bytes=self.max_bytes):
            inner = shown if member.name is None else f"{shown}::{display(member.name)}"
            yield Found(inner, data=member.data, error=member.error)


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _is_new(folder: str, seen: set[tuple[int, int]]) -> bool:
    """True the first time a folder is reached; this is also what ends a loop of links.

    Raises:
        OSError: the folder is gone or may not be asked.
    """
    facts = Path(folder).stat()
    key = (facts.st_dev, facts.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


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


def _entries(stream: BinaryIO) -> Iterator[bytes]:
    """Entries of a list, as they come in: NUL ends them if the first piece has one, else a line end."""
    rest, end = b"", b""
    is_first = True
    while piece := getattr(stream, "read1", stream.read)(_MAX_PATH_BYTES):
        if is_first:
            piece = piece.removeprefix(b"\xef\xbb\xbf")
            end = b"\0" if b"\0" in piece else b"\n"
            is_first = False
        *whole, rest = (rest + piece).split(end)
        for entry in whole:
            if entry := _trimmed(entry, end):
                yield entry
        if len(rest) > _MAX_PATH_BYTES:
            break
    if entry := _trimmed(rest, end):
        yield entry


def _trimmed(entry: bytes, end: bytes) -> bytes:
    return entry.removesuffix(b"\r") if end == b"\n" else entry


def _folder_error(error: OSError) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError("not_found", "The folder is not there any more.")
    if isinstance(error, PermissionError):
        return ImageError("not_readable", "The folder may not be read: no permission.")
    return ImageError("not_readable", f"The folder cannot be read: {error.strerror}.")
