"""Scores and thresholds: Platt against scikit-learn, the table worked by hand, what it cannot resolve refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mai.errors import DataError, UsageError
from mai.measure.calibrate import RATES, Calibration, OperatingTable, fit_platt, operating_table


def test_platt_equals_logistic_regression_on_the_same_targets() -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="the extra 'train' brings scikit-learn")
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(1.5, 2, 90), rng.normal(-0.5, 1, 240)])
    labels = np.repeat([1, 0], [90, 240])
    fitted = fit_platt(logits, labels)
    # A soft target t of weight w is a synthetic sample of weight w t and an authentic one of weight w (1 - t).
    target = np.where(labels == 1, 91 / 92, 1 / 242)
    weight = np.where(labels == 1, 0.5 / 90, 0.5 / 240)
    regression = linear.LogisticRegression(C=1e10, tol=1e-12, max_iter=10_000)
    regression.fit(
        np.tile(logits, 2)[:, None],
        np.repeat([1, 0], len(logits)),
        sample_weight=np.concatenate([weight * target, weight * (1 - target)]) * 1e4,
    )
    assert fitted.slope == pytest.approx(float(regression.coef_[0, 0]), rel=1e-4)
    assert fitted.offset == pytest.approx(float(regression.intercept_[0]), abs=1e-4)


def test_classes_weigh_the_same_whatever_their_size() -> None:
    rng = np.random.default_rng(0)
    synthetic, authentic = rng.normal(1, 1, 4000), rng.normal(-1, 1, 4000)
    even = fit_platt(np.concatenate([synthetic, authentic]), np.repeat([1, 0], 4000))
    uneven = fit_platt(np.concatenate([synthetic[:800], authentic]), np.repeat([1, 0], [800, 4000]))
    assert uneven.offset == pytest.approx(even.offset, abs=0.15)
    assert even.score(0.0) == pytest.approx(0.5, abs=0.03)


def test_a_separated_set_stays_finite() -> None:
    fitted = fit_platt([5.0, 6.0, 7.0, -5.0, -6.0, -7.0], [1, 1, 1, 0, 0, 0])
    assert 0 < fitted.slope < 10
    assert 0.5 < fitted.score(5.0) < 1


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        ([1.0, 2.0], [1, 1], "2 synthetic and 0 authentic"),
        ([], [], "0 synthetic and 0 authentic"),
        ([1.0, float("nan")], [1, 0], "not finite"),
        ([1.0, 2.0, 3.0, 4.0], [1, 1, 0, 0], "does not rise"),
        ([1.0, 1.0], [1, 0], "does not rise"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(logits: list[float], labels: list[int], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        fit_platt(logits, labels)


def test_score_moves_with_the_prior_and_never_overflows() -> None:
    calibration = Calibration(2.0, -1.0)
    assert calibration.score(0.5) == 0.5
    assert calibration.score(0.5, prior=0.1) == pytest.approx(0.1)
    assert calibration.score(1e6) == 1.0
    assert calibration.score(-1e6) == 0.0


def test_table_worked_by_hand() -> None:
    # 20 authentic scores .05 ... 1 less a little and 20 synthetic ones the same: rate .05 allows one error.
    scores = np.arange(1, 21) / 20 - 0.01
    table = operating_table(np.tile(scores, 2), np.repeat([1, 0], 20), "by hand")
    assert [point.rate for point in table.synthetic] == [rate for rate in RATES if rate >= 0.05]
    first = table.at_fpr(0.05)
    assert (first.rate, first.n_errors) == (0.05, 1)
    assert 0.94 < first.score < 0.94 + 1e-12  # just above the second highest authentic score
    assert table.at_fpr(0.1).n_errors == 2
    assert 0.89 < table.at_fpr(0.1).score < 0.89 + 1e-12
    assert table.at_fpr(0.07) == first  # the next stricter rate that was measured
    assert table.at_fpr(0.9).rate == 0.5
    assert scores[1] - 1e-12 < table.at_fnr(0.05).score < scores[1]
    assert table.at_fnr(0.2).n_errors == 4


@pytest.mark.parametrize("rate", [0.01, 0.049])
def test_refuses_below_its_resolution(rate: float) -> None:
    table = operating_table(np.tile(np.arange(1, 21) / 21, 2), np.repeat([1, 0], 20), "by hand")
    with pytest.raises(UsageError, match=r"20 authentic calibration images; the smallest that can is 0\.05"):
        table.at_fpr(rate)
    with pytest.raises(UsageError, match="20 synthetic"):
        table.at_fnr(rate)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5])
def test_refuses_what_is_no_rate(rate: float) -> None:
    table = operating_table([0.1, 0.9], [0, 1], "two")
    with pytest.raises(UsageError, match="between 0 and 1"):
        table.at_fpr(rate)


def test_a_full_sigmoid_leaves_no_threshold_that_lies() -> None:
    # Six of 100 authentic scores stand at 1: no threshold flags fewer, so the rates up to .05 are not offered.
    scores = np.concatenate([np.linspace(0.1, 0.9, 94), np.ones(6), np.linspace(0.2, 1, 100)])
    table = operating_table(scores, np.repeat([0, 1], 100), "full")
    assert table.synthetic[0].rate == 0.1
    with pytest.raises(UsageError, match="cannot be told"):
        table.at_fpr(0.05)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=300), st.lists(st.floats(0, 1), min_size=1, max_size=300)
)
def test_no_point_makes_more_errors_than_its_rate(authentic: list[float], synthetic: list[float]) -> None:
    labels = np.repeat([0, 1], [len(authentic), len(synthetic)])
    table = operating_table(authentic + synthetic, labels, "drawn")
    for point in table.synthetic:
        flagged = sum(score >= point.score for score in authentic)
        assert point.n_errors == flagged <= point.rate * len(authentic) + 1e-6
    for point in table.authentic:
        cleared = sum(score <= point.score for score in synthetic)
        assert point.n_errors == cleared <= point.rate * len(synthetic) + 1e-6
    scores = [point.score for point in table.synthetic]
    assert scores == sorted(scores, reverse=True)
    assert OperatingTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_rate_holds_on_new_images_of_the_same_kind() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        table = operating_table(rng.random(400), np.repeat([0, 1], 200), "uniform")
        shares.append(
            1 - table.at_fpr(0.05).score
        )  # uniform scores: the share of new ones above the threshold
    assert np.mean(shares) == pytest.approx(
        11 / 201, abs=0.003
    )  # ten errors of two hundred, and the gap beyond them
