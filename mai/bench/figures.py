"""Scores -> figures: what a detector did on one protocol and one perturbation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mai.measure import metrics

LEAST_GROUP = 10
"""Groups of fewer pictures are listed, but are nobody's worst."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Whose scores they are.

    Attributes:
        names: (P,) of the pictures.
        labels: (P,) True synthetic.
        units: (P,) sources; the picture's own name where the set has none.
        generators: (P,) empty where not known.
        has_sources: whether intervals are over sources; over pictures otherwise.
    """

    names: list[str]
    labels: NDArray[np.bool_]
    units: list[str]
    generators: list[str]
    has_sources: bool


def answers(scores: NDArray[np.float64], threshold: float, authentic: float | None) -> NDArray[np.int64]:
    """1 called synthetic, 0 called authentic, -1 neither; (P,) -> (P,)."""
    called = np.full(len(scores), -1)
    called[scores <= authentic if authentic is not None else scores < threshold] = 0
    called[scores >= threshold] = 1
    return called


def measure(
    scores: NDArray[np.float64], who: Pictures, threshold: float, authentic: float | None, n_draws: int
) -> dict[str, Any]:
    """All figures of one cell as plain JSON values.

    A set of one class has recall or specificity only, never accuracy.

    Args:
        scores: (P,) 0..1.
        who: labels and sources of the same pictures.
        threshold: fixed before this set was seen.
        authentic: at or below which a picture is called authentic; None: all below `threshold`.
        n_draws: of the bootstrap.
    """
    y = who.labels
    called = answers(scores, threshold, authentic)
    result: dict[str, Any] = {
        "n_synthetic": int(y.sum()),
        "n_authentic": int((~y).sum()),
        "n_synthetic_sources": len({u for u, own in zip(who.units, y, strict=True) if own}),
        "n_authentic_sources": len({u for u, own in zip(who.units, y, strict=True) if not own}),
        "n_generators": len({g for g, own in zip(who.generators, y, strict=True) if own and g}),
        "interval_over": "sources" if who.has_sources else "pictures",
        "threshold": threshold,
        "threshold_authentic": authentic,
        "labelled": round(float((called >= 0).mean()), 4),
    }

    asked: dict[str, tuple[metrics.Metric, metrics.Metric]] = {}

    def ask(name: str, metric: metrics.Metric, quick: metrics.Metric | None = None) -> None:
        asked[name] = (metric, quick or metric)

    if y.any():
        ask("recall", lambda s, t: float((s[t] >= threshold).mean()))
    if not y.all():
        ask("flagged", lambda s, t: float((s[~t] >= threshold).mean()))
    if y.any() and not y.all():
        ask("balanced_accuracy", lambda s, t: metrics.balanced_accuracy(s >= threshold, t))
        ask("auroc", metrics.auroc, metrics.quick_auroc)
        ask("average_precision", metrics.average_precision, metrics.quick_average_precision)
        ask("tpr_at_1_fpr_oracle", lambda s, t: metrics.tpr_at_fpr(s, t, 0.01))
        ask("tpr_at_5_fpr_oracle", lambda s, t: metrics.tpr_at_fpr(s, t, 0.05))
        ask("eer_oracle", equal_error_rate)
        ask("ece", metrics.ece)
        ask("nll", negative_log_likelihood)
        ask("brier", brier)
    found = metrics.bootstrap_all(asked, scores, y, who.units, n_draws, is_biased={"ece"})
    result |= {name: interval.to_list() for name, interval in found.items()}
    groups = _groups(scores, who, threshold)
    result["groups"] = groups
    for label, name in (("synthetic", "worst_generator"), ("authentic", "worst_source")):
        kind = "generator" if label == "synthetic" else "source"
        own = [
            g for g in groups
            if g["label"] == label and g["kind"] == kind and g["n"] >= LEAST_GROUP and g["auroc"] is not None
        ]  # fmt: skip
        if own:
            result[name] = min(own, key=lambda g: g["auroc"])
    return result


def _groups(scores: NDArray[np.float64], who: Pictures, threshold: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for kind, names in (("generator", who.generators), ("source", who.units if who.has_sources else [])):
        if not names:
            continue
        for label in (True, False):
            members: dict[str, list[int]] = {}
            for i, name in enumerate(names):
                if name and who.labels[i] == label:
                    members.setdefault(name, []).append(i)
            others = scores[who.labels != label]
            for name, index in sorted(members.items(), key=lambda item: (-len(item[1]), item[0])):
                own = scores[index]
                hits = int((own >= threshold).sum())
                area = None
                if len(others) and len(own) >= LEAST_GROUP:
                    truth = np.r_[np.full(len(own), label), np.full(len(others), not label)]
                    area = round(metrics.auroc(np.r_[own, others], truth), 4)
                found.append(
                    {
                        "kind": kind,
                        "name": name,
                        "label": "synthetic" if label else "authentic",
                        "n": len(own),
                        "called_synthetic": metrics.wilson(hits, len(own)).to_list(),
                        "auroc": area,
                    }
                )
    return found


def equal_error_rate(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Where the share of authentic flagged equals that of synthetic missed, between the two nearest thresholds.

    An oracle figure: the threshold is chosen on the set it is measured on.
    """
    if not labels.any() or labels.all():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    s, y = scores[order], labels[order]
    last = np.flatnonzero(np.r_[s[1:] != s[:-1], True])
    missed = 1 - np.r_[0, np.cumsum(y)[last]] / y.sum()
    flagged = np.r_[0, np.cumsum(~y)[last]] / (~y).sum()
    i = int(np.argmax(flagged >= missed))
    gap = missed - flagged
    if i == 0 or gap[i - 1] == gap[i]:
        return float((missed[i] + flagged[i]) / 2)
    part = gap[i - 1] / (gap[i - 1] - gap[i])
    return float(flagged[i - 1] + part * (flagged[i] - flagged[i - 1]))


