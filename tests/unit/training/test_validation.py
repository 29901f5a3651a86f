"""Validation and evaluation: the same views every time, one figure a picture, early stop and rates as written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from labelled_pictures import make_set

pytest.importorskip("cv2", reason="the aligned protocol needs the extra 'train'")

from mai import config
from mai.data.sources import read_set
from mai.data.store import open_store
from mai.images.views import ViewPlan
from mai.measure.calibrate import Calibration
from mai.training import architectures, evaluation
from mai.training.optimizer import rate_at
from mai.training.recipe import DataPlan, Recipe
from mai.training.resume import RUN_MAY_CHANGE, changes
from mai.training.validation import aligned_views

PLAN = ViewPlan(size_px=32, n_whole=1, whole_share=1.0, n_native=1, native_px=32, whole_weight=0.5)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    return make_set(tmp_path / "set", {"validation": 6})


def redness(views: np.ndarray) -> np.ndarray:
    return (views[..., 0].astype(float).mean((1, 2)) - views[..., 2].mean((1, 2))) / 10


def test_aligned_views_hang_on_name_and_seed_only(data: Path) -> None:
    store = open_store(read_set(str(data)), quiet=True)
    every = aligned_views(store, range(len(store.rows)), DataPlan(64))
    some = aligned_views(store, [4, 5, 6], DataPlan(64))
    where = [every.images.index(name) for name in some.images]
    for mine, theirs in enumerate(where):
        ours = [some.views[i] for i in np.flatnonzero(some.picture == mine)]
        same = [every.views[i] for i in np.flatnonzero(every.picture == theirs)]
        assert np.array_equal(np.stack(ours), np.stack(same))
    other = aligned_views(store, [4], DataPlan(64), seed=1).views
    assert not any(np.array_equal(a, b) for a, b in zip(other, some.views, strict=False))
    few = aligned_views(store, range(len(store.rows)), DataPlan(64), most=5)
    assert len(few.views) == 5
    assert set(few.labels) == {0, 1}


def test_a_pictures_figure_is_the_mean_of_its_views(data: Path) -> None:
    store = open_store(read_set(str(data)), quiet=True)
    views = aligned_views(store, range(len(store.rows)), DataPlan(32))
    logits = np.arange(len(views.views), dtype=float)
    wanted = [logits[views.picture == i].mean() for i in range(len(views.images))]
    assert views.per_picture(logits) == pytest.approx(wanted)


@pytest.mark.parametrize("protocol", ["native", "aligned"])
def test_scores_one_a_picture_whatever_the_order_of_rows(data: Path, protocol: str) -> None:
    rows = read_set(str(data)).rows
    scored = evaluation.score_rows(rows, redness, PLAN, protocol, quiet=True)
    turned = evaluation.score_rows(rows[::-1], redness, PLAN, protocol, quiet=True)
    assert [p.image for p in scored.pictures] == [row.image for row in rows]
    mine = dict(zip((p.image for p in scored.pictures), scored.logits(PLAN), strict=True))
    theirs = dict(zip((p.image for p in turned.pictures), turned.logits(PLAN), strict=True))
    assert mine == theirs
    report = evaluation.report(scored, PLAN, Calibration(1.0, 0.0), threshold=0.5, n_draws=50)
    assert report["auroc"] == [1.0, 1.0, 1.0]
    assert report["balanced_accuracy"][0] == 1.0
    assert (report["n_synthetic"], report["n_authentic"], report["n_broken"]) == (6, 6, 0)


def test_files_that_break_are_counted(data: Path) -> None:
    (data / "validation" / "real" / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    scored = evaluation.score_rows(read_set(str(data)).rows, redness, PLAN, "native", quiet=True)
    assert len(scored.pictures) == 12
    assert [Path(file).name for file in scored.broken] == ["bad.jpg"]


def test_a_row_that_is_a_view_gives_that_view_only(data: Path) -> None:
    row = read_set(str(data)).rows[0]
    pixels = np.zeros((80, 120, 3), np.uint8)
    for protocol in ("native", "aligned"):
        counts = [
            tuple(map(len, evaluation.views_of_row(dataclasses.replace(row, view=view), pixels, PLAN, protocol)))
            for view in ("whole", "crop", None)
        ]  # fmt: skip
        assert counts == [(1, 0), (0, 1), (1, 1)]


def recipe(*overrides: str) -> Recipe:
    return config.read(Recipe, architectures.load("resnet").recipes["base"], overrides)


def test_learning_rate_rises_then_falls() -> None:
    plan = recipe("optimizer.warmup=0.1", "optimizer.final=0.2")
    assert rate_at(0.0, plan) == 0.01  # never nothing
    assert rate_at(0.05, plan) == pytest.approx(0.5)
    assert rate_at(0.1, plan) == 1.0
    assert rate_at(0.55, plan) == pytest.approx(0.6)  # half way between .2 and 1
    assert rate_at(1.0, plan) == pytest.approx(0.2)
    assert rate_at(0.0, recipe("optimizer.warmup=0", "optimizer.final=1")) == 1.0


def test_what_a_resumed_run_may_change() -> None:
    before = config.to_dict(recipe())
    assert set(before["run"]) > RUN_MAY_CHANGE
    assert changes(before, config.to_dict(recipe("run.epochs=99", "run.patience=1"))) == []
    changed = recipe("run.seed=7", "augment.blur=0.5", "dropout=0.1")
    assert sorted(changes(before, config.to_dict(changed))) == [
        f"augment.blur was {recipe().augment.blur}, is 0.5",
        "dropout was 0.0, is 0.1",
        "run.seed was 0, is 7",
    ]
    del before["run"]["layout"], before["run"]["precision"]  # checkpoints from before these keys
    assert changes(before, config.to_dict(recipe())) == []
