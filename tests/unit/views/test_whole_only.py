"""A plan whose native views weigh nothing: pictures are judged by their whole views, crops alone by native ones."""

from __future__ import annotations

import numpy as np
import pytest

from mai.data.labelled import Row
from mai.images.views import ViewPlan
from mai.training.evaluation import views_of_row

PLAN = ViewPlan(
    size_px=32, n_whole=1, whole_share=1.0, n_native=1, native_px=32, whole_weight=1.0, whole_px=48
)
PIXELS = np.zeros((80, 100, 3), np.uint8)


@pytest.mark.parametrize(
    ("view", "n_whole", "n_native"), [("whole", 1, 0), ("crop", 0, 1), ("web", 1, 0), (None, 1, 0)]
)
def test_views_of_each_kind_of_row(view: str | None, n_whole: int, n_native: int) -> None:
    whole, native = views_of_row(Row("a.png", 1, "train", view=view), PIXELS, PLAN, "native")
    assert (len(whole), len(native)) == (n_whole, n_native)


def test_native_logits_weigh_nothing_beside_a_whole_one() -> None:
    assert not PLAN.asks_native
    assert PLAN.combine([2.0], [-9.0]) == 2.0
    assert PLAN.combine([], [-9.0]) == -9.0


def test_without_whole_views_native_ones_are_asked() -> None:
    plan = ViewPlan(size_px=32, n_whole=0, whole_share=1.0, n_native=2, native_px=32, whole_weight=1.0)
    assert plan.asks_native
