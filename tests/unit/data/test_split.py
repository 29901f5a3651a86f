"""Splits keep together what belongs together, and near duplicates are found."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mai.data.labelled import LabelledSet, Row
from mai.data.near import near_duplicate_groups
from mai.data.sources import read_set
from mai.data.split import assign_splits, difference_hash
from mai.errors import DataError, UsageError


def make(n_sources: int, n_rows: int, seed: int = 0) -> LabelledSet:
    rng = np.random.default_rng(seed)
    rows = []
    for source in range(n_sources):
        for i in range(int(rng.integers(1, n_rows))):
            file = f"/{source}/{i}"
            rows += [
                Row(file + view, source % 2, source=f"s{source}", image=file, view=view)
                for view in ("crop", "whole")
            ]
    return LabelledSet(tuple(rows), "made")


@settings(max_examples=25, deadline=None)
@given(n_sources=st.integers(8, 60), n_rows=st.integers(2, 30), seed=st.integers(0, 5))
def test_a_source_stands_in_one_split_and_each_split_has_both_classes(
    n_sources: int, n_rows: int, seed: int
) -> None:
    split = assign_splits(make(n_sources, n_rows, seed), seed=seed)
    splits_of: dict[str, set[str | None]] = {}
    for row in split.rows:
        splits_of.setdefault(row.source or "", set()).add(row.split)
    assert all(len(splits) == 1 and None not in splits for splits in splits_of.values())
    assert {(row.split, row.label) for row in split.rows} == {
        (name, label) for name in ("train", "validation", "calibration") for label in (0, 1)
    }


def test_fractions_are_met_for_both_classes() -> None:
    labelled = make(300, 20)
    split = assign_splits(labelled, fractions=(0.7, 0.2, 0.1))
    counts = split.counts_by("split")
    for kind in ("synthetic", "authentic"):
        for name, share in (("train", 0.7), ("validation", 0.2), ("calibration", 0.1)):
            assert counts[name][kind] / split.counts()[kind] == pytest.approx(share, abs=0.01)
    assert split == assign_splits(labelled, fractions=(0.7, 0.2, 0.1))


def test_rows_with_a_split_keep_it_and_draw_their_source_after_them() -> None:
    rows = make(12, 8).rows
    fixed = Row("/0/fixed", 0, split="calibration", source="s0")
    split = assign_splits(LabelledSet((*rows, fixed), "made"))
    assert {row.split for row in split.rows if row.source == "s0"} == {"calibration"}
    assert assign_splits(split) is split


def test_too_few_sources_and_wrong_fractions_are_refused() -> None:
    rows = tuple(Row(f"/{i}", i % 2, source=f"s{i % 2}") for i in range(20))
    with pytest.raises(DataError, match="too few sources of authentic pictures for 3 splits"):
        assign_splits(LabelledSet(rows, "made"))
    with pytest.raises(UsageError, match="sum 1"):
        assign_splits(LabelledSet(rows, "made"), fractions=(0.5, 0.1, 0.1))


def test_without_sources_near_duplicates_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(24):
        folder = tmp_path / ("real" if i % 2 else "fake")
        folder.mkdir(exist_ok=True)
        blocks = Image.fromarray(rng.integers(0, 256, (8, 9, 3), np.uint8))
        for k, (size, quality) in enumerate((((180, 160), 95), ((120, 100), 60), ((90, 80), 80))):
            blocks.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i}_{k}.jpg", quality=quality)
    for n_workers in (1, 2):
        split = assign_splits(read_set(tmp_path), fractions=(0.5, 0.25, 0.25), n_workers=n_workers)
        where: dict[str, set[str | None]] = {}
        for row in split.rows:
            where.setdefault(Path(row.file).stem.split("_")[0], set()).add(row.split)
        assert all(len(splits) == 1 for splits in where.values())
        assert Counter(row.split for row in split.rows)["train"] == 36


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 11), st.sets(st.integers(0, 63), max_size=7)), max_size=20),
)
def test_groups_are_those_of_comparing_all_pairs(
    seeds: list[int], changes: list[tuple[int, set[int]]]
) -> None:
    hashes = list(seeds)
    for i, bits in changes:
        hashes.append(hashes[i % len(hashes)] ^ sum(1 << bit for bit in bits))
    hashes = [value for value in hashes if 6 <= value.bit_count() <= 58]
    parent = list(range(len(hashes)))

    def find(i: int) -> int:
        return i if parent[i] == i else find(parent[i])

    for i, j in combinations(range(len(hashes)), 2):
        if (hashes[i] ^ hashes[j]).bit_count() <= 4:
            parent[find(j)] = find(i)
    groups = near_duplicate_groups(hashes)
    for i, j in combinations(range(len(hashes)), 2):
        assert (groups[i] == groups[j]) == (find(i) == find(j))


def test_big_buckets_are_searched_in_blocks() -> None:
    rng = np.random.default_rng(0)
    low = 0b1011 << 40 | 0b110101 << 20  # all share two pieces, so that one bucket holds them all
    hashes = [low ^ (int(x) << 52) ^ int(y) for x, y in rng.integers(0, 2**10, (5000, 2))]
    groups = near_duplicate_groups(hashes, max_bits=0)
    assert len(set(groups)) == len(set(hashes))
    assert len(set(near_duplicate_groups(hashes))) < len(set(hashes)) / 2


def test_blank_pictures_and_missing_hashes_are_no_duplicates() -> None:
    blank = difference_hash(np.full((50, 60, 3), 200, np.uint8))
    assert len(set(near_duplicate_groups([blank, blank, None, None]))) == 4


def test_the_hash_of_a_left_to_right_ramp_is_all_ones() -> None:
    ramp = np.repeat(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], 40, 0).repeat(3, 2)
    assert difference_hash(np.ascontiguousarray(ramp)) == 2**64 - 1
    assert difference_hash(np.ascontiguousarray(ramp[:, ::-1])) == 0
