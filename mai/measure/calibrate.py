"""Logit -> probability, and the thresholds that go with an error rate.

Fitted on the calibration split, which is disjoint from training and validation. Plain numpy: a plain install
reads calibrations, and fits one for `mai adapt`, without scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mai.errors import DataError, UsageError

RATES: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
"""Error rates a table of thresholds is made for, as far as the calibration set resolves them."""

DEFAULT_FPR, DEFAULT_FNR = 0.01, 0.15
"""Rates of the default operating point. One authentic picture in a hundred may be flagged. 'No sign of AI' may be said
of fifteen synthetic ones: at ten fewer than half of all pictures get an answer (.45 of the web views with pixel_v1_2,
.54 at fifteen; docs/log.md)."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Platt scaling: score = sigmoid(slope * logit + offset), at a prior of one half.

    Source: J. Platt, Probabilistic outputs for support vector machines, 1999.

    Attributes:
        slope: factor of the logit, > 0.
        offset: added after the factor.
    """

    slope: float
    offset: float

    def score(self, logit: float, prior: float = 0.5) -> float:
        """Probability of synthetic, 0..1, for a share `prior` (0..1, open) of synthetic images."""
        z = self.slope * logit + self.offset + math.log(prior / (1.0 - prior))
        if z >= 0:
            return 1.0 / (1.0 + math.exp(-z))
        e = math.exp(z)
        return e / (1.0 + e)

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return {"slope": self.slope, "offset": self.offset}


def fit_platt(logits: ArrayLike, labels: ArrayLike, n_steps: int = 100) -> Calibration:
    """Fit a Calibration by Newton's method on the class-balanced log loss.

    Each class weighs one half whatever its size, so scores are for a prior of one half; Platt's smoothed targets
    keep a set that the logit separates from running to infinity.

    Args:
        logits: (N,) raw outputs.
        labels: (N,) 1 synthetic, 0 authentic.
        n_steps: most Newton steps.

    Raises:
        DataError: one class is missing, a logit is not finite, or the logit does not rise with the label.
    """
    z = np.asarray(logits, np.float64)
    y = np.asarray(labels) == 1
    n_pos, n_neg = int(y.sum()), int((~y).sum())
    if not n_pos or not n_neg:
        raise DataError(
            f"Calibration needs both classes; there are {n_pos} synthetic and {n_neg} authentic scores."
        )
    if not np.isfinite(z).all():
        raise DataError("Calibration got logits that are not finite numbers.")
    target = np.where(y, (n_pos + 1) / (n_pos + 2), 1 / (n_neg + 2))
    weight = np.where(y, 0.5 / n_pos, 0.5 / n_neg)
    mean, scale = float(z.mean()), float(z.std()) or 1.0
    x = np.stack([(z - mean) / scale, np.ones_like(z)], axis=1)
    theta = np.zeros(2)

    def loss(t: NDArray[np.float64]) -> float:
        m = x @ t
        return float((weight * (np.logaddexp(0.0, m) - target * m)).sum())

    for _ in range(n_steps):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ theta, -500, 500)))
        gradient = x.T @ (weight * (p - target))
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size, before = 1.0, loss(theta)
        while size > 1e-4 and loss(theta - size * step) > before:
            size /= 2
        theta = theta - size * step
        if float(np.abs(size * step).max()) < 1e-9:
            break
    slope = float(theta[0]) / scale
    if slope <= 0:
        raise DataError(
            "On the calibration set the logit does not rise with the label, so it cannot be calibrated: the network "
            "tells nothing there. Train it longer or on more pictures, and look at the set: mai data audit."
        )
    return Calibration(slope, float(theta[1]) - slope * mean)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """One row of a table of thresholds.

    Attributes:
        rate: the error rate asked for, 0..1.
        score: the threshold.
        n_errors: calibration images on the wrong side of it.
        n_caught: calibration images of the other class that it names rightly; None in tables of before 2026-11-25.
    """

    rate: float
    score: float
    n_errors: int
    n_caught: int | None = None

    def to_dict(self) -> dict[str, float | int]:
        """Plain JSON values."""
        values: dict[str, float | int] = {"rate": self.rate, "score": self.score, "n_errors": self.n_errors}
        return values if self.n_caught is None else {**values, "n_caught": self.n_caught}


@dataclass(frozen=True, slots=True)
class OperatingTable:
    """Measured thresholds: `synthetic` by false-positive rate, `authentic` by false-negative rate.

    Attributes:
        synthetic: rising rate, falling threshold; an image is called synthetic at or above the score.
        authentic: rising rate, rising threshold; an image is called authentic at or below the score.
        n_synthetic: synthetic calibration images.
        n_authentic: authentic calibration images.
        data: what they are, for people.
    """

    synthetic: tuple[OperatingPoint, ...]
    authentic: tuple[OperatingPoint, ...]
    n_synthetic: int
    n_authentic: int
    data: str

    def at_fpr(self, rate: float) -> OperatingPoint:
        """The threshold for at most this share of authentic images flagged (the next stricter measured rate).

        Raises:
            UsageError: the rate lies below what the calibration set resolves, or is no rate.
        """
        return _at(self.synthetic, rate, "false-positive", self.n_authentic, "authentic")

    def at_fnr(self, rate: float) -> OperatingPoint:
        """The threshold for at most this share of synthetic images called authentic.

        Raises:
            UsageError: the rate lies below what the calibration set resolves, or is no rate.
        """
        return _at(self.authentic, rate, "false-negative", self.n_synthetic, "synthetic")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, read back by `from_dict`."""
        return {
            "synthetic": [point.to_dict() for point in self.synthetic],
            "authentic": [point.to_dict() for point in self.authentic],
            "n_synthetic": self.n_synthetic,
            "n_authentic": self.n_authentic,
            "data": self.data,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OperatingTable:
        """Read what `to_dict` wrote."""
        return cls(
            tuple(OperatingPoint(**point) for point in values["synthetic"]),
            tuple(OperatingPoint(**point) for point in values["authentic"]),
            values["n_synthetic"],
            values["n_authentic"],
            values["data"],
        )


def _at(points: Sequence[OperatingPoint], rate: float, kind: str, n: int, of: str) -> OperatingPoint:
    if not 0 < rate < 1:
        raise UsageError(f"A {kind} rate lies between 0 and 1, not at {rate:g}.")
    fitting = [point for point in points if point.rate <= rate * (1 + 1e-9)]
    if not fitting:
        least = f"{points[0].rate:g}" if points else "none"
        raise UsageError(
            f"A {kind} rate of {rate:g} cannot be told from the {n} {of} calibration images; "
            f"the smallest that can is {least}."
        )
    return fitting[-1]


def operating_table(scores: ArrayLike, labels: ArrayLike, data: str) -> OperatingTable:
    """Make the table of thresholds from calibration scores.

    A threshold for rate r is the least strict one that leaves at most r * n of the n images on the wrong side. On new
    images of the same kind the expected rate is then at most r + 1 / (n + 1) (split conformal prediction, Vovk et al.
    2005). Rates under 1 / n are left out, as no threshold of the set stands for them.

    Args:
        scores: (N,) calibrated scores, 0..1.
        labels: (N,) 1 synthetic, 0 authentic.
        data: what the images are, for people.
    """
    s = np.asarray(scores, np.float64)
    y = np.asarray(labels) == 1
    if not y.any() or y.all():
        raise DataError("A table of thresholds needs both classes.")
    authentic, synthetic = np.sort(s[~y])[::-1], np.sort(s[y])
    return OperatingTable(
        synthetic=_points(authentic, synthetic, above=True),
        authentic=_points(synthetic, authentic, above=False),
        n_synthetic=len(synthetic),
        n_authentic=len(authentic),
        data=data,
    )


def least_rate(points: Sequence[OperatingPoint], wanted: float) -> float:
    """The rate wanted, or the smallest that the calibration pictures can tell.

    Raises:
        DataError: they can tell none.
    """
    if not points:
        raise DataError(
            "There are too few calibration pictures for any threshold: give some hundred of each class."
        )
    return float(max(wanted, points[0].rate))


def _points(
    worst_first: NDArray[np.float64], others: NDArray[np.float64], above: bool
) -> tuple[OperatingPoint, ...]:
    points: list[OperatingPoint] = []
    n = len(worst_first)
    for rate in RATES:
        allowed = math.floor(rate * n + 1e-9)
        if allowed < 1:
            continue
        edge = float(worst_first[min(allowed, n - 1)])  # at most `allowed` lie strictly beyond it
        score = min(max(math.nextafter(edge, math.inf if above else -math.inf), 0.0), 1.0)
        n_errors = int((worst_first >= score).sum() if above else (worst_first <= score).sum())
        if n_errors <= allowed:  # not so where the sigmoid ran full: no score lies beyond those at 0 or 1
            n_caught = int((others >= score).sum() if above else (others <= score).sum())
            points.append(OperatingPoint(rate, score, n_errors, n_caught))
    return tuple(points)
