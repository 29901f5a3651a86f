"""Labelled tables with the pictures inside: Parquet, and Hugging Face data sets on disk or on the hub.

The tables are read once, for labels and sizes. The pictures stay where they are: a row remembers its cell,
and reads it when its `data` is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mai.data.columns import Cell, RowMaker, find_columns, split_of
from mai.data.labelled import Row
from mai.errors import DataError, UsageError, require

_BATCH = 256


@dataclass(frozen=True, slots=True)
class ParquetCell:
    """One picture in a Parquet file.

    Attributes:
        file: the Parquet file.
        group: row group.
        row: row in the group.
        column: name.
        n_bytes: size of the encoded picture.
    """

    file: str
    group: int
    row: int
    column: str
    n_bytes: int

    def read(self) -> bytes:
        """The encoded bytes. The row group stays in memory, so reading in order is quick.

        Raises:
            DataError: the file was changed or is gone.
        """
        try:
            return _bytes_of(_parquet_column(self.file, self.group, self.column)[self.row].as_py())
        except (OSError, IndexError, ValueError) as error:
            raise DataError(
                f"{self.file}, group {self.group}, row {self.row} cannot be read: {error}."
            ) from error


@dataclass(frozen=True, slots=True)
class DatasetCell:
    """One picture in a Hugging Face data set.

    Attributes:
        origin: folder of the saved set, or `hub:org/name`.
        split: the set's own name of the split, None for a set without.
        row: row in the split.
        column: name.
        n_bytes: size of the encoded picture.
    """

    origin: str
    split: str | None
    row: int
    column: str
    n_bytes: int

    def read(self) -> bytes:
        """The encoded bytes."""
        return _bytes_of(_parts(self.origin)[self.split].with_format(None)[self.row][self.column])


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, dict):
        value = value["bytes"]
    if not isinstance(value, (bytes, bytearray)):
        raise ValueError("the cell holds no bytes")
    return bytes(value)


@lru_cache(maxsize=2)
def _parquet_column(file: str, group: int, column: str) -> Any:
    parquet = require("pyarrow.parquet", "data", "Reading Parquet")
    with parquet.ParquetFile(file) as opened:
        return opened.read_row_group(group, columns=[column]).column(column)


def read_parquet(files: Sequence[Path]) -> tuple[Row, ...]:
    """Rows of Parquet files: a column of files or of pictures (binary, or the struct of Hugging Face).

    A file called as the hub calls it (`train-00000-of-00002.parquet`) is of that split where no column
    says one.

    Raises:
        DataError: a file is damaged, or its columns or values cannot be used.
    """
    pa = require("pyarrow", "data", "Reading Parquet")
    rows: list[Row] = []
    for file in files:
        try:
            rows += _parquet_rows(file)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{file} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return tuple(rows)


def _parquet_rows(file: Path) -> Iterator[Row]:
    parquet = require("pyarrow.parquet", "data", "Reading Parquet")
    with parquet.ParquetFile(file) as opened:
        schema = opened.schema_arrow
        pictures = {field.name for field in schema if _holds_pictures(field.type)}
        columns = find_columns(schema.names, pictures, file.name)
        maker = RowMaker(
            columns, file.parent, _class_names(schema, columns.label), split_of(file.name.split("-")[0])
        )
        number = 0
        for group in range(opened.num_row_groups):
            row = 0
            for batch in opened.iter_batches(_BATCH, row_groups=[group]):
                for record in _records(batch, pictures):
                    values = {
                        name: Cell(ParquetCell(str(file), group, row, name, value))
                        if name in pictures and isinstance(value, int)
                        else value
                        for name, value in record.items()
                    }
                    yield from maker.rows(values, f"{file.name}, row {number}", f"{file}::{number}")
                    number, row = number + 1, row + 1


def _holds_pictures(kind: Any) -> bool:
    types = require("pyarrow.types", "data", "Reading Parquet")
    if types.is_struct(kind):
        return any(kind.field(i).name == "bytes" for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _records(batch: Any, pictures: set[str]) -> Iterator[dict[str, Any]]:
    """The records of a batch; a picture is its size in bytes (int), or the path that stands in its place."""
    compute = require("pyarrow.compute", "data", "Reading Parquet")
    columns: dict[str, list[Any]] = {}
    for name in batch.schema.names:
        column = batch.column(name)
        if name not in pictures:
            columns[name] = column.to_pylist()
            continue
        paths: list[Any] = [None] * len(column)
        if hasattr(column.type, "num_fields") and column.type.num_fields:
            fields = {column.type.field(i).name for i in range(column.type.num_fields)}
            if "path" in fields:
                paths = compute.struct_field(column, "path").to_pylist()
            column = compute.struct_field(column, "bytes")
        sizes = compute.binary_length(column).to_pylist()
        columns[name] = [path if size is None else size for size, path in zip(sizes, paths, strict=True)]
    for i in range(batch.num_rows):
        yield {name: values[i] for name, values in columns.items()}


def _class_names(schema: Any, label: str | None) -> dict[int, str] | None:
    """What the numbers of a label column mean, from the metadata that Hugging Face writes into Parquet."""
    try:
        written = json.loads((schema.metadata or {})[b"huggingface"])
        names = written["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return None
    return _known_names(names)


def _known_names(names: Any) -> dict[int, str] | None:
    if isinstance(names, dict):
        return {int(number): str(name) for number, name in names.items()}
    return dict(enumerate(map(str, names))) if isinstance(names, list) else None


def is_saved(folder: Path) -> bool:
    """True for a folder that `datasets.save_to_disk` made."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def read_saved(folder: Path) -> tuple[Row, ...]:
    """Rows of a Hugging Face data set saved to disk.

    Raises:
        DataError: its columns or values cannot be used.
    """
    return tuple(_dataset_rows(str(folder), folder))


