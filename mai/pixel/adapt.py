"""`mai adapt pixel`: tune the head on a few dozen pictures, and keep what it knew.

Only the linear head changes: weight (D,) and bias, by

    sum over new pictures   strength * cross-entropy                  learn what the pictures show
  + mean over remembered    (new logit - old logit)^2 / 2             answer as before on what was known
  + RIDGE * |change|^2 / 2                                            and move little

The pictures are augmented as in training (re-saved, rescaled, cut). How strongly they pull is chosen by
cross-validation over their sources, among the strengths that cost the known pictures of the calibration split little
(AUROC_COST, RECALL_COST). The calibration and all thresholds are fitted anew. Holding old answers while learning new
ones is Li & Hoiem, Learning without forgetting, arXiv 1606.09282, with stored features in place of old pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mai.errors import DataError, require
from mai.images.views import ViewPlan
from mai.measure.calibrate import Calibration, OperatingTable, fit_platt, operating_table
from mai.measure.metrics import auroc
from mai.pixel.head import Features, picture_feature
from mai.pixel.memory import Remembered

if TYPE_CHECKING:
    from mai.data.sources import Row
    from mai.types import Pixels

Array = NDArray[np.float64]

STRENGTHS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
RIDGE = 0.003
AUROC_COST = 0.01
"""Most AUROC that the known pictures may lose."""
RECALL_COST = 0.02
"""Most recall that the known synthetic pictures may lose at KNOWN_FPR."""
KNOWN_FPR = 0.05
"""Where that recall is measured: the threshold for 1 % rests on three of some hundred pictures, and moves with each."""
N_VARIANTS = 6
"""Augmented copies of each new picture beside the picture itself."""
N_FOLDS = 5
LEAST = 8
"""Fewest new pictures: with fewer, cross-validation says nothing."""


@dataclass(frozen=True, slots=True)
class New:
    """The user's pictures.

    Attributes:
        plain: float64 (N, D) features of the pictures as they are.
        variants: float64 (N, V, D) features of augmented copies.
        labels: int64 (N,) 1 synthetic, 0 authentic.
        units: (N,) source, or the picture's own name: what cross-validation keeps together.
        broken: file -> sentence, left out.
    """

    plain: Array
    variants: Array
    labels: NDArray[np.int64]
    units: list[str]
    broken: dict[str, str]


@dataclass(frozen=True, slots=True)
class Figures:
    """How a head does, at its default threshold.

    Attributes:
        known_auroc: on the remembered calibration pictures.
        known_recall: share of their synthetic ones at or above the threshold for KNOWN_FPR.
        new_auroc: new pictures against the remembered ones of the other class, the mean over classes.
        new_caught: new synthetic pictures called synthetic.
        new_flagged: new authentic pictures called synthetic.
    """

    known_auroc: float
    known_recall: float
    new_auroc: float
    new_caught: int
    new_flagged: int


@dataclass(frozen=True, slots=True)
class Adapted:
    """The outcome.

    Attributes:
        weight: float64 (D,), the new head.
        bias: the same.
        strength: how strongly the new pictures pull; 0: nothing changed, as nothing helped within the limits.
        calibration: logit -> score.
        table: thresholds by error rate.
        before: figures of the old head.
        after: figures of the new one; those of the new pictures by cross-validation.
        n_synthetic: new synthetic pictures.
        n_authentic: new authentic pictures.
    """

    weight: Array
    bias: float
    strength: float
    calibration: Calibration
    table: OperatingTable
    before: Figures
    after: Figures
    n_synthetic: int
    n_authentic: int


def read_new(rows: Sequence[Row], run: Features, plan: ViewPlan, seed: int = 0) -> New:
    """Features of the user's pictures and of augmented copies.

    Args:
        rows: labelled rows; whole files give whole and native views, as in use.
        run: Head.features.
        plan: which views are made.
        seed: of the draws.

    Raises:
        DataError: fewer than LEAST can be read.
    """
    from mai.data.augment import Augmentation, augment
    from mai.data.store import views_of
    from mai.training.evaluation import decoded, views_of_row

    how = Augmentation()
    broken: dict[str, str] = {}
    views: dict[str, dict[str, list[Pixels]]] = {}
    stored: dict[str, dict[str, Pixels]] = {}
    facts: dict[str, tuple[int, str]] = {}
    for row, pixels in decoded(rows, broken):
        whole, native = views_of_row(row, pixels, plan, "native")
        known = views.setdefault(row.image, {"whole": [], "native": []})
        known["whole"] += whole
        known["native"] += native
        stored.setdefault(row.image, {}).update(views_of(row, pixels))
        facts[row.image] = (row.label, row.unit)
    plain, variants = [], []
    for number, image in enumerate(views):
        plain.append(picture_feature(run, views[image]["whole"], views[image]["native"], plan))
        made = []
        for copy in range(N_VARIANTS):
            drawn = {
                kind: [augment(view, np.random.default_rng([seed, number, copy]), plan.side(kind), how)]
                for kind, view in stored[image].items()
            }
            made.append(picture_feature(run, drawn.get("whole", []), drawn.get("crop", []), plan))
        variants.append(made)
    labels, units = [facts[image][0] for image in views], [facts[image][1] for image in views]
    if len(plain) < LEAST:
        told = f" ({len(broken)} could not be read: {next(iter(broken.values()))})" if broken else ""
        raise DataError(
            f"{len(plain)} pictures can be read{told}; adapting needs at least {LEAST}, better some dozens."
        )
    return New(np.array(plain), np.array(variants), np.array(labels, np.int64), units, broken)


class Fitter:
    """Fits heads on parts of the new pictures; what does not depend on the part is computed once.

    With A = mean outer product of the remembered features + RIDGE and R R^T = A, what is held is |R^T change|^2 / 2:
    a logistic regression with a plain ridge, whose minimum lies in the span of the new rows. So as many numbers are
    sought as there are rows, not D of them over all that is remembered.

    Args:
        features: (N, D) of new pictures and their copies.
        labels: (N,) 1 synthetic, 0 authentic.
        memory: (M, D) features of remembered pictures.
        weight: (D,), the old head.
        bias: the same.
    """

    def __init__(self, features: Array, labels: Array, memory: Array, weight: Array, bias: float) -> None:
        linalg = require("scipy.linalg", "train", "Adapting")
        x = np.hstack([features, np.ones((len(features), 1))])
        m = np.hstack([memory, np.ones((len(memory), 1))])
        self._labels, self._weight, self._bias = labels, weight, bias
        self._old = x @ np.append(weight, bias)
        self._root = linalg.cholesky(m.T @ m / len(m) + RIDGE * np.eye(x.shape[1]), lower=True)
        self._span, rows = np.linalg.qr(linalg.solve_triangular(self._root, x.T, lower=True))
        self._rows = np.ascontiguousarray(rows.T)

    def fit(self, chosen: NDArray[np.bool_], strength: float) -> tuple[Array, float]:
        """The head that the sum at the head of this module is smallest for.

        Args:
            chosen: (N,) which of the new rows count.
            strength: weight of these, all together.
        """
        if strength == 0:
            return self._weight, self._bias
        linalg = require("scipy.linalg", "train", "Adapting")
        optimize = require("scipy.optimize", "train", "Adapting")
        rows, old, labels = self._rows[chosen], self._old[chosen], self._labels[chosen]
        counts = np.maximum(np.bincount(labels.astype(int), minlength=2), 1)
        share = strength / counts[labels.astype(int)] / max(1, len(np.unique(labels)))

        def loss(moved: Array) -> tuple[float, Array]:
            z = old + rows @ moved
            p = 1 / (1 + np.exp(-np.clip(z, -500, 500)))
            value = share @ (np.logaddexp(0, z) - labels * z) + moved @ moved / 2
            return float(value), rows.T @ (share * (p - labels)) + moved

        found = optimize.minimize(
            loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500}
        )
        change = linalg.solve_triangular(self._root, self._span @ found.x, trans="T", lower=True)
        return self._weight + change[:-1], self._bias + float(change[-1])


def adapt(
    new: New, memory: dict[str, Remembered], weight: Array, bias: float, fpr: float, data: str
) -> Adapted:
    """Choose the strength, fit the head, and measure before and after.

    Args:
        new: the user's pictures.
        memory: what memory.read returned.
        weight: (D,), the old head.
        bias: the same.
        fpr: false-positive rate of the default threshold.
        data: what the thresholds were measured on, for people.
    """
    known, held = memory["calibration"], memory["train"].features
    folds = _folds(new.units)
    n_copies = 1 + new.variants.shape[1]
    fitter = Fitter(*_copies(new), held, weight, bias)

    def known_figures(w: Array, b: float) -> tuple[float, float, Calibration, OperatingTable]:
        logits = known.features @ w + b
        calibration = fit_platt(logits, known.labels)
        scores = np.array([calibration.score(z) for z in logits])
        table = operating_table(scores, known.labels, data)
        recall = float((scores[known.labels == 1] >= table.at_fpr(max(fpr, KNOWN_FPR)).score).mean())
        return auroc(scores, known.labels), recall, calibration, table

    def caught(z: Array, calibration: Calibration, table: OperatingTable) -> NDArray[np.bool_]:
        return np.array([calibration.score(value) >= table.at_fpr(fpr).score for value in z])

    def against_known(z: Array, labels: NDArray[np.int64], w: Array, b: float) -> list[float]:
        """AUROC of the new pictures of each class that there is against the remembered ones of the other."""
        theirs = known.features @ w + b
        areas = []
        for y in np.unique(labels):
            both = np.concatenate([z[labels == y], theirs[known.labels != y]])
            truth = np.concatenate([labels[labels == y], known.labels[known.labels != y]])
            areas.append(auroc(both, truth))
        return areas

    def crossed(strength: float) -> tuple[NDArray[np.bool_], float, float]:
        """Whether each new picture is called synthetic by a head that it had no part in; AUROC and log loss of them."""
        called = np.zeros(len(new.labels), bool)
        cost = np.zeros(len(new.labels))
        areas: list[float] = []
        for out in folds:
            w, b = fitter.fit(np.repeat(~out, n_copies), strength)
            _, _, calibration, table = known_figures(w, b)
            z = new.plain[out] @ w + b
            called[out] = caught(z, calibration, table)
            areas += against_known(z, new.labels[out], w, b)
            scaled = calibration.slope * z + calibration.offset
            cost[out] = np.logaddexp(0, scaled) - new.labels[out] * scaled
        mean_cost = float(np.mean([cost[new.labels == y].mean() for y in np.unique(new.labels)]))
        return called, float(np.mean(areas)), mean_cost

    area, recall, calibration, table = known_figures(weight, bias)
    z = new.plain @ weight + bias
    new_area = float(np.mean(against_known(z, new.labels, weight, bias)))
    before = _figures(area, recall, new_area, caught(z, calibration, table), new.labels)
    best: tuple[float, Adapted] | None = None
    for strength in STRENGTHS:
        w, b = fitter.fit(np.ones(len(new.labels) * n_copies, bool), strength)
        if auroc(known.features @ w + b, known.labels) < area - AUROC_COST:
            continue
        kept_area, kept_recall, calibration, table = known_figures(w, b)
        if kept_recall < recall - RECALL_COST:
            continue
        try:
            called, new_area, cost = crossed(strength)
        except DataError:  # without a fold it forgets so much that it cannot be calibrated
            continue
        after = _figures(kept_area, kept_recall, new_area, called, new.labels)
        n = int(new.labels.sum())
        made = Adapted(w, b, strength, calibration, table, before, after, n, len(new.labels) - n)
        if best is None or cost < best[0]:
            best = (cost, made)
    assert best is not None  # strength 0 changes nothing and is within the limits
    return best[1]


def _copies(new: New) -> tuple[Array, Array]:
    """Pictures, each followed by its copies, (N * (1 + V), D), with their labels."""
    both = np.concatenate([new.plain[:, None], new.variants], axis=1)
    labels = np.repeat(new.labels, both.shape[1]).astype(np.float64)
    return both.reshape(-1, both.shape[2]), labels


def _folds(units: Sequence[str]) -> list[NDArray[np.bool_]]:
    """Masks of pictures left out together: whole sources, or pictures where there are fewer than N_FOLDS sources."""
    names = list(units) if len(set(units)) >= N_FOLDS else [str(i) for i in range(len(units))]
    order = {name: i for i, name in enumerate(sorted(set(names)))}
    number = np.array([order[name] % N_FOLDS for name in names])
    return [number == fold for fold in range(N_FOLDS) if (number == fold).any()]


def _figures(
    area: float, recall: float, new_area: float, called: NDArray[np.bool_], labels: NDArray[np.int64]
) -> Figures:
    return Figures(area, recall, new_area, int(called[labels == 1].sum()), int(called[labels == 0].sum()))
