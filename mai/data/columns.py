"""The columns of a labelled table, whatever file it is in: words become labels, cells become rows."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mai.data.labelled import Row, Stored
from mai.errors import DataError

SYNTHETIC_FOLDERS = frozenset({"synthetic", "fake", "ai", "1_fake"})
AUTHENTIC_FOLDERS = frozenset({"authentic", "real", "nature", "0_real"})
_SYNTHETIC = SYNTHETIC_FOLDERS | {"1", "generated", "ai-generated", "ai_generated"}
_AUTHENTIC = AUTHENTIC_FOLDERS | {"0", "natural", "human"}

SPLITS = ("train", "validation", "calibration", "test")
_SPLIT_WORDS = {
    **{name: name for name in SPLITS},
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
    **dict.fromkeys(("calib", "cal"), "calibration"),
    **dict.fromkeys(("testing",), "test"),
}

FILE_COLUMNS = ("file", "path", "file_name", "filename", "filepath", "image_path")
LABEL_COLUMNS = ("label", "labels", "class")
PAIR_COLUMNS = ("authentic", "synthetic")


@dataclass(frozen=True, slots=True)
class Cell:
    """A picture inside a table: its bytes, or how to read them."""

    stored: bytes | Stored


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what.

    Attributes:
        pictures: the column of files or pictures; `authentic` and `synthetic` for a table of pairs.
        label: None for a table of pairs.
        names: all columns.
    """

    pictures: tuple[str, ...]
    label: str | None
    names: frozenset[str]


def label_of(word: Any, names: Mapping[int, str] | None = None) -> int | None:
    """1 for a word that means synthetic, 0 for authentic, None for neither.

    Args:
        word: a cell; numbers are looked up in `names` first.
        names: what the set calls its numbers (the class names of a Hugging Face set).
    """
    if isinstance(word, float) and word.is_integer():
        word = int(word)
    if names and isinstance(word, int) and not isinstance(word, bool):
        word = names.get(word, word)
    text = str(word).strip().lower()
    return 1 if text in _SYNTHETIC else 0 if text in _AUTHENTIC else None


def split_of(word: str) -> str | None:
    """The split that a word names, None if it names none."""
    return _SPLIT_WORDS.get(word.strip().lower())


def find_columns(names: Iterable[str], pictures: Collection[str], where: str) -> Columns:
    """Tell which column holds what.

    Args:
        names: all columns.
        pictures: columns that hold encoded pictures.
        where: the file, for the message.

    Raises:
        DataError: a column is missing; the message names the nearest.
    """
    names = list(names)
    if set(PAIR_COLUMNS) <= set(names) and not set(LABEL_COLUMNS) & set(names):
        return Columns(PAIR_COLUMNS, None, frozenset(names))
    picture = next((name for name in ("image", *sorted(pictures)) if name in pictures), None)
    picture = picture or next((name for name in FILE_COLUMNS if name in names), None)
    label = next((name for name in LABEL_COLUMNS if name in names), None)
    for found, wanted in ((picture, FILE_COLUMNS), (label, LABEL_COLUMNS)):
        if found is None:
            near = [m for word in wanted[:1] for m in difflib.get_close_matches(word, names, n=1, cutoff=0.5)]
            hint = f" The nearest is '{near[0]}': rename it." if near else ""
            raise DataError(
                f"{where} has no column '{wanted[0]}'.{hint} It has: {', '.join(names) or 'none'}."
            )
    assert picture is not None and label is not None
    return Columns((picture,), label, frozenset(names))


@dataclass(frozen=True, slots=True)
class RowMaker:
    """Makes rows of the records of one table.

    Attributes:
        columns: which holds what.
        folder: what files are relative to.
        class_names: what the table calls its numbers, None if it does not.
        split: of records that name none.
    """

    columns: Columns
    folder: Path
    class_names: Mapping[int, str] | None = None
    split: str | None = None

    def rows(self, record: Mapping[str, Any], where: str, name: str) -> list[Row]:
        """One row of a record, two of a pair.

        Args:
            record: column -> value; pictures as Cell or path.
            where: file and line, for messages.
            name: the record's id where the picture is in no file of its own, `a.parquet::17`.

        Raises:
            DataError: an unknown label or split, no picture, or no such file.
        """
        if self.columns.label is None:
            if (_text(record, "status") or "ok") != "ok" or _text(record, "kind") == "AI-edited":
                return []  # no pair came of it; or neither class, as part of the picture is authentic
            pair = _text(record, "id") or _text(record, "image") or name
            source = _text(record, "source") or pair
            return [
                self._row(
                    record,
                    column,
                    label,
                    source=source,
                    image=f"{pair}/{column}",
                    where=where,
                    name=f"{name}/{column}",
                )
                for label, column in enumerate(PAIR_COLUMNS)
                if record.get(column) is not None
            ]
        cell = record.get(self.columns.label)
        label = label_of(cell, self.class_names)
        if label is None:
            said = f"'{cell}'" if cell not in (None, "") else "empty"
            raise DataError(
                f"{where}: the label is {said}; use synthetic or authentic (or 1 or 0, fake or real)."
            )
        column = self.columns.pictures[0]
        image = _text(record, "image") if column != "image" else _text(record, "id")
        told = _text(record, "source")
        return [self._row(record, column, label, source=told, image=image or "", where=where, name=name)]

    def _row(
        self,
        record: Mapping[str, Any],
        column: str,
        label: int,
        *,
        source: str | None,
        image: str,
        where: str,
        name: str,
    ) -> Row:
        picture = record.get(column)
        split = _text(record, "split")
        if split is not None and split_of(split) is None:
            raise DataError(f"{where}: the split is '{split}'; use {', '.join(SPLITS)}, or leave it empty.")
        if picture is None or picture == "":
            raise DataError(f"{where}: the column '{column}' is empty; it should hold a picture.")
        file = name if isinstance(picture, Cell) else str(self.folder / str(picture))
        if not isinstance(picture, Cell) and not Path(file).is_file():
            hint = " Write paths with / in place of \\." if "\\" in str(picture) and os.sep == "/" else ""
            raise DataError(
                f"{where}: there is no file '{picture}' in {self.folder}. Files are relative to it.{hint}"
            )
        return Row(
            file=file,
            label=label,
            split=split_of(split) if split is not None else self.split,
            source=source,
            generator=(_generator(record) if label else None),
            content=_text(record, "content"),
            image=image,
            view=_text(record, "view"),
            stored=picture.stored if isinstance(picture, Cell) else None,
        )


def _generator(record: Mapping[str, Any]) -> str | None:
    """The generator's name, which a table of pairs keeps in a struct."""
    told = record.get("generator")
    return _text(told, "name") if isinstance(told, dict) else _text(record, "generator")


def _text(record: Mapping[str, Any], column: str) -> str | None:
    value = record.get(column)
    if value is None or isinstance(value, Cell):
        return None
    return str(value).strip() or None
