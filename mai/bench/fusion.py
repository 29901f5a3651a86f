"""Fit how several networks are weighed together (mai/verdict/fuse.py), and say whether it is worth it.

logits     each network on the calibration split, aligned, as `mai export` calibrates
fit        logistic regression on them, each class weighing one half, no factor below zero
table      thresholds from fused scores that a fit on the other sources gave (five folds over sources)
worth      AUROC on the validation split against the best network alone, by paired draws of sources
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.errors import DataError, UsageError
from mai.measure import metrics
from mai.measure.calibrate import operating_table
from mai.verdict.fuse import key

if TYPE_CHECKING:
    from mai.data.labelled import LabelledSet
    from mai.weights import Weights

Array = NDArray[np.float64]
N_FOLDS = 5
DEFAULT_FPR, DEFAULT_FNR = 0.01, 0.05
RIDGE = 0.02
"""Pull of the standardised factors to their mean, per unit of the class-balanced loss: two networks that say the same
share the weight."""


def fit(x: Array, labels: NDArray[np.bool_], n_steps: int = 400) -> tuple[Array, float]:
    """Factors (K,), none below zero, and offset of the class-balanced logistic loss.

    Args:
        x: (N, K) logits of K networks.
        labels: (N,) True synthetic.
        n_steps: of projected gradient descent with a step that the curvature allows.

    Raises:
        DataError: a class is missing.
    """
    if not labels.any() or labels.all():
        raise DataError("A fusion needs both classes.")
    scale = x.std(axis=0) + 1e-9
    z = (x - x.mean(axis=0)) / scale
    weight = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    factors, offset = np.full(x.shape[1], 1 / x.shape[1]), 0.0
    step = 1 / (0.25 * (1 + float((weight[:, None] * z**2).sum())) + RIDGE)
    for _ in range(n_steps):
        p = 1 / (1 + np.exp(-np.clip(z @ factors + offset, -60, 60)))
        error = weight * (p - labels)
        gradient = z.T @ error + RIDGE * (factors - factors.mean())
        factors = np.maximum(factors - step * gradient, 0.0)
        offset -= step * float(error.sum())
    own = factors / scale
    return own, float(offset - own @ x.mean(axis=0))


def out_of_fold(x: Array, labels: NDArray[np.bool_], sources: Sequence[str], seed: int = 0) -> Array:
    """Fused scores (N,), each from a fit that saw no picture of its source."""
    names = sorted(set(sources))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[i]: k % N_FOLDS for k, i in enumerate(order.tolist())}
    folds = np.array([fold_of[source] for source in sources])
    scores = np.empty(len(x))
    for k in range(N_FOLDS):
        inside = folds == k
        if inside.any():
            factors, offset = fit(x[~inside], labels[~inside])
            scores[inside] = 1 / (1 + np.exp(-np.clip(x[inside] @ factors + offset, -60, 60)))
    return scores


def logits(
    weights: Sequence[Weights], labelled: LabelledSet, split: str
) -> tuple[Array, NDArray[np.bool_], list[str]]:
    """Logits (P, K), labels and sources of the pictures of a split that every network has scored."""
    from mai.images.views import ViewPlan
    from mai.training import evaluation
    from mai.training.shipping import session_logits, split_rows

    rows = split_rows(labelled, split)
    found: list[dict[str, float]] = []
    about: dict[str, tuple[int, str]] = {}
    for own in weights:
        plan = ViewPlan(**own.preprocessing)
        scored = evaluation.score_rows(rows, session_logits(own), plan, "aligned")
        found.append(dict(zip((p.image for p in scored.pictures), scored.logits(plan).tolist(), strict=True)))
        about |= {p.image: (p.label, p.source) for p in scored.pictures}
    common = sorted(set.intersection(*(set(each) for each in found)))
    x = np.array([[each[name] for each in found] for name in common])
    return x, np.array([bool(about[name][0]) for name in common]), [about[name][1] for name in common]


def fused(weights: Sequence[Weights], labelled: LabelledSet) -> dict[str, Any]:
    """An entry of fusion.json, with what it is worth under `measured`.

    Args:
        weights: two or more networks.
        labelled: a set with a calibration and, for `measured`, a validation split that none of them learnt from.

    Raises:
        UsageError: fewer than two networks, or one twice.
        DataError: a class is missing in the calibration split.
    """
    names = [own.name for own in weights]
    if len(set(names)) != len(names) or len(names) < 2:
        raise UsageError(f"A fusion weighs two or more different networks, not {', '.join(names) or 'none'}.")
    x, labels, sources = logits(weights, labelled, "calibration")
    factors, offset = fit(x, labels)
    scores = out_of_fold(x, labels, sources)
    n_sources = len(set(sources))
    table = operating_table(
        scores,
        labels,
        f"{labelled.name}, calibration split, aligned protocol, {n_sources} sources, out of fold",
    )
    entry: dict[str, Any] = {
        "coefficients": {name: round(float(f), 6) for name, f in zip(names, factors, strict=True)},
        "offset": round(offset, 6),
        "thresholds": table.to_dict(),
        "default": {
            "fpr": max(DEFAULT_FPR, table.synthetic[0].rate),
            "fnr": max(DEFAULT_FNR, table.authentic[0].rate),
        },
        "sha256": {own.name: own.config["sha256"] for own in weights},
    }
    if any(row.split == "validation" for row in labelled.rows):
        entry["measured"] = worth(logits(weights, labelled, "validation"), names, factors, offset)
    return entry


def worth(
    validation: tuple[Array, NDArray[np.bool_], list[str]],
    names: Sequence[str],
    factors: Array,
    offset: float,
) -> dict[str, Any]:
    """AUROC of each network and of the fusion, and what the fusion adds to the best one, with intervals."""
    from mai.bench.figures import paired_difference

    x, labels, sources = validation
    joint = x @ factors + offset
    alone = {
        name: metrics.bootstrap(metrics.quick_auroc, x[:, k], labels, sources, 500)
        for k, name in enumerate(names)
    }
    best = max(alone, key=lambda name: alone[name].value)
    gain = paired_difference(x[:, list(names).index(best)], joint, labels, sources, metrics.quick_auroc, 500)
    return {
        "n_synthetic": int(labels.sum()),
        "n_authentic": int((~labels).sum()),
        "auroc": {name: found.to_list() for name, found in alone.items()},
        "auroc_fused": metrics.bootstrap(metrics.quick_auroc, joint, labels, sources, 500).to_list(),
        "best_alone": best,
        "gain": gain,
        "is_worth_it": bool(gain[1] > 0),
    }


def write(entry: dict[str, Any], path: Path) -> str:
    """Put an entry into a fusion.json, beside others; returns its key."""
    name = key(list(entry["coefficients"]))
    entries = json.loads(path.read_text("utf-8")) if path.exists() else {}
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps({**entries, name: entry}, indent=1) + "\n", "utf-8")
    temporary.replace(path)
    return name
