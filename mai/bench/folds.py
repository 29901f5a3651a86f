"""Which pictures are left out of a training and what they are then tested against: by generator, source or date.

    generator   the pictures of a generator (or of a group of generators)
    source      all pictures of a source (or of a group of sources), of either class
    date        generators that were released from a month on

A test needs both classes and nothing in it may have been trained on. So with every group that is left out, a part of
the other class's sources is left out too, another part with each group. Whatever split a left-out picture stood in, it
is `test` now; the others keep theirs, but for the other members of tested pairs, which are in no split.
"""

from __future__ import annotations

import csv
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from mai.data.labelled import LabelledSet, Row, pair_of
from mai.errors import DataError, UsageError

By = Literal["generator", "source", "date"]
DATES = Path(__file__).parent / "generator_dates.csv"
PARTS = 5
"""Sources of the other class are cut into so many parts; each fold leaves one out."""


@dataclass(frozen=True, slots=True)
class Fold:
    """One training with something left out.

    Attributes:
        name: what is left out, for people.
        groups: generators or sources that are left out.
        labelled: all rows; those left out have the split `test`, those of no use (undated, or the other
            member of a pair that is tested) are in no split.
    """

    name: str
    groups: tuple[str, ...]
    labelled: LabelledSet


def folds(
    labelled: LabelledSet,
    by: By,
    *,
    only: Sequence[str] = (),
    least: int = 20,
    parts: int = 0,
    dates: Mapping[str, str] | None = None,
    cutoff: str = "",
) -> list[Fold]:
    """All folds of a set that has splits.

    Args:
        labelled: with train, validation and calibration.
        by: what is left out.
        only: these groups alone; empty: all of at least `least` pictures.
        least: pictures that a group needs to be left out.
        parts: join the groups into so many of about equal size; 0: one fold each.
        dates: generator -> month `2024-08`; for `date`.
        cutoff: month from which generators are left out; for `date`.

    Raises:
        UsageError: an unknown group, or no cutoff.
        DataError: nothing can be left out, or a fold would have nothing to train or to test on.
    """
    if by == "date":
        return [_by_date(labelled, dates or {}, cutoff)]
    counts = _counts(labelled, by)
    unknown = [name for name in only if name not in counts]
    if unknown:
        near = ", ".join(sorted(counts, key=lambda name: -counts[name])[:8])
        raise UsageError(f"The set has no {by} '{unknown[0]}'. The largest: {near}.")
    chosen = list(only) or [name for name, n in counts.items() if n >= least]
    if not chosen:
        raise DataError(
            f"'{labelled.name}' names no {by} of {least} pictures or more: nothing can be left out."
        )
    groups = _joined(chosen, counts, parts) if parts else [(name,) for name in chosen]
    made = []
    for number, group in enumerate(groups):
        name = group[0] if len(group) == 1 else f"part {number + 1} of {len(groups)}"
        made.append(_fold(labelled, name, group, by, number))
    return made


def _counts(labelled: LabelledSet, by: By) -> Counter[str]:
    pictures = {row.image: row for row in labelled.rows if row.view != "web"}
    names = [row.generator if by == "generator" else row.source for row in pictures.values()]
    return Counter(name for name in names if name and name != "unknown")


def _joined(names: Sequence[str], counts: Mapping[str, int], parts: int) -> list[tuple[str, ...]]:
    """The largest first, each to the part that is smallest so far."""
    bins: list[list[str]] = [[] for _ in range(min(parts, len(names)))]
    for name in sorted(names, key=lambda name: (-counts[name], name)):
        min(bins, key=lambda group: sum(counts[n] for n in group)).append(name)
    return [tuple(group) for group in bins]


