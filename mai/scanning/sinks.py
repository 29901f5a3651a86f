"""The journal's rows -> the file that was asked for; it appears whole or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from mai.errors import MaiError
from mai.types import Record

KEPT = ("jsonl", "json", "csv", "parquet", "sqlite", "duckdb")
"""Formats of --output whose rows are kept as they come, so that a scan that was stopped can go on."""


class Sink(Protocol):
    """A format that is a file of its own kind, not text."""

    def write(self, record: Record) -> None: ...  # noqa: D102

    def finish(self) -> None: ...  # noqa: D102

    def drop(self) -> None: ...  # noqa: D102


def convert(records: Iterable[Record], form: str, output: Path, partition_by: str | None = None) -> None:
    """All rows of a scan in another format.

    Args:
        records: in order.
        form: of KEPT, but `jsonl`, which the journal is already.
        output: the file; with `partition_by` the folder.
        partition_by: see mai.report.parquet.PARTITIONS; None: one file.

    Raises:
        MaiError: it cannot be written (disk full, no permission).
        MissingExtraError: a package of the format is not installed.
    """
    if form in ("json", "csv"):
        _text(records, form, output)
        return
    sink = _sink(form, output, partition_by)
    try:
        for record in records:
            sink.write(record)
        sink.finish()
    except BaseException as error:
        sink.drop()
        if isinstance(error, (sqlite3.Error, OSError)) or type(error).__module__ in ("_duckdb", "duckdb"):
            first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            raise MaiError(f"The results cannot be written to {output}: {first}.") from error
        raise


def _sink(form: str, output: Path, partition_by: str | None) -> Sink:
    if partition_by:
        from mai.report.parquet import ParquetFolder

        return ParquetFolder(output, partition_by)
    target = output.resolve()  # through a link, which stays one
    if form == "parquet":
        from mai.report.parquet import Parquet

        return Parquet(target)
    if form == "duckdb":
        from mai.report.duckdb import DuckDb

        return DuckDb(target)
    from mai.report.sqlite import Sqlite

    return Sqlite(target)


def _text(records: Iterable[Record], form: str, output: Path) -> None:
    from mai.report.destination import whole_file
    from mai.report.jsonlines import JsonArray
    from mai.report.table_csv import Csv

    with whole_file(output) as stream:
        writer = JsonArray(stream) if form == "json" else Csv(stream)
        for record in records:
            writer.write(record)
        writer.finish()
