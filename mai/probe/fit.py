"""The head: L2-penalised logistic regression (scikit-learn), its penalty chosen on sources that were left out.

Each class weighs one half; in a class a source of n pictures weighs n^(1 - power), as in training/sampler.py; in a
picture, whole views and crops weigh whole_share and 1 - whole_share.
"""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mai.errors import DataError, TrainingError, require
from mai.measure import metrics
from mai.probe.features import Samples
from mai.probe.recipe import HeadPlan

MOST_STEPS = 300


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head, on raw features.

    Attributes:
        weight: float64 (D,).
        bias: added after it.
        penalty: the one that was chosen.
        tried: penalty -> mean AUROC on left-out sources, a picture.
        left_out: `source`, or `picture` where a class has one source only.
    """

    weight: NDArray[np.float64]
    bias: float
    penalty: float
    tried: dict[float, float]
    left_out: str


def weigh(found: Samples, plan: HeadPlan) -> NDArray[np.float64]:
    """Weight of each sample, (N,); see the head of this module. Their mean is 1.

    Raises:
        DataError: a class has no picture.
    """
    label_of = np.zeros(len(found.images), np.int64)
    label_of[found.picture] = found.labels
    size = Counter(zip(label_of.tolist(), found.sources, strict=True))
    picture = np.array(
        [size[(int(y), s)] ** -plan.source_power for y, s in zip(label_of, found.sources, strict=True)]
    )
    is_whole = found.kinds == "whole"
    n = len(found.images)
    counts = [np.bincount(found.picture[side], minlength=n) for side in (~is_whole, is_whole)]
    share = np.where(is_whole, plan.whole_share, 1 - plan.whole_share)
    has_both = (counts[0] > 0) & (counts[1] > 0)
    share = np.where(has_both[found.picture], share, 1.0)
    own = np.where(is_whole, counts[1][found.picture], counts[0][found.picture])
    weight = picture[found.picture] * share / own
    for label, name in ((0, "authentic"), (1, "synthetic")):
        members = found.labels == label
        if not members.any():
            raise DataError(f"Training needs both classes; the training split has no {name} picture.")
        weight[members] *= len(weight) / 2 / weight[members].sum()
    return weight


def fit(found: Samples, plan: HeadPlan, seed: int = 0) -> Head:
    """Choose the penalty on left-out sources, then fit on all samples.

    Raises:
        DataError: a class has fewer than two pictures.
        TrainingError: the features are not finite numbers.
    """
    x = np.asarray(found.features, np.float32)
    if not np.isfinite(x).all():
        raise TrainingError("The backbone gave features that are no finite numbers (or too large for fp16).")
    weight = weigh(found, plan)
    mean = np.average(x, 0, weight).astype(np.float32)
    spread = np.sqrt(np.average((x - mean) ** 2, 0, weight)).astype(np.float32)
    spread[spread < 1e-6] = 1.0
    x = (x - mean) / spread
    tried, left_out = _choose(x, found, weight, plan, seed)
    best = max(tried, key=lambda penalty: (tried[penalty], penalty))
    model = _model(best)
    _fit(model, x, found.labels, weight)
    slope = model.coef_[0].astype(np.float64) / spread
    return Head(slope, float(model.intercept_[0]) - float(slope @ mean), best, tried, left_out)


def _model(penalty: float) -> Any:
    linear = require("sklearn.linear_model", "train", "Fitting a probe")
    return linear.LogisticRegression(
        C=1 / penalty, solver="lbfgs", max_iter=MOST_STEPS, tol=1e-3, warm_start=True
    )


def _fit(model: Any, x: NDArray[np.float32], y: NDArray[np.int64], weight: NDArray[np.float64]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # at the weakest penalties it stops before it has converged; that is fine
        model.fit(x, y, weight.astype(x.dtype))


def _choose(
    x: NDArray[np.float32], found: Samples, weight: NDArray[np.float64], plan: HeadPlan, seed: int
) -> tuple[dict[float, float], str]:
    """Mean AUROC a picture on left-out sources for each penalty. One draw of each view is enough to tell."""
    first = found.draw == 0
    groups, left_out = _groups_of(found)
    folds = _folds(found.labels[first], groups[found.picture[first]], plan.folds, seed)
    areas: dict[float, list[float]] = {penalty: [] for penalty in sorted(plan.penalties, reverse=True)}
    place = np.flatnonzero(first)
    for inside, outside in folds:
        model: Any = None
        for penalty, values in areas.items():
            model = model or _model(penalty)
            model.C = 1 / penalty  # from the strongest down, each starts where the one before ended
            _fit(model, x[place[inside]], found.labels[place[inside]], weight[place[inside]])
            held = place[outside]
            logits = x[held] @ model.coef_[0] + model.intercept_[0]
            values.append(_auroc(logits, found.labels[held], found.picture[held]))
    return {penalty: round(float(np.nanmean(values)), 4) for penalty, values in areas.items()}, left_out


def _groups_of(found: Samples) -> tuple[NDArray[np.int64], str]:
    label_of = np.zeros(len(found.images), np.int64)
    label_of[found.picture] = found.labels
    for names, unit in ((found.sources, "source"), (found.images, "picture")):
        index: dict[str, int] = {}
        groups = np.array([index.setdefault(name, len(index)) for name in names], np.int64)
        if min(len(set(groups[label_of == label].tolist())) for label in (0, 1)) >= 2:
            return groups, unit
    raise DataError("A probe needs at least two pictures of each class in the training split.")


def _folds(
    labels: NDArray[np.int64], groups: NDArray[np.int64], n_folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    selection = require("sklearn.model_selection", "train", "Fitting a probe")
    least = min(len(set(groups[labels == label].tolist())) for label in (0, 1))
    cut = selection.StratifiedGroupKFold(min(n_folds, least), shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            (inside, outside)
            for inside, outside in cut.split(np.zeros(len(labels)), labels, groups)
            if len(set(labels[inside].tolist())) == 2
        ]


def _auroc(logits: NDArray[Any], labels: NDArray[np.int64], picture: NDArray[np.int64]) -> float:
    names, place = np.unique(picture, return_inverse=True)
    mean = np.bincount(place, logits, len(names)) / np.bincount(place, minlength=len(names))
    truth = np.zeros(len(names), np.int64)
    truth[place] = labels
    return metrics.auroc(mean, truth)
