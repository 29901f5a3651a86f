"""Reading a labelled set: folders, CSV, Parquet, Hugging Face data sets; docs/data.md shows them."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from mai.data.columns import (
    AUTHENTIC_FOLDERS,
    SYNTHETIC_FOLDERS,
    RowMaker,
    find_columns,
    split_of,
)
from mai.data.labelled import LabelledSet, Row
from mai.errors import DataError, ImageError, UsageError
from mai.images import lists
from mai.images.kinds import HEAD_BYTES, is_picture

__all__ = ["LabelledSet", "Row", "read_set"]

MANIFEST = "manifest.csv"
PAIRS = "pairs.json"
"""In the folder of `mai pairs`, whose pictures are in `data/`."""
HUB = "hub:"


def read_set(path: str | Path, *, one_class: bool = False) -> LabelledSet:
    """Read a labelled set.

    Args:
        path: a folder with `manifest.csv`; a folder with Parquet files; a Hugging Face data set saved to
            disk; a folder whose folders name the labels; a CSV or Parquet file; `hub:org/name`, which is downloaded.
        one_class: also accept a set in which one class is missing.

    Raises:
        UsageError: there is nothing of that name, or it is no kind of set.
        DataError: it cannot be used; the message names file and line.
    """
    if str(path).startswith(HUB):
        from mai.data.tables import read_hub

        name = str(path).removeprefix(HUB)
        return _checked(LabelledSet(read_hub(name), name, "/"), one_class)
    place = Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve would follow links
    if not place.exists():
        raise UsageError(
            f"There is no data at '{path}'. Give a folder, a CSV, a Parquet file or hub:org/name."
        )
    rows, root, name = _read(place)
    return _checked(LabelledSet(rows, name, str(root)), one_class)


def _read(place: Path) -> tuple[tuple[Row, ...], Path, str]:
    from mai.data import tables

    if place.is_file():
        name = place.parent.name if place.name == MANIFEST else place.stem
        if place.suffix.lower() == ".csv":
            return _read_csv(place), place.parent, name
        if place.suffix.lower() == ".parquet":
            return tables.read_parquet([place]), place.parent, name
        raise UsageError(f"'{place.name}' is no labelled set: give a folder, a CSV or a Parquet file.")
    if (place / MANIFEST).is_file():
        return _read_csv(place / MANIFEST), place, place.name
    if tables.is_saved(place):
        return tables.read_saved(place), place, place.name
    if (place / PAIRS).is_file():
        parts = sorted((place / "data").glob("pairs-*.parquet"))
        if not parts:
            raise DataError(f"'{place}' holds no finished pairs yet. Ask: mai pairs status {place.name}")
        return tables.read_parquet(parts), place, place.name
    shards = sorted(p for p in place.rglob("*.parquet") if p.is_file())
    if shards:
        return tables.read_parquet(shards), place, place.name
    return _read_folder(place), place, place.name


def _checked(found: LabelledSet, one_class: bool) -> LabelledSet:
    counts = found.counts()
    if not found.rows:
        raise DataError(f"'{found.name}' holds no labelled picture.")
    classes: dict[str, Row] = {}
    files: set[str] = set()
    for row in found.rows:
        first = classes.setdefault(row.image, row)
        if first.label != row.label or first.split != row.split:
            what = "labels" if first.label != row.label else "splits"
            raise DataError(f"'{row.image}' stands with two {what}: in {first.file} and in {row.file}.")
        if row.file in files:
            raise DataError(
                f"'{found.relative(row.file)}' stands in '{found.name}' twice. Keep one row of it."
            )
        files.add(row.file)
    for wanted in ("synthetic", "authentic"):
        if not counts[wanted] and not one_class:
            raise DataError(
                f"'{found.name}' has no {wanted} picture among {counts['images']:,}; both are needed."
            )
    return found


def _read_csv(path: Path) -> tuple[Row, ...]:
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = lists.records(file)
            names = [name for name in reader.fieldnames or [] if name]
            columns = find_columns(names, (), path.name)
            maker = RowMaker(columns, path.parent)
            for record in reader:
                where = f"{path.name}, line {reader.line_num}"
                if None in record or None in record.values():
                    raise DataError(f"{where} has not the {len(names)} cells of the first line.")
                rows += maker.rows(record, where, f"{path}::{reader.line_num}")
    except (OSError, csv.Error, ImageError) as error:
        raise DataError(f"{path} cannot be read as CSV: {str(error).rstrip('.')}.") from error
    return tuple(rows)


def _read_folder(root: Path) -> tuple[Row, ...]:
    rows: list[Row] = []
    n_unlabelled = 0
    for path in _walk(root, set()):
        row = _row_of_path(path, path.relative_to(root).parts[:-1])
        if row is None:
            n_unlabelled += 1
        else:
            rows.append(row)
    if not rows:
        words = ", ".join(sorted(SYNTHETIC_FOLDERS)), ", ".join(sorted(AUTHENTIC_FOLDERS))
        found = f" ({n_unlabelled:,} pictures lie in other folders)" if n_unlabelled else ""
        raise DataError(
            f"'{root}' holds no picture in a folder that names a label{found}. Name folders {words[0]} "
            f"for synthetic, {words[1]} for authentic, or give a CSV with columns file and label."
        )
    return tuple(rows)


def _row_of_path(path: Path, folders: tuple[str, ...]) -> Row | None:
    lower = [folder.lower() for folder in folders]
    is_synthetic = [folder in SYNTHETIC_FOLDERS for folder in lower]
    at = [i for i, folder in enumerate(lower) if is_synthetic[i] or folder in AUTHENTIC_FOLDERS]
    if not at:
        return None
    if len({is_synthetic[i] for i in at}) > 1:
        raise DataError(f"'{path}' lies under two labels: {' and '.join(folders[i] for i in at)}. Keep one.")
    split = next((split_of(folder) for folder in lower if split_of(folder)), None)
    above = [folder for folder in folders[: at[0]] if not split_of(folder)]
    label = int(is_synthetic[at[0]])
    # `sdxl/1_fake/x.png` says what made it; with more levels (`progan/car/1_fake`) nobody knows which.
    generator = above[0] if label and len(above) == 1 else None
    return Row(file=str(path), label=label, split=split, generator=generator)


def _walk(folder: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Pictures in stable order; hidden files are left out, folders that links lead to are read once."""
    facts = folder.stat()
    if (facts.st_dev, facts.st_ino) in seen:
        return
    seen.add((facts.st_dev, facts.st_ino))
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"The folder '{folder}' cannot be read: {error.strerror}.") from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(Path(entry.path), seen)
        elif entry.is_file() and _is_picture(entry):
            yield Path(entry.path)


def _is_picture(entry: os.DirEntry[str]) -> bool:
    if is_picture(entry.name):
        return True
    try:
        with open(entry.path, "rb") as file:  # noqa: PTH123
            return is_picture(entry.name, file.read(HEAD_BYTES))
    except OSError:
        return True  # let the audit say that it cannot be read
