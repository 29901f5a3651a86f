"""The squares that a network sees: never squashed, from the right place, the same for the same picture."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai.images.views import (
    NATIVE_PLACES,
    ViewPlan,
    by_side,
    native_views,
    resize,
    square_at,
    whole_views,
)
from mai.training import architectures

PLANS = {name: architectures.load(name).plan for name in architectures.names()}


def ramp(height: int, width: int) -> np.ndarray:
    """Red rises with y, green with x: a window's place can be read from it."""
    y, x = np.mgrid[:height, :width]
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = y * 255 // max(height - 1, 1), x * 255 // max(width - 1, 1)
    return pixels


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from(sorted(PLANS)))
def test_any_shape_gives_squares(height: int, width: int, name: str) -> None:
    plan = PLANS[name]
    pixels = ramp(height, width)
    whole, native = whole_views(pixels, plan), native_views(pixels, plan)
    assert whole or native
    for kind, views in (("whole", whole), ("native", native)):
        for view in views:
            assert view.shape == (plan.side(kind), plan.side(kind), 3)
            assert view.dtype == np.uint8
    assert len(whole) <= plan.n_whole
    assert len(native) <= plan.n_native


def test_whole_windows_spread_along_the_long_side_and_keep_the_shape() -> None:
    plan = ViewPlan(size_px=64, n_whole=3, whole_share=1.0, n_native=0, native_px=64)
    views = whole_views(ramp(200, 600), plan)
    assert len(views) == 3
    greens = [float(view[..., 1].mean()) for view in views]
    assert greens[0] < greens[1] < greens[2]
    assert greens[1] == pytest.approx(127, abs=3)
    for view in views:  # a third of the columns and all rows: green climbs a third as far as red
        red = float(view[-1, :, 0].mean()) - float(view[0, :, 0].mean())
        green = float(view[:, -1, 1].mean()) - float(view[:, 0, 1].mean())
        assert green == pytest.approx(red / 3, abs=6)
    assert len(whole_views(ramp(200, 230), plan)) == 1


def test_native_windows_are_the_pictures_own_pixels() -> None:
    plan = ViewPlan(size_px=32, n_whole=0, whole_share=1.0, n_native=len(NATIVE_PLACES), native_px=32)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 160, 3), np.uint8)
    views = native_views(pixels, plan)
    assert len(views) == len(NATIVE_PLACES)
    for view, (y, x) in zip(views, NATIVE_PLACES, strict=True):
        top, left = round((100 - 32) * y), round((160 - 32) * x)
        assert np.array_equal(view, pixels[top : top + 32, left : left + 32])
    assert len(native_views(pixels[:40], plan)) == 1  # hardly larger than one window


def test_square_at_the_edges() -> None:
    pixels = ramp(50, 80)
    assert np.array_equal(square_at(pixels, 20, 1, 1), pixels[30:, 60:])
    assert square_at(pixels, 99, 0.5, 0.5).shape == (50, 50, 3)


def test_resize_does_not_alias() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize(stripes, 64, 64).astype(int)
    assert abs(small - 127).max() < 12
    assert resize(stripes, 512, 512) is stripes


def test_combine_by_hand() -> None:
    plan = ViewPlan(size_px=32, n_whole=1, whole_share=1.0, n_native=1, native_px=32, whole_weight=0.25)
    assert plan.combine([4.0], [0.0, 2.0]) == 0.25 * 4 + 0.75 * 1
    assert plan.combine([3.0, 5.0], []) == 4
    assert plan.combine([], [2.0]) == 2
    with pytest.raises(ValueError, match="no views"):
        plan.combine([], [])


def test_whole_views_may_have_a_side_of_their_own() -> None:
    plan = ViewPlan(size_px=64, n_whole=2, whole_share=1.0, n_native=2, native_px=64, whole_px=96)
    assert plan.sides == (96, 64)
    assert ViewPlan(size_px=64, n_whole=1, whole_share=1.0, n_native=1, native_px=64).sides == (64,)
    pixels = np.random.default_rng(0).integers(0, 256, (200, 400, 3), np.uint8)
    views = [*whole_views(pixels, plan), *native_views(pixels, plan)]
    assert [view.shape for view in views] == [(96, 96, 3)] * 2 + [(64, 64, 3)] * 2
    mixed = [views[0], views[2], views[1], views[3]]
    groups = list(by_side(mixed))
    assert [places for places, _ in groups] == [[0, 2], [1, 3]]
    for places, stacked in groups:
        for place, view in zip(places, stacked, strict=True):
            assert np.array_equal(view, mixed[place])
    assert list(by_side([])) == []
