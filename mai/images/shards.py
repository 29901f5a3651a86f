"""Pictures inside tar, zip and Parquet shards, read one after another: memory holds one picture, not the shard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mai.errors import ImageError

MAX_BYTES = 64 * 2**20
"""Default limit of an encoded picture, in bytes."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
ZIP_SUFFIXES = (".zip",)
PARQUET_SUFFIXES = (".parquet",)


@dataclass(frozen=True, slots=True)
class Member:
    """One picture of a shard, or what went wrong with it.

    Attributes:
        name: name inside the shard, row number for Parquet; None if the shard itself is broken.
        data: its bytes, None with an error or a place.
        error: why there are no bytes.
        place: path or address of the picture, where the shard is a table that names files.
    """

    name: str | None
    data: bytes | None
    error: ImageError | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """A file with pictures inside.

    Attributes:
        name: its name, whose ending says the kind.
        open: makes a stream of its bytes.
        size: bytes, None where that is not known.
        path: where it is, None for one that has no path.
    """

    name: str
    open: Callable[[], BinaryIO]
    size: int | None
    path: Path | None = None


def is_shard(name: str) -> bool:
    """True if the file name is that of a tar, zip or Parquet shard."""
    return name.lower().endswith(TAR_SUFFIXES + ZIP_SUFFIXES + PARQUET_SUFFIXES)


def of_file(path: Path) -> Shard:
    """A regular file as a shard.

    Raises:
        OSError: it is gone, or may not be asked.
    """
    return Shard(path.name, lambda: path.open("rb"), path.stat().st_size, path)


def members(
    shard: Shard,
    *,
    hidden: bool = False,
    max_bytes: int = MAX_BYTES,
    places: bool = False,
    max_entries: int | None = None,
) -> Iterator[Member]:
    """The pictures of a shard in its order; one that breaks off ends with a Member that says so.

    Args:
        shard: one whose name passes `is_shard`.
        hidden: also members below a name that begins with a dot.
        max_bytes: a larger member is named with `too_large` and not read.
        places: also rows that name a file in place of holding it; else they are `not_found`.
        max_entries: of a tar or zip, entries of any kind; where there are more, the shard ends with a Member that
            says so.
    """
    if shard.size == 0:
        return iter([Member(None, None, ImageError("empty", "The shard has no bytes."))])
    name = shard.name.lower()
    if name.endswith(PARQUET_SUFFIXES):
        from mai.images import parquet

        return parquet.members(shard, max_bytes, places)
    if name.endswith(ZIP_SUFFIXES):
        from mai.images import zips

        return zips.members(shard, hidden, max_bytes, max_entries)
    from mai.images import tar

    return tar.members(shard, hidden, max_bytes, max_entries)


def is_hidden(name: str) -> bool:
    """True if a part of a member's name begins with a dot."""
    return any(part.startswith(".") and part not in {".", ".."} for part in name.split("/"))


def too_many(max_entries: int) -> Member:
    """The last Member of a shard with more entries than may be read."""
    told = f"The archive has more than {max_entries:,} members; the rest are left out. Send it in parts."
    return Member(None, None, ImageError("too_large", told))


def broken(error: BaseException, what: str, n_read: int) -> ImageError:
    """What is wrong with a shard that cannot be read, or not to its end.

    Args:
        error: what its reader said.
        what: `tar archive` ...
        n_read: entries that were read before.
    """
    if isinstance(error, ImageError):
        return error
    if isinstance(error, PermissionError):
        return ImageError("not_readable", "The shard may not be read: no permission.")
    if isinstance(error, FileNotFoundError):
        return ImageError("not_found", "The shard is not there any more.")
    reason = str(error).splitlines()[0][:200].rstrip(".") if str(error) else type(error).__name__
    if n_read:
        return ImageError(
            "truncated", f"The {what} breaks off or is damaged after {n_read:,} entries: {reason}."
        )
    return ImageError("not_an_image", f"The shard cannot be read as a {what}: {reason}.")
