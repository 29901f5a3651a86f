"""Pictures in Parquet files: columns of bytes as Hugging Face writes them, or of paths and addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mai.errors import ImageError, MissingExtraError, require
from mai.images import pages
from mai.images.files import too_large
from mai.images.lists import path_column
from mai.images.shards import Member, Shard, broken

_COLUMNS = ("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp", "bytes", "content", "data")
"""Names of an image column in Parquet, best first; the first three are what Hugging Face sets use."""

_ROWS_AT_ONCE = 8


def members(shard: Shard, max_bytes: int, places: bool) -> Iterator[Member]:
    """The pictures of a Parquet file row by row, or the places that it names; see mai/images/shards.py."""
    n_rows = 0
    try:
        parquet = require("pyarrow.parquet", "data", "Reading Parquet shards")
        # Buffered reading takes a column in pieces in place of a row group at once.
        with (
            nullcontext(shard.path) if shard.path else shard.open() as source,
            parquet.ParquetFile(source, buffer_size=2**20, pre_buffer=False) as file,
        ):
            column = _image_column(file.schema_arrow) or (_path_column(file.schema_arrow) if places else None)
            if column is None:
                names = ", ".join(file.schema_arrow.names[:12]) or "none"
                yield Member(
                    None,
                    None,
                    ImageError(
                        "not_an_image",
                        f"The Parquet file has no column of pictures{' or paths' if places else ''}. Columns: {names}.",
                    ),
                )
                return
            for group in range(file.num_row_groups):
                for member in _in_group(file, source, group, column, max_bytes, places, n_rows):
                    yield member
                    n_rows += 1
    except MissingExtraError as error:
        yield Member(None, None, ImageError("unsupported", error.plain))
    except ImageError as error:
        yield Member(None, None, error)
    except (OSError, EOFError, ValueError, KeyError, IndexError, MemoryError, NotImplementedError) as error:
        # pyarrow's own errors derive from these.
        yield Member(None, None, broken(error, "Parquet file", n_rows))


def _in_group(
    file: Any, source: Any, group: int, column: str, max_bytes: int, places: bool, first: int
) -> Iterator[Member]:
    """The rows of one row group; `first` is the number of its first row."""
    n_rows = file.metadata.row_group(group).num_rows
    large = _large(file, source, group, column)
    if large is not None:
        rest, number = _paths(file, group, column), -1
        for number, data in enumerate(large.values(max_bytes)):
            if number >= n_rows:
                break
            name = str(first + number)
            if isinstance(data, pages.TooLong):
                yield Member(name, None, too_large(data.n_bytes, max_bytes))
            elif data is not None:
                yield Member(name, data)
            else:
                yield _member(name, rest[number] if rest is not None else None, max_bytes, places)
        if number + 1 < n_rows:
            raise ValueError(f"a row group has {number + 1:,} rows in place of {n_rows:,}")
        return
    number = first
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[column], use_threads=False):
        for value in batch.column(0):
            yield _member(str(number), value, max_bytes, places)
            number += 1
    if number - first < n_rows:  # pyarrow passes over a page whose header claims another kind
        raise ValueError(f"a row group has {number - first:,} rows in place of {n_rows:,}")


def _large(file: Any, source: Any, group: int, column: str) -> pages.Column | None:
    """The column of pictures, if this row group has a page of it that pyarrow would need much memory for."""
    import pyarrow

    chunks = file.metadata.row_group(group)
    for number in range(chunks.num_columns):
        chunk, leaf = chunks.column(number), file.schema.column(number)
        if chunk.path_in_schema not in (column, f"{column}.bytes") or leaf.physical_type != "BYTE_ARRAY":
            continue
        if leaf.max_repetition_level or chunk.total_uncompressed_size <= pages.LARGE:
            return None
        if isinstance(source, Path):
            # Mapped where a page is unpacked as a whole, so that what is packed needs no memory of ours.
            is_whole = chunk.compression in pages.WHOLE
            native = pyarrow.memory_map(str(source)) if is_whole else pyarrow.OSFile(str(source))
        else:
            native = pyarrow.PythonFile(source, mode="r")
        try:
            found = pages.Column(native, chunk, leaf.max_definition_level)
        except (ValueError, EOFError):
            return None  # a header that is not understood, with statistics of whole pictures say: pyarrow's to judge
        return found if found.is_large else None
    return None


def _paths(file: Any, group: int, column: str) -> Any:
    """The column without its bytes: of a struct{bytes, path} the paths, else nothing."""
    kind = file.schema_arrow.field(column).type
    if _is_bytes(kind) or kind.get_field_index("path") < 0:
        return None
    return file.read_row_group(group, columns=[f"{column}.path"], use_threads=False).column(0)


def _image_column(schema: Any) -> str | None:
    """Name of the column that holds pictures: struct{bytes, path} as Hugging Face writes it, or binary."""
    from pyarrow import types

    def rank(name: str) -> tuple[int, int]:
        lower = name.lower()
        return (_COLUMNS.index(lower) if lower in _COLUMNS else len(_COLUMNS), schema.names.index(name))

    structs, plain = [], []
    for field in schema:
        kind = field.type
        if (
            types.is_struct(kind)
            and kind.get_field_index("bytes") >= 0
            and _is_bytes(kind.field("bytes").type)
        ):
            structs.append(field.name)
        elif _is_bytes(kind):
            plain.append(field.name)
    return min(structs or plain, key=rank, default=None)


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _path_column(schema: Any) -> str | None:
    """Name of the column that holds paths or addresses: text, or struct{path}; None if no name says so."""
    from pyarrow import types

    def has_text(kind: Any) -> bool:
        if types.is_struct(kind) and kind.get_field_index("path") >= 0:
            kind = kind.field("path").type
        return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_dictionary(kind))

    names = [field.name for field in schema if has_text(field.type)]
    column = path_column(names)
    return None if column is None else names[column]


def _member(name: str, value: Any, max_bytes: int, places: bool) -> Member:
    """One row. `value` is a pyarrow scalar; its bytes become Python's only within the limit."""
    if hasattr(value, "keys"):  # a struct
        where = value["path"] if "path" in value and value["path"].is_valid else None
        value = value["bytes"] if value.is_valid and "bytes" in value else None
        if (value is None or not value.is_valid) and where is not None:
            if places:
                return Member(name, None, place=where.as_py())
            told = ImageError("not_found", f"The row holds only the path '{where}', not the picture's bytes.")
            return Member(name, None, told)
    if value is None or not value.is_valid:
        return Member(name, None, ImageError("empty", "The row holds no picture."))
    if not _is_bytes(value.type):
        return Member(name, None, place=value.as_py())
    buffer = value.as_buffer()
    if buffer.size > max_bytes:
        return Member(name, None, too_large(buffer.size, max_bytes))
    return Member(name, buffer.to_pybytes())
