"""Pictures inside tar and Parquet shards, read one after another: memory holds one picture, not the shard."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mai.errors import ImageError, MissingExtraError, require
from mai.images import kinds
from mai.images.files import too_large

MAX_BYTES = 64 * 2**20
"""Default limit of an encoded picture, in bytes."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz")
PARQUET_SUFFIXES = (".parquet",)

_MAX_NAME_BYTES = 2**20
"""Limit of a tar header that holds a long name: tarfile reads it whole, and it may claim gigabytes."""

_COLUMNS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
"""Names of an image column in Parquet, best first; the first three are what Hugging Face sets use."""

_ROWS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Member:
    """One picture of a shard, or what went wrong with it.

    Attributes:
        name: name inside the shard, row number for Parquet; None if the shard itself is broken.
        data: its bytes, None with an error.
        error: why there are no bytes.
    """

    name: str | None
    data: bytes | None
    error: ImageError | None = None


def is_shard(name: str) -> bool:
    """True if the file name is that of a tar or Parquet shard."""
    return name.lower().endswith(TAR_SUFFIXES + PARQUET_SUFFIXES)


def members(path: Path, *, hidden: bool = False, max_bytes: int = MAX_BYTES) -> Iterator[Member]:
    """The pictures of a shard in its order; one that breaks off ends with a Member that says so.

    Args:
        path: an existing regular file whose name passes `is_shard`.
        hidden: also tar members below a name that begins with a dot.
        max_bytes: a larger member is named with `too_large` and not read.
    """
    if path.name.lower().endswith(PARQUET_SUFFIXES):
        return _parquet(path, max_bytes)
    return _tar(path, hidden, max_bytes)


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


def _tar(path: Path, hidden: bool, max_bytes: int) -> Iterator[Member]:
    n_entries = 0
    try:
        with path.open("rb") as raw:
            start = raw.peek(2)[:2]
            if not start:
                yield Member(None, None, ImageError("empty", "The shard has no bytes."))
                return
            # Not tarfile's own 'r|gz': it copies what is left of a piece for every block it takes from it.
            stream = gzip.open(raw) if start == b"\x1f\x8b" else raw  # noqa: SIM115  # closing raw is enough
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Entry) as archive:
                while (entry := archive.next()) is not None:
                    n_entries += 1
                    archive.members.clear()  # type: ignore[attr-defined]  # or a shard of millions fills memory
                    if entry.isreg() and (hidden or not _is_hidden(entry.name)):
                        member = _tar_member(archive, entry, max_bytes)
                        if member is not None:
                            yield member
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        yield Member(None, None, _broken(error, "tar archive", n_entries))


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


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in {".", ".."} for part in name.split("/"))


def _parquet(path: Path, max_bytes: int) -> Iterator[Member]:
    n_rows = 0
    try:
        if path.stat().st_size == 0:
            yield Member(None, None, ImageError("empty", "The shard has no bytes."))
            return
        parquet = require("pyarrow.parquet", "data", "Reading Parquet shards")
        # Buffered reading takes a column in pieces in place of a row group at once.
        with parquet.ParquetFile(path, buffer_size=2**20, pre_buffer=False) as file:
            column = _image_column(file.schema_arrow)
            if column is None:
                names = ", ".join(file.schema_arrow.names[:12]) or "none"
                yield Member(
                    None,
                    None,
                    ImageError(
                        "not_an_image", f"The Parquet file has no column of pictures. Columns: {names}."
                    ),
                )
                return
            batches = file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=[column], use_threads=False)
            for batch in batches:
                for value in batch.column(0):
                    yield _parquet_member(str(n_rows), value, max_bytes)
                    n_rows += 1
    except MissingExtraError as error:
        yield Member(None, None, ImageError("unsupported", str(error)))
    except (OSError, ValueError, KeyError, IndexError, MemoryError, NotImplementedError) as error:
        # pyarrow's own errors derive from these.
        yield Member(None, None, _broken(error, "Parquet file", n_rows))


def _image_column(schema: Any) -> str | None:
    """Name of the column that holds pictures: struct{bytes, path} as Hugging Face writes it, or binary."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def rank(name: str) -> tuple[int, int]:
        lower = name.lower()
        return (_COLUMNS.index(lower) if lower in _COLUMNS else len(_COLUMNS), schema.names.index(name))

    structs, plain = [], []
    for field in schema:
        kind = field.type
        if (
            types.is_struct(kind)
            and kind.get_field_index("bytes") >= 0
            and is_bytes(kind.field("bytes").type)
        ):
            structs.append(field.name)
        elif is_bytes(kind):
            plain.append(field.name)
    return min(structs or plain, key=rank, default=None)


def _parquet_member(name: str, value: Any, max_bytes: int) -> Member:
    """One row. `value` is a pyarrow scalar; its bytes become Python's only within the limit."""
    if hasattr(value, "keys"):  # a struct
        where = value["path"] if "path" in value and value["path"].is_valid else None
        value = value["bytes"] if value.is_valid else value
        if not value.is_valid and where is not None:
            return Member(
                name,
                None,
                ImageError("not_found", f"The row holds only the path '{where}', not the picture's bytes."),
            )
    if not value.is_valid:
        return Member(name, None, ImageError("empty", "The row holds no picture."))
    buffer = value.as_buffer()
    if buffer.size > max_bytes:
        return Member(name, None, too_large(buffer.size, max_bytes))
    return Member(name, buffer.to_pybytes())


def _broken(error: BaseException, what: str, n_read: int) -> ImageError:
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
