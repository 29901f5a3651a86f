"""Units of two: pairs, and synthetic pictures without a partner, drawn as often as their share of the class."""

from __future__ import annotations

import numpy as np
import pytest

from mai.data.labelled import Row
from mai.moondream.samples import Unit, UnitSampler

N_PAIRS = 20


def rows_of(n_synthetic: int, n_authentic: int) -> list[Row]:
    """Twenty pairs of one source a side, and unpaired pictures of others."""
    rows = [
        Row(f"/p{i}/{half}", label, "train", half, image=f"p{i}/{half}")
        for i in range(N_PAIRS)
        for label, half in enumerate(("authentic", "synthetic"))
    ]
    rows += [Row(f"/s{i}", 1, "train", "web") for i in range(n_synthetic)]
    return rows + [Row(f"/a{i}", 0, "train", "camera") for i in range(n_authentic)]


def units_of(rows: list[Row]) -> list[Unit]:
    sampler = UnitSampler(rows, range(len(rows)), 0, 0.0, [84])
    assert sampler.epoch(3, 5, 4) == UnitSampler(rows, range(len(rows)), 0, 0.0, [84]).epoch(3, 5, 4)
    return [unit for batch in sampler.epoch(0, 250, 8) for unit in batch]


@pytest.mark.parametrize(("n_synthetic", "n_authentic"), [(20, 0), (60, 0), (20, 5), (20, 60), (0, 20)])
def test_every_picture_is_drawn(n_synthetic: int, n_authentic: int) -> None:
    rows = rows_of(n_synthetic, n_authentic)
    units = units_of(rows)
    assert {i for unit in units for i in unit.rows} == set(range(len(rows)))
    for unit in units:
        one, other = (rows[i] for i in unit.rows)
        assert (one.label, other.label) == (0, 1)
        is_pair = one.image.removesuffix("/authentic") == other.image.removesuffix("/synthetic")
        assert (unit.seeds[0] == unit.seeds[1]) == is_pair


@pytest.mark.parametrize(("n_synthetic", "n_authentic"), [(20, 0), (60, 0), (20, 5)])
def test_unpaired_synthetic_pictures_have_their_share_of_the_draws(
    n_synthetic: int, n_authentic: int
) -> None:
    rows = rows_of(n_synthetic, n_authentic)
    unpaired = np.mean([rows[unit.rows[1]].source == "web" for unit in units_of(rows)])
    assert unpaired == pytest.approx(n_synthetic / (n_synthetic + N_PAIRS), abs=0.04)  # 2,000 draws: sd 0.011


def test_a_set_of_pairs_alone_is_never_torn() -> None:
    assert all(unit.seeds[0] == unit.seeds[1] for unit in units_of(rows_of(0, 0)))
