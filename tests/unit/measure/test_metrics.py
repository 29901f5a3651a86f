"""Figures against examples worked by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai.measure import metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="measuring needs the extra 'train'")

SCORES = [0.9, 0.8, 0.7, 0.6, 0.4, 0.3, 0.2, 0.1]
LABELS = [1, 1, 0, 1, 0, 1, 0, 0]
"""Synthetic at .9 .8 .6 .3, authentic at .7 .4 .2 .1."""


def test_auroc_by_hand() -> None:
    # Pairs won: .9 and .8 beat all 4, .6 beats 3 of 4, .3 beats 2 of 4.
    assert metrics.auroc(SCORES, LABELS) == pytest.approx(13 / 16)
    assert metrics.auroc([0.5] * 4, [1, 1, 0, 0]) == 0.5


def test_average_precision_by_hand() -> None:
    # Precision at each synthetic: 1/1, 2/2, 3/4, 4/6.
    assert metrics.average_precision(SCORES, LABELS) == pytest.approx((1 + 1 + 3 / 4 + 4 / 6) / 4)


def test_tpr_at_fpr_by_hand() -> None:
    assert metrics.tpr_at_fpr(SCORES, LABELS, 0.0) == 0.5  # above .7
    assert (
        metrics.tpr_at_fpr(SCORES, LABELS, 0.24) == 0.5
    )  # a quarter of four is the first that can be allowed
    assert metrics.tpr_at_fpr(SCORES, LABELS, 0.25) == 0.75  # .7 flagged, above .4
    assert metrics.tpr_at_fpr(SCORES, LABELS, 1.0) == 1.0
    assert metrics.tpr_at_fpr([0.5, 0.5], [1, 0], 0.5) == 0.0  # a tie cannot be caught without its twin


def test_balanced_accuracy_by_hand() -> None:
    flags = np.array(SCORES) >= 0.5
    assert metrics.balanced_accuracy(flags, LABELS) == pytest.approx((3 / 4 + 3 / 4) / 2)
    assert metrics.balanced_accuracy([True] * 3, [1, 0, 0]) == 0.5


def test_ece_by_hand() -> None:
    # Two bins of .5; classes weigh one half: bin 0 holds one synthetic (.5) at .2 and one of two authentic (.25) at .4,
    # bin 1 the other authentic (.25) at .6. |.5*.2 + .25*.4 - .5| + |.25*.6 - 0| = .3 + .15
    assert metrics.ece([0.2, 0.4, 0.6], [1, 0, 0], n_bins=2) == pytest.approx(0.45)
    assert metrics.ece([1.0, 0.0], [1, 0]) == 0.0


def test_ece_of_true_scores() -> None:
    # Scores of 0 and 1 leave nothing to chance.
    assert metrics.ece_if_calibrated([0.0, 1.0] * 20, [0, 1] * 20).to_list() == [0.0, 0.0, 0.0]
    # One bin of fair coins, each class weighing one half: its mean is .5 whatever fell.
    assert metrics.ece_if_calibrated([0.5] * 40, [0, 1] * 20).high == pytest.approx(0, abs=1e-9)
    assert math.isnan(metrics.ece_if_calibrated([0.2, 0.5], [0, 0]).value)
    rng = np.random.default_rng(1)
    scores = rng.beta(0.8, 0.8, 5000)
    labels = rng.random(5000) < scores
    chance = [metrics.ece_if_calibrated(scores[:n], labels[:n]) for n in (100, 5000)]
    assert chance[0].value > 3 * chance[1].value > 0
    for n, expected in zip((100, 5000), chance, strict=True):
        assert expected.low <= metrics.ece(scores[:n], labels[:n]) <= expected.high * 1.05
    assert metrics.ece(np.sqrt(scores), labels) > chance[1].high, "scores that are not true stand out"


@pytest.mark.parametrize(
    "metric", [metrics.auroc, metrics.average_precision, metrics.ece, lambda s, y: metrics.tpr_at_fpr(s, y, 0.1)]
)  # fmt: skip
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_alone_has_no_figure(metric: metrics.Metric, label: int) -> None:
    assert math.isnan(metric(np.array([0.1, 0.9]), np.array([label, label], bool)))


scored = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: len({label for _, label in rows}) == 2
)


@settings(max_examples=60, deadline=None)
@given(scored, st.sampled_from([0.01, 0.05, 0.1, 0.3]))
def test_agrees_with_scikit_learn(rows: list[tuple[int, bool]], rate: float) -> None:
    scores = np.array([score / 12 for score, _ in rows])
    labels = np.array([label for _, label in rows])
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert metrics.tpr_at_fpr(scores, labels, rate) == pytest.approx(tpr[fpr <= rate + 1e-9].max())
    assert metrics.balanced_accuracy(scores >= 0.5, labels) == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(labels, scores >= 0.5)
    )


@settings(max_examples=60, deadline=None)
@given(scored)
def test_the_quick_forms_are_the_same_numbers(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score / 12 for score, _ in rows])
    labels = np.array([label for _, label in rows])
    assert metrics.quick_auroc(scores, labels) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores))
    assert metrics.quick_average_precision(scores, labels) == pytest.approx(
        sklearn_metrics.average_precision_score(labels, scores)
    )


def test_one_draw_serves_all_metrics() -> None:
    rng = np.random.default_rng(3)
    labels = rng.random(80) < 0.5
    scores = rng.random(80) + 0.3 * labels
    sources = [f"{y}{i % 9}" for i, y in enumerate(labels)]
    both = {"auroc": (metrics.auroc, metrics.quick_auroc), "ece": (metrics.ece, metrics.ece)}
    found = metrics.bootstrap_all(both, scores, labels, sources, 60, is_biased={"ece"})
    alone = metrics.bootstrap(metrics.auroc, scores, labels, sources, 60)
    assert found["auroc"].to_list() == pytest.approx(alone.to_list())
    assert found["ece"] == metrics.bootstrap(metrics.ece, scores, labels, sources, 60, is_biased=True)


def test_bootstrap_draws_sources_not_pictures() -> None:
    # One source of many equal pictures a class: pictures drawn alone would leave no width either, sources of two do.
    scores = [0.9] * 20 + [0.2] * 20 + [0.1] * 40
    labels = [1] * 40 + [0] * 40
    sources = ["good"] * 20 + ["bad"] * 20 + ["photos"] * 40
    caught = metrics.bootstrap(lambda s, y: float((s[y] > 0.5).mean()), scores, labels, sources, n=400)
    assert caught.value == 0.5
    assert (caught.low, caught.high) == (0.0, 1.0)  # half of the draws of two sources hold one of them twice
    again = metrics.bootstrap(lambda s, y: float((s[y] > 0.5).mean()), scores, labels, sources, n=400)
    assert again == caught
    assert caught.to_list() == [0.5, 0.0, 1.0]
    assert str(caught) == "0.500 [0.000, 1.000]"


def test_the_interval_of_a_calibration_error_holds_it() -> None:
    """Well calibrated scores: a resample's ECE lies above the set's, so quantiles of draws would miss the value."""
    rng = np.random.default_rng(2)
    scores = rng.random(200)
    labels = rng.random(200) < scores
    sources = [str(i) for i in range(200)]
    plain = metrics.bootstrap(metrics.ece, scores, labels, sources, n=150)
    mended = metrics.bootstrap(metrics.ece, scores, labels, sources, n=150, is_biased=True)
    assert plain.low + plain.high > 2 * plain.value, "the draws lie above the value"
    assert mended.value == plain.value
    assert 0 <= mended.low < mended.value < mended.high
    assert mended.high - mended.low <= plain.high - plain.low + 1e-9


def test_bootstrap_covers_what_is_known() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(60):
        labels = np.repeat([1, 0], 60)
        flags = rng.random(120) < 0.3
        sources = [f"s{i}" for i in range(120)]
        got = metrics.bootstrap(
            lambda s, y: float(s[y].mean()), flags.astype(float), labels, sources, n=200, seed=trial
        )
        inside += got.low <= 0.3 <= got.high
    assert 50 <= inside <= 60  # 95 % of 60 are 57
