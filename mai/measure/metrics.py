"""What a detector is measured with. scikit-learn computes what it has; the rest stands here, small and tested.

Scores are one a picture. Intervals come from a bootstrap over sources, since pictures of one source are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mai.errors import require

Metric = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval.

    Attributes:
        value: on all pictures.
        low: its lower end; of `bootstrap`, the 2.5 % quantile over resampled sources.
        high: its upper end.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def to_list(self) -> list[float]:
        """Value, low, high, rounded to four places."""
        return [round(float(v), 4) for v in (self.value, self.low, self.high)]


def wilson(n_hits: int, n: int) -> Interval:
    """A share of independent trials with its 95 % score interval (E. B. Wilson, JASA 22, 1927, p. 209).

    Args:
        n_hits: trials that went so, 0..n.
        n: all trials, at least 1.
    """
    z2 = 1.959964**2  # the normal distribution's 97.5 % quantile, squared
    share = n_hits / n
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval(share, max(middle - half, 0.0), min(middle + half, 1.0))


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve; nan when a class is missing."""
    metrics = require("sklearn.metrics", "train", "Measuring")
    y = np.asarray(labels, bool)
    return float(metrics.roc_auc_score(y, np.asarray(scores))) if y.any() and not y.all() else float("nan")


def average_precision(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the precision-recall curve (average precision); nan when a class is missing."""
    metrics = require("sklearn.metrics", "train", "Measuring")
    y = np.asarray(labels, bool)
    return (
        float(metrics.average_precision_score(y, np.asarray(scores)))
        if y.any() and not y.all()
        else float("nan")
    )


def quick_auroc(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """The same as `auroc` in plain numpy, for thousands of draws: by ranks, ties in the middle."""
    n_pos = int(labels.sum())
    n_neg = len(labels) - n_pos
    if not n_pos or not n_neg:
        return float("nan")
    authentic = np.sort(scores[~labels])
    below = np.searchsorted(authentic, scores[labels], "left") + np.searchsorted(
        authentic, scores[labels], "right"
    )
    return float(below.sum() / (2 * n_pos * n_neg))


def quick_average_precision(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """The same as `average_precision` in plain numpy, for thousands of draws."""
    n_pos = int(labels.sum())
    if not n_pos or n_pos == len(labels):
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    s, y = scores[order], labels[order]
    last = np.flatnonzero(np.r_[s[1:] != s[:-1], True])  # of equal scores
    hits = np.cumsum(y)[last]
    return float((np.diff(np.r_[0, hits]) * hits / (last + 1)).sum() / n_pos)


def tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, fpr: float) -> float:
    """Share of synthetic caught at the strictest threshold on this set that flags at most `fpr` of authentic.

    An oracle figure: the threshold is chosen on the set it is measured on.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if not y.any() or y.all():
        return float("nan")
    negatives = np.sort(s[~y])[::-1]
    allowed = int(np.floor(fpr * len(negatives) + 1e-9))
    return float((s[y] > negatives[allowed]).mean()) if allowed < len(negatives) else 1.0


def balanced_accuracy(flags: ArrayLike, labels: ArrayLike) -> float:
    """Mean of the share of synthetic flagged and the share of authentic not flagged."""
    f, y = np.asarray(flags, bool), np.asarray(labels, bool)
    return float((f[y].mean() + (~f[~y]).mean()) / 2) if y.any() and not y.all() else float("nan")


def ece(scores: ArrayLike, labels: ArrayLike, n_bins: int = 15) -> float:
    """Expected calibration error over equally wide bins, each class weighing one half.

    Source: Guo et al., On calibration of modern neural networks, arXiv 1706.04599; class-balanced because scores are
    for a prior of one half.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if not y.any() or y.all():
        return float("nan")
    weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    bins = np.minimum((s * n_bins).astype(int), n_bins - 1)
    total = np.bincount(bins, weight, n_bins)
    gap = np.bincount(bins, weight * s, n_bins) - np.bincount(bins, weight * y, n_bins)
    return float(np.abs(gap).sum() / total.sum())


def ece_if_calibrated(
    scores: ArrayLike, labels: ArrayLike, n_bins: int = 15, n: int = 300, seed: int = 0
) -> Interval:
    """The ECE that scores like these would have on so few pictures if every one of them were true.

    Bins of few pictures differ from their mean score by chance, and ECE adds up the sizes of these differences: it is
    never 0 (Kumar et al., Verified uncertainty calibration, arXiv 1909.10155). An ECE within this interval says no more
    than that the set is too small to find fault. Scores are drawn with each class weighing one half, and a label for
    each by its score.

    Args:
        scores: (N,) 0..1.
        labels: (N,) 1 synthetic, 0 authentic.
        n_bins: as of `ece`.
        n: draws.
        seed: of the draws.

    Returns:
        Mean and the middle 95 % of the draws; NaN for one class alone.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if not y.any() or y.all():
        return Interval(float("nan"), float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    weight = np.where(y, 0.5 / y.sum(), 0.5 / (~y).sum())
    found = []
    for _ in range(n):
        drawn = s[rng.choice(len(s), len(s), p=weight)]
        found.append(ece(drawn, rng.random(len(s)) < drawn, n_bins))
    low, high = np.nanquantile(found, (0.025, 0.975))
    return Interval(float(np.nanmean(found)), float(low), float(high))


def bootstrap(
    metric: Metric,
    scores: ArrayLike,
    labels: ArrayLike,
    sources: Sequence[str],
    n: int = 1000,
    seed: int = 0,
    is_biased: bool = False,
) -> Interval:
    """A metric with its 95 % interval over sources.

    Sources are drawn with replacement (class by class, so that both stay present), with all their pictures.

    Args:
        metric: of (scores, labels).
        scores: (N,) one a picture.
        labels: (N,) 1 synthetic, 0 authentic.
        sources: (N,) the unit of drawing.
        n: draws.
        seed: of the draws.
        is_biased: the metric of a resample lies beside that of its set on the whole, as the ECE does (repeated
            pictures make its bins noisier, and each gap counts with its size): the draws then give the interval's
            width, and their mean, moved onto the value, its place. It ends at 0.
    """
    found = bootstrap_all(
        {"it": (metric, metric)}, scores, labels, sources, n, seed, {"it"} if is_biased else ()
    )
    return found["it"]


def bootstrap_all(
    asked: Mapping[str, tuple[Metric, Metric]],
    scores: ArrayLike,
    labels: ArrayLike,
    sources: Sequence[str],
    n: int = 1000,
    seed: int = 0,
    is_biased: Collection[str] = (),
) -> dict[str, Interval]:
    """Several metrics with their intervals, all from the same draws; each comes out as `bootstrap` alone gives it.

    Args:
        asked: name -> the metric, and what gives the same number quicker for the draws (or itself again).
        scores: see bootstrap, as the rest.
        labels: (N,).
        sources: (N,).
        n: draws.
        seed: of the draws.
        is_biased: names of those that `bootstrap` would be told to be.
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, bool)
    units: list[list[NDArray[np.int64]]] = []
    for wanted in (True, False):
        groups: dict[str, list[int]] = {}
        for i in np.flatnonzero(y == wanted).tolist():
            groups.setdefault(sources[i], []).append(i)
        units.append([np.array(group, np.int64) for _, group in sorted(groups.items())])
    rng = np.random.default_rng(seed)
    values = {name: np.empty(n) for name in asked}
    for k in range(n):
        picks = [unit[j] for unit in units if unit for j in rng.integers(len(unit), size=len(unit))]
        index = np.concatenate(picks)
        drawn_s, drawn_y = s[index], y[index]
        for name, (_, quick) in asked.items():
            values[name][k] = quick(drawn_s, drawn_y)
    found: dict[str, Interval] = {}
    for name, (metric, _) in asked.items():
        low, high = np.nanquantile(values[name], [0.025, 0.975])
        value = metric(s, y)
        if name in is_biased:
            shift = value - float(np.nanmean(values[name]))
            low, high = max(low + shift, 0.0), high + shift
        found[name] = Interval(value, float(low), float(high))
    return found