def _fold(labelled: LabelledSet, name: str, group: Sequence[str], by: By, number: int) -> Fold:
    left_out = set(group)

    def is_of_group(row: Row) -> bool:
        return (row.generator if by == "generator" else row.source) in left_out

    labels = {row.label for row in labelled.rows if is_of_group(row)}
    others = {0, 1} - labels  # classes that the group has no picture of
    sources = {row.source for row in labelled.rows if is_of_group(row)} if by == "source" else set()

    def split(row: Row) -> str | None:
        if is_of_group(row) or row.source in sources:
            return "test"
        if row.label in others and _part(row) == number % PARTS:
            return "test"
        return row.split

    return _checked(Fold(name, tuple(group), _resplit(labelled, split)))


def _by_date(labelled: LabelledSet, dates: Mapping[str, str], cutoff: str) -> Fold:
    if not cutoff:
        raise UsageError(
            "A split by date needs the month from which generators are left out: --cutoff 2024-08."
        )
    known = {row.generator for row in labelled.rows if row.label and row.generator in dates}
    late = tuple(sorted(name for name in known if name and dates[name] >= cutoff))
    if not late or len(late) == len(known):
        which = "none" if not late else "every one"
        raise DataError(f"Of {len(known)} generators with a date, {which} was released from {cutoff} on.")

    def split(row: Row) -> str | None:
        if row.label == 0:
            return "test" if _part(row) == 0 else row.split
        if row.generator not in dates:
            return None  # nobody knows on which side it stands
        return "test" if row.generator in late else row.split

    return _checked(Fold(f"from {cutoff} on", late, _resplit(labelled, split)))


def _part(row: Row) -> int:
    return zlib.crc32(row.unit.encode("utf-8", "surrogateescape")) % PARTS


def _resplit(labelled: LabelledSet, split: object) -> LabelledSet:
    assert callable(split)
    rows = tuple(replace(row, split=split(row)) for row in labelled.rows)
    # All views of a picture stand together, as do the rows that a set names one picture.
    tests = {row.image for row in rows if row.split == "test"}
    pairs = {pair for image in tests if (pair := pair_of(image)) is not None}

    def together(row: Row) -> Row:
        if row.image in tests:
            return replace(row, split="test")
        # The other member of a pair shows the same: trained on, it would tell of the test.
        return replace(row, split=None) if pair_of(row.image) in pairs else row

    return replace(labelled, rows=tuple(map(together, rows)))


def _checked(fold: Fold) -> Fold:
    for split in ("train", "calibration", "test"):
        n = fold.labelled.select(split=split).counts()
        for name in ("synthetic", "authentic"):
            if not n[name]:
                raise DataError(
                    f"With '{fold.name}' left out there is no {name} picture in the {split} split."
                )
    return fold


def read_dates(path: Path | None = None) -> dict[str, str]:
    """Generator -> month of its release, `2024-08`: a CSV with the columns generator and released.

    The shipped list gives the month in which a generator was first to be had, or its paper where only that is dated,
    and where that is said: for `arxiv.org` in the first four digits of the number, for a collection of a model hub in
    its address (the first eight hexadecimal digits are its time). `unverified` is from memory. Correct it with a file
    of your own; other columns are let pass.

    Raises:
        UsageError: the file is missing or has other columns.
        DataError: a month is none.
    """
    place = path or DATES
    found: dict[str, str] = {}
    try:
        with place.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not {"generator", "released"} <= set(reader.fieldnames or []):
                raise UsageError(f"{place.name} needs the columns generator and released.")
            for record in reader:
                month = (record["released"] or "").strip()
                year, dash, number = month[:7].partition("-")
                if not (
                    len(year) == 4 and year.isdigit() and dash and number.isdigit() and 1 <= int(number) <= 12
                ):
                    raise DataError(
                        f"{place.name}, line {reader.line_num}: '{month}' is no month; write 2024-08."
                    )
                found[record["generator"].strip()] = month[:7]
    except OSError as error:
        raise UsageError(f"The dates '{place}' cannot be read: {error.strerror}.") from error
    return found