def read_hub(name: str) -> tuple[Row, ...]:
    """Rows of a data set of the Hugging Face hub. It is downloaded, into the cache of `datasets`."""
    return tuple(_dataset_rows(f"hub:{name}", Path.cwd()))


@lru_cache(maxsize=4)
def _parts(origin: str) -> dict[str | None, Any]:
    """Split -> data set, the pictures left encoded."""
    datasets = require("datasets", "train", "Reading a Hugging Face data set")
    try:
        if origin.startswith("hub:"):
            loaded = datasets.load_dataset(origin.removeprefix("hub:"))
        else:
            loaded = datasets.load_from_disk(origin)
    except Exception as error:  # the hub client raises errors of many libraries
        raise UsageError(
            f"'{origin}' cannot be loaded as a data set: {str(error).splitlines()[0]}"
        ) from error
    parts = dict(loaded) if isinstance(loaded, dict) else {None: loaded}
    for split, part in parts.items():
        for column, feature in part.features.items():
            if isinstance(feature, datasets.Image):
                part = part.cast_column(column, datasets.Image(decode=False))
        parts[split] = part
    return parts


def _dataset_rows(origin: str, folder: Path) -> Iterator[Row]:
    for split, part in _parts(origin).items():
        where = f"{origin}, split {split}" if split else origin
        schema = part.features.arrow_schema
        pictures = {field.name for field in schema if _holds_pictures(field.type)}
        columns = find_columns(part.column_names, pictures, where)
        names = _known_names(getattr(part.features.get(columns.label), "names", None))
        maker = RowMaker(columns, folder, names, split_of(split) if split else None)
        row = 0
        for table in part.with_format("arrow").iter(_BATCH):
            for batch in table.to_batches():
                for record in _records(batch, pictures):
                    values = {
                        name: Cell(DatasetCell(origin, split, row, name, value))
                        if name in pictures and isinstance(value, int)
                        else value
                        for name, value in record.items()
                    }
                    yield from maker.rows(values, f"{where}, row {row}", f"{origin}::{split or 'all'}/{row}")
                    row += 1
