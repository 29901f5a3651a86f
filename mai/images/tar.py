"""Pictures in tar archives, WebDataset's shards among them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from typing import cast

from mai.errors import ImageError
from mai.images import kinds
from mai.images.files import too_large
from mai.images.shards import Member, Shard, broken, is_hidden, too_many

_MAX_NAME_BYTES = 2**20
"""Limit of a tar header that holds a long name: tarfile reads it whole, and it may claim gigabytes."""


class _Entry(tarfile.TarInfo):
    """A tar header: long names stay within reason, and a damaged one is not taken for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> _Entry:
        try:
            entry = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        except tarfile.HeaderError as error:
            # tarfile takes a damaged header behind the first for the end, and would be silent about the rest.
            if any(buf) or len(buf) not in {0, tarfile.BLOCKSIZE}:
                raise tarfile.ReadError(str(error)) from error
            raise
        if entry.type in _NAME_TYPES and entry.size > _MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a header claims a name of {entry.size:,} bytes")
        return entry


_NAME_TYPES = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


def members(shard: Shard, hidden: bool, max_bytes: int, max_entries: int | None = None) -> Iterator[Member]:
    """The pictures of a tar in its order, plain or compressed; see mai/images/shards.py."""
    n_entries = 0
    try:
        with shard.open() as raw:
            start = cast(io.BufferedReader, raw).peek(2)[:2]
            if not start:
                yield Member(None, None, ImageError("empty", "The shard has no bytes."))
                return
            # Not tarfile's own 'r|gz': it copies what is left of a piece for every block it takes from it.
            stream = gzip.open(raw) if start == b"\x1f\x8b" else raw  # noqa: SIM115  # closing raw is enough
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry) as archive:
                while (entry := archive.next()) is not None:
                    n_entries += 1
                    if max_entries is not None and n_entries > max_entries:
                        yield too_many(max_entries)
                        return
                    archive.members.clear()  # type: ignore[attr-defined]  # or a shard of millions fills memory
                    if entry.isreg() and (hidden or not is_hidden(entry.name)):
                        member = _tar_member(archive, entry, max_bytes)
                        if member is not None:
                            yield member
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError, ImageError) as error:
        yield Member(None, None, broken(error, "tar archive", n_entries))


def _tar_member(archive: tarfile.TarFile, entry: tarfile.TarInfo, max_bytes: int) -> Member | None:
    """The member if its name or first bytes say image. Reads no more than it must."""
    content = archive.extractfile(entry)
    if content is None:
        return None
    head = content.read(kinds.HEAD_BYTES)
    if not kinds.is_picture(entry.name, head):
        return None
    if entry.size > max_bytes:
        return Member(entry.name, None, too_large(entry.size, max_bytes))
    data = head + content.read()
    if len(data) < entry.size:
        raise tarfile.ReadError("unexpected end of data")
    return Member(entry.name, data)