def _class_weights(labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    weights: NDArray[np.float64] = np.where(labels, 0.5 / max(labels.sum(), 1), 0.5 / max((~labels).sum(), 1))
    return weights


def negative_log_likelihood(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Mean of -ln p(label), natural logarithm, each class weighing one half; scores cut to 1e-7..1-1e-7."""
    p = np.clip(scores, 1e-7, 1 - 1e-7)
    return float((_class_weights(labels) * -np.log(np.where(labels, p, 1 - p))).sum())


def brier(scores: NDArray[np.float64], labels: NDArray[np.bool_]) -> float:
    """Mean squared difference of score and label, each class weighing one half (Brier, 1950)."""
    return float((_class_weights(labels) * (scores - labels) ** 2).sum())


def stability(
    before: NDArray[np.float64], after: NDArray[np.float64], threshold: float, authentic: float | None
) -> dict[str, Any]:
    """How labels change under a perturbation.

    Returns:
        flipped: share of all pictures whose label turned round (synthetic <-> authentic), with n and a 95 % interval;
        into or out of `inconclusive` does not count. labelled_before, labelled_after: share with a label.
    """
    one, two = answers(before, threshold, authentic), answers(after, threshold, authentic)
    turned = int(((one >= 0) & (two >= 0) & (one != two)).sum())
    return {
        "n": len(one),
        "flipped": metrics.wilson(turned, len(one)).to_list(),
        "labelled_before": round(float((one >= 0).mean()), 4),
        "labelled_after": round(float((two >= 0).mean()), 4),
        "mean_change": round(float(np.abs(after - before).mean()), 4),
    }


def paired_difference(
    one: NDArray[np.float64],
    two: NDArray[np.float64],
    labels: NDArray[np.bool_],
    units: Sequence[str],
    metric: metrics.Metric,
    n_draws: int = 1000,
    seed: int = 0,
) -> list[float]:
    """metric(two) - metric(one) on the same pictures, with its 95 % interval; both see the same drawn sources.

    Returns:
        value, low, high.
    """
    stacked: list[list[NDArray[np.int64]]] = []
    for wanted in (True, False):
        members: dict[str, list[int]] = {}
        for i in np.flatnonzero(labels == wanted).tolist():
            members.setdefault(units[i], []).append(i)
        stacked.append([np.array(group) for _, group in sorted(members.items())])
    rng = np.random.default_rng(seed)
    values = np.empty(n_draws)
    for k in range(n_draws):
        index = np.concatenate([u[j] for u in stacked if u for j in rng.integers(len(u), size=len(u))])
        values[k] = metric(two[index], labels[index]) - metric(one[index], labels[index])
    low, high = np.nanquantile(values, [0.025, 0.975])
    value = metric(two, labels) - metric(one, labels)
    return [round(float(v), 4) if math.isfinite(v) else float("nan") for v in (value, low, high)]
