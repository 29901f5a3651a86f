"""Balanced, and a pure function of (seed, epoch)."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mai.data.labelled import Row
from mai.data.store import Store, View
from mai.errors import DataError
from mai.training.sampler import BalancedSampler


def store_of(*groups: tuple[str, int, int]) -> Store:
    """Pictures with a whole and a crop view each, from (source, label, n)."""
    rows = tuple(
        Row(f"{source}/{i}.jpg", label, "train", source) for source, label, n in groups for i in range(n)
    )
    views = tuple(View(i, kind, 0, 1, 1) for i in range(len(rows)) for kind in ("whole", "crop"))
    return Store(rows, views, np.zeros(3, np.uint8), {})


UNEVEN = store_of(("large", 1, 400), ("small", 1, 4), ("photos", 0, 90))


def sampler(store: Store = UNEVEN, seed: int = 0, power: float = 0.5, whole: float = 0.5) -> BalancedSampler:
    return BalancedSampler(store, range(len(store.rows)), seed, power, whole)


@pytest.mark.parametrize("size", [2, 7, 48])
def test_half_of_every_batch_is_synthetic(size: int) -> None:
    for batch in sampler().epoch(0, 9, size):
        assert len(batch) == size
        assert sum(draw.label for draw in batch) == size // 2


def test_labels_are_those_of_the_rows_and_stand_anywhere_in_a_batch() -> None:
    places = Counter()
    for batch in sampler().epoch(3, 400, 8):
        for place, draw in enumerate(batch):
            assert UNEVEN.rows[UNEVEN.views[draw.view].row].label == draw.label
            places[place] += draw.label
    assert all(150 < places[place] < 250 for place in range(8))  # binomial, 400 draws at one half: sd 10


@pytest.mark.parametrize(("power", "ratio"), [(0.0, 100.0), (0.5, 10.0), (1.0, 1.0)])
def test_power_holds_large_sources_back(power: float, ratio: float) -> None:
    counts = Counter(
        UNEVEN.rows[UNEVEN.views[draw.view].row].source
        for batch in sampler(power=power).epoch(0, 400, 64)
        for draw in batch
        if draw.label
    )
    assert counts["large"] / counts["small"] == pytest.approx(ratio, rel=0.25)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_whole_views(share: float) -> None:
    draws = [draw for batch in sampler(whole=share).epoch(0, 100, 40) for draw in batch]
    kinds = Counter(UNEVEN.views[draw.view].kind for draw in draws)
    assert kinds["whole"] / len(draws) == pytest.approx(share, abs=0.03)


def test_one_view_alone_is_taken_for_either_kind() -> None:
    store = store_of(("a", 1, 3), ("b", 0, 3))
    only = Store(store.rows, tuple(view for view in store.views if view.kind == "crop"), store.pixels, {})
    draws = [draw for batch in sampler(only, whole=1.0).epoch(0, 5, 4) for draw in batch]
    assert {only.views[draw.view].kind for draw in draws} == {"crop"}


def test_the_same_for_the_same_seed_and_epoch_only() -> None:
    first = sampler(seed=5).epoch(2, 20, 16)
    fresh = sampler(seed=5)
    fresh.epoch(0, 20, 16)  # what was drawn before does not matter
    assert fresh.epoch(2, 20, 16) == first
    assert sampler(seed=5).epoch(3, 20, 16) != first
    assert sampler(seed=6).epoch(2, 20, 16) != first
    seeds = [draw.seed for batch in first for draw in batch]
    assert len(set(seeds)) == len(seeds)


def test_order_of_the_rows_does_not_matter() -> None:
    turned = store_of(("photos", 0, 90), ("small", 1, 4), ("large", 1, 400))

    def names(store: Store) -> list[str]:
        drawn = sampler(store).epoch(1, 10, 12)
        return [store.rows[store.views[draw.view].row].file for batch in drawn for draw in batch]

    assert names(UNEVEN) == names(turned)


@pytest.mark.parametrize(("label", "word"), [(0, "synthetic"), (1, "authentic")])
def test_a_class_that_is_missing_is_named(label: int, word: str) -> None:
    with pytest.raises(DataError, match=f"no {word} picture"):
        sampler(store_of(("a", label, 3)))
