"""The benchmark's own figures against examples worked by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mai.bench.figures import (
    Pictures,
    answers,
    brier,
    equal_error_rate,
    measure,
    negative_log_likelihood,
    paired_difference,
    stability,
)
from mai.bench.floors import sharpness, source_floor, within
from mai.measure import metrics

SCORES = np.array([0.9, 0.8, 0.3, 0.6, 0.2, 0.1])
LABELS = np.array([True, True, True, False, False, False])


def who(labels: np.ndarray, units: list[str] | None = None, has_sources: bool = True) -> Pictures:
    names = [str(i) for i in range(len(labels))]
    generators = ["g" if y else "" for y in labels]
    return Pictures(names, labels, units or names, generators, has_sources)


def test_equal_error_rate_by_hand() -> None:
    # At .6: one of three authentic flagged, one of three synthetic missed.
    assert equal_error_rate(SCORES, LABELS) == pytest.approx(1 / 3)
    assert equal_error_rate(np.array([0.9, 0.1]), np.array([True, False])) == 0
    assert equal_error_rate(np.array([0.1, 0.9]), np.array([True, False])) == 1
    assert equal_error_rate(np.full(6, 0.5), LABELS) == pytest.approx(0.5)
    assert math.isnan(equal_error_rate(SCORES[:3], LABELS[:3]))


def test_equal_error_rate_against_a_second_library() -> None:
    curve = pytest.importorskip("sklearn.metrics").roc_curve
    rng = np.random.default_rng(0)
    y = rng.random(4000) < 0.4
    s = rng.normal(y * 1.0, 1)
    fpr, tpr, _ = curve(y, s, drop_intermediate=False)
    i = int(np.argmin(np.abs(fpr - (1 - tpr))))
    assert equal_error_rate(s, y) == pytest.approx((fpr[i] + 1 - tpr[i]) / 2, abs=1e-3)


def test_brier_and_nll_by_hand_and_against_scikit_learn() -> None:
    sk = pytest.importorskip("sklearn.metrics")
    assert brier(np.array([1.0, 0.5, 0.0]), np.array([True, True, False])) == pytest.approx(
        0.5 * (0 + 0.25) / 2
    )
    assert negative_log_likelihood(np.array([0.5, 0.5]), np.array([True, False])) == pytest.approx(
        math.log(2)
    )
    weight = np.where(LABELS, 1 / LABELS.sum(), 1 / (~LABELS).sum())
    assert brier(SCORES, LABELS) == pytest.approx(sk.brier_score_loss(LABELS, SCORES, sample_weight=weight))
    assert negative_log_likelihood(SCORES, LABELS) == pytest.approx(
        sk.log_loss(LABELS, SCORES, sample_weight=weight)
    )
    assert math.isfinite(negative_log_likelihood(np.array([0.0, 1.0]), np.array([True, False])))


def test_labels_and_flips() -> None:
    before, after = np.array([0.9, 0.9, 0.1, 0.5, 0.1]), np.array([0.95, 0.1, 0.9, 0.1, 0.5])
    assert answers(before, 0.8, 0.2).tolist() == [1, 1, 0, -1, 0]
    assert answers(before, 0.8, None).tolist() == [1, 1, 0, 0, 0]
    told = stability(before, after, 0.8, 0.2)
    assert told["flipped"][0] == 0.4  # two of five turned round; from or to inconclusive does not count
    assert told["labelled_before"] == 0.8
    assert told["labelled_after"] == 0.8


def test_a_set_of_one_class_has_recall_and_no_accuracy() -> None:
    told = measure(SCORES[:3], who(LABELS[:3]), 0.5, None, 50)
    assert told["recall"][0] == pytest.approx(2 / 3, abs=1e-3)
    assert not {"auroc", "balanced_accuracy", "flagged", "ece"} & set(told)
    other = measure(SCORES[3:], who(LABELS[3:]), 0.5, None, 50)
    assert other["flagged"][0] == pytest.approx(1 / 3, abs=1e-3)
    assert "recall" not in other


def test_worst_groups_are_named() -> None:
    rng = np.random.default_rng(1)
    labels = np.array([True] * 40 + [False] * 40)
    scores = np.r_[rng.uniform(0.6, 1, 20), rng.uniform(0, 0.4, 20), rng.uniform(0, 0.5, 40)]
    units = ["s1"] * 20 + ["s2"] * 20 + ["a1"] * 20 + ["a2"] * 20
    pictures = Pictures(units, labels, units, ["good"] * 20 + ["bad"] * 20 + [""] * 40, True)
    told = measure(scores, pictures, 0.5, 0.1, 50)
    assert told["worst_generator"]["name"] == "bad"
    assert told["worst_generator"]["auroc"] < 0.6
    assert told["n_synthetic_sources"] == 2
    assert told["interval_over"] == "sources"


def test_paired_intervals_are_narrower_than_two_apart() -> None:
    rng = np.random.default_rng(2)
    labels = rng.random(300) < 0.5
    units = [f"{'s' if y else 'a'}{i % 12}" for i, y in enumerate(labels)]
    shift = {u: rng.normal(0, 1.5) for u in set(units)}
    one = labels + np.array([shift[u] for u in units]) + rng.normal(0, 0.5, 300)
    two = one + 0.3 * labels
    value, low, high = paired_difference(one, two, labels, units, metrics.auroc, 200)
    assert low > 0, "all synthetic pictures rose"
    assert value == pytest.approx(metrics.auroc(two, labels) - metrics.auroc(one, labels), abs=1e-4)
    apart = metrics.bootstrap(metrics.auroc, two, labels, units, 200)
    assert high - low < apart.high - apart.low
    same = paired_difference(one, one, labels, units, metrics.auroc, 50)
    assert same == [0, 0, 0]


def test_a_detector_of_sources_stays_within_the_source_floor() -> None:
    rng = np.random.default_rng(3)
    units = [f"{'s' if i < 100 else 'a'}{i % 10}" for i in range(200)]
    labels = np.array([i < 100 for i in range(200)])
    shift = {u: rng.normal(0, 2) for u in sorted(set(units))}
    scores = np.array([shift[u] for u in units]) + rng.normal(0, 0.1, 200)
    floor = source_floor(scores, who(labels, units))
    assert floor is not None
    assert floor[2] > 0.8, (
        "halves of the authentic sources are told apart by nothing but where they come from"
    )
    assert within([0.7, 0.6, 0.8], {"sources": floor}) == {"sources": True}
    honest = source_floor(rng.normal(0, 1, 200), who(labels, units))
    assert honest is not None
    assert within([0.9, 0.85, 0.95], {"sources": honest}) == {"sources": False}
    assert source_floor(scores[:120], who(labels[:120], ["a"] * 120)) is None


def test_sharpness_falls_with_blur() -> None:
    from labelled_pictures import draw

    from mai.bench.perturb import parse

    picture = draw(1, synthetic=True)
    sharp, soft = sharpness(picture), sharpness(parse("blur-2")(picture, "a"))
    assert all(a > b for a, b in zip(sharp, soft, strict=True))
