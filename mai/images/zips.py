"""Pictures in zip archives, in the order of the list that zip has at its end."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator

from mai.errors import ImageError
from mai.images import kinds
from mai.images.files import too_large
from mai.images.shards import Member, Shard, broken, is_hidden, too_many
from mai.images.zip_list import Zip

_ENCRYPTED = 0x1
"""Bit of `flag_bits` (APPNOTE.TXT, section 4.4.4)."""


def members(shard: Shard, hidden: bool, max_bytes: int, max_entries: int | None = None) -> Iterator[Member]:
    """The pictures of a zip in the order of its list; a damaged member gets a row and the others go on."""
    n_entries = 0
    try:
        with shard.open() as raw:
            listed = Zip(raw)
            for entry in listed.entries():
                n_entries += 1
                if max_entries is not None and n_entries > max_entries:
                    yield too_many(max_entries)
                    return
                if not entry.filename.endswith("/") and (hidden or not is_hidden(entry.filename)):
                    member = _member(listed.archive, entry, max_bytes)
                    if member is not None:
                        yield member
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, ImageError) as error:
        yield Member(None, None, broken(error, "zip archive", n_entries))


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, max_bytes: int) -> Member | None:
    """The member if its name or first bytes say image. What the list says of its size is not trusted."""
    name = entry.filename
    if entry.flag_bits & _ENCRYPTED:
        if not kinds.of_name(name):
            return None
        told = ImageError("unsupported", "The member is encrypted. Unpack the archive and scan the folder.")
        return Member(name, None, told)
    try:
        with archive.open(entry) as stream:
            head = stream.read(kinds.HEAD_BYTES)
            if not kinds.is_picture(name, head):
                return None
            if entry.file_size > max_bytes:
                return Member(name, None, too_large(entry.file_size, max_bytes))
            data = head + stream.read(max_bytes + 1 - len(head))
    except NotImplementedError as error:
        return Member(name, None, ImageError("unsupported", f"The member cannot be unpacked: {error}."))
    except (
        Exception
    ) as error:  # each of zipfile's decompressors has errors of its own (LZMAError, struct.error ...)
        if not kinds.of_name(name):
            return None
        return Member(name, None, ImageError("truncated", f"The member is damaged: {error}."))
    if len(data) > max_bytes:
        return Member(name, None, too_large(len(data), max_bytes))
    return Member(name, data)
