"""Splits into train, validation and calibration: by source, else by near-duplicate group; never by bare image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mai.data.labelled import LabelledSet, Row
from mai.data.near import Groups, difference_hash, near_duplicate_groups
from mai.data.processes import pool as pool_of
from mai.errors import DataError, ImageError, UsageError

__all__ = ["assign_splits", "difference_hash", "near_duplicate_groups"]

NAMES = ("train", "validation", "calibration")


def assign_splits(
    labelled: LabelledSet,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    n_workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> LabelledSet:
    """Give each row without a split one.

    What must stay together goes into one split: all rows of a source where the set names sources, otherwise
    pictures that are near duplicates of one another; and always all views of a picture. Rows that have a split
    keep it, and draw what must stay with them after them. Both classes come as near to the fractions as the
    sizes of the groups allow.

    Args:
        labelled: the set; returned as it is when each row has a split.
        fractions: shares of train, validation and calibration; their sum is 1. A share of 0 leaves a split out.
        seed: of the order in which groups of equal size are given out.
        n_workers: processes that decode pictures for their hashes, where there is no source.
        progress: called with pictures hashed and pictures in all.

    Raises:
        UsageError: the fractions are no shares of a whole.
        DataError: there are fewer groups of a class than splits.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError(f"The shares of the splits are to be 0 or more with sum 1, not {fractions}.")
    rows = labelled.rows
    if all(row.split for row in rows):
        return labelled
    numbers = _groups(rows, n_workers, progress)
    fixed: dict[int, Counter[str]] = {}
    for number, row in zip(numbers, rows, strict=True):
        if row.split:
            fixed.setdefault(number, Counter())[row.split] += 1
    chosen = {number: splits.most_common(1)[0][0] for number, splits in fixed.items()}
    chosen |= _give_out(labelled, numbers, chosen, fractions, seed)
    return replace(
        labelled,
        rows=tuple(
            row if row.split else replace(row, split=chosen[number])
            for number, row in zip(numbers, rows, strict=True)
        ),
    )


def _groups(rows: Sequence[Row], n_workers: int, progress: Callable[[int, int], None] | None) -> list[int]:
    groups = Groups(len(rows))
    groups.join_equal(row.image for row in rows)
    groups.join_equal(row.source for row in rows)
    # One view of a picture is hashed, the whole of it if there is one: crops of plain areas look alike.
    best: dict[str, int] = {}
    for i, row in enumerate(rows):
        if row.source is None and (row.image not in best or row.view in {None, "whole"}):
            best[row.image] = i
    alone = sorted(best.values())
    if alone:
        hashes = hash_rows([rows[i] for i in alone], n_workers, progress)
        near = near_duplicate_groups(hashes)
        groups_of_alone: dict[int, int] = {}
        for i, number in zip(alone, near, strict=True):
            groups.join(groups_of_alone.setdefault(number, i), i)
    return groups.numbers()


def hash_rows(
    rows: Sequence[Row], n_workers: int = 1, progress: Callable[[int, int], None] | None = None
) -> list[int | None]:
    """Difference hashes of pictures; None for one that cannot be decoded."""
    hashes: list[int | None] = []
    with pool_of(n_workers) if n_workers > 1 else _InPlace() as pool:
        for value in pool.map(_hash_row, rows, chunksize=16):
            hashes.append(value)
            if progress:
                progress(len(hashes), len(rows))
    return hashes


class _InPlace:
    """A pool of no processes."""

    def __enter__(self) -> _InPlace:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    map = staticmethod(lambda function, rows, chunksize: map(function, rows))


def _hash_row(row: Row) -> int | None:
    from pathlib import Path

    from mai.images.decode import decode, read
    from mai.images.find import Found

    data = row.data
    try:
        pixels = decode(
            read(Found(row.file, None if data is not None else Path(row.file), data, True))
        ).pixels
    except ImageError:
        return None
    return difference_hash(pixels) if pixels is not None else None


def _give_out(
    labelled: LabelledSet,
    numbers: Sequence[int],
    chosen: dict[int, str],
    fractions: tuple[float, float, float],
    seed: int,
) -> dict[int, str]:
    """Groups to splits, the largest first, each to where most is missing of its classes.

    Raises:
        DataError: a class has fewer groups than there are splits.
    """
    pictures = {row.image: (number, row.label) for number, row in zip(numbers, labelled.rows, strict=True)}
    sizes = np.zeros((max(numbers) + 1, 2))
    for number, label in pictures.values():
        sizes[number, label] += 1
    total = np.maximum(sizes.sum(0), 1)
    wanted = np.outer(fractions, total)
    for number, split in chosen.items():
        if split in NAMES:
            wanted[NAMES.index(split)] -= sizes[number]
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = order[np.argsort(-sizes[order].sum(1), kind="stable")]
    given: dict[int, int] = {}
    open_splits = [i for i, share in enumerate(fractions) if share > 0]
    for number in map(int, order):
        if number not in chosen:
            # The squared distance to the wanted counts falls most where this product is largest.
            gain = [float((wanted[i] * sizes[number] / total**2).sum()) for i in open_splits]
            given[number] = open_splits[int(np.argmax(gain))]
            wanted[given[number]] -= sizes[number]
    taken = {number: NAMES.index(split) for number, split in chosen.items() if split in NAMES}
    _fill_empty(labelled, given, taken, sizes, open_splits)
    return {number: NAMES[split] for number, split in given.items()}


def _fill_empty(
    labelled: LabelledSet,
    given: dict[int, int],
    taken: dict[int, int],
    sizes: NDArray[np.float64],
    open_splits: Sequence[int],
) -> None:
    """Move the smallest group that can be spared into each split that lacks a class."""
    for label in (0, 1):
        if not sizes[:, label].any():
            continue
        has = partial(_members, given, sizes, label)
        for split in open_splits:
            if has(split) or any(sizes[n, label] for n, where in taken.items() if where == split):
                continue
            spare = [n for other in open_splits if len(has(other)) > 1 for n in has(other)]
            if not spare:
                kind = "authentic" if label == 0 else "synthetic"
                has_sources = any(row.source for row in labelled.rows)
                what = "sources" if has_sources else "groups of near duplicates"
                raise DataError(
                    f"'{labelled.name}' has too few {what} of {kind} pictures for {len(open_splits)} splits. "
                    f"Add {what}, name finer ones, or give a column 'split'."
                )
            # Rather one of this class alone: a mixed group could leave its old split without the other class.
            mover = min(spare, key=lambda n: (sizes[n, 1 - label] > 0, sizes[n].sum(), n))
            given[mover] = split


def _members(given: dict[int, int], sizes: NDArray[np.float64], label: int, split: int) -> list[int]:
    return [number for number, where in given.items() if where == split and sizes[number, label]]
