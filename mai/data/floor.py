"""The leakage floor: how well a classifier that never sees a picture tells the classes apart.

A detector near its set's floor may have learned nothing else (Grommelt et al., Fake or JPEG?, arXiv 2403.17608).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mai.data.facts import FileFacts
from mai.data.labelled import Row
from mai.errors import require
from mai.measure.metrics import Interval, bootstrap

Column = NDArray[np.float64]

BYTES = ("bytes", "bytes per pixel")
"""Follow the detail of a picture, which a detector may see: reported, not judged."""

SHAPE = ("width", "height", "aspect", "square")
MAX_PICTURES = 20_000
N_FOLDS = 5
N_DRAWS = 300
"""Draws of the bootstrap: enough for two digits of an interval's ends."""

LEAST = 0.55
"""AUROC from which a single fact is worth a line."""

_PREDICATES = {"square": "are square", "lossless": "are lossless WebP"}
_VALUES = ("quality", "width", "height")
_VALUED = {
    "format": "are {}",
    "chroma": "have {} chroma",
    "quality": "have JPEG quality {}",
    "width": "are {} px wide",
    "height": "are {} px high",
}
_UNITS = {
    "width": "width is {:.0f} px",
    "height": "height is {:.0f} px",
    "aspect": "width is {:.2f} of the height",
    "quality": "JPEG quality is {:.0f}",
    "bytes": "size is {:,.0f} bytes",
    "bytes per pixel": "size is {:.3f} bytes a pixel",
}


@dataclass(frozen=True, slots=True)
class FactScore:
    """How far one fact alone gives the class away.

    Attributes:
        name: of the column.
        auroc: folded to .5 and more, with its interval over sources.
        words: the fact in plain words, for both classes.
        examples: pictures that show it, synthetic first.
        n_synthetic: synthetic pictures that have the fact.
        n_authentic: authentic ones.
    """

    name: str
    auroc: Interval
    words: str
    examples: tuple[Row, ...]
    n_synthetic: int
    n_authentic: int


def columns_of(facts: Sequence[FileFacts]) -> dict[str, Column]:
    """Facts as columns, float64 (N,); nan where a file has no such fact (JPEG quality of a PNG)."""
    width = np.array([f.width for f in facts], np.float64)
    height = np.array([f.height for f in facts], np.float64)
    n_bytes = np.array([f.n_bytes for f in facts], np.float64)
    columns = {
        "width": width,
        "height": height,
        "aspect": width / height,
        "square": (width == height).astype(np.float64),
        "quality": np.array([np.nan if f.quality is None else f.quality for f in facts], np.float64),
        "lossless": np.array([bool(f.is_lossless) for f in facts], np.float64),
        "bytes": n_bytes,
        "bytes per pixel": n_bytes / (width * height),
    }
    for name in sorted({f.format for f in facts}):
        columns[f"format {name}"] = np.array([f.format == name for f in facts], np.float64)
    for name in sorted({f.subsampling for f in facts if f.subsampling}):
        columns[f"chroma {name}"] = np.array([f.subsampling == name for f in facts], np.float64)
    return columns


def floor(
    columns: Mapping[str, Column], labels: NDArray[np.bool_], units: Sequence[str], seed: int = 0
) -> Interval | None:
    """AUROC of gradient boosting on the columns, cross-validated, with an interval over sources.

    All pictures of a source lie in one fold, as far as each class has two sources; one score a picture.

    Args:
        columns: name -> (N,).
        labels: (N,) True synthetic.
        units: (N,) sources.
        seed: of folds and draws.

    Returns:
        None where a class has fewer than two pictures, so that nothing can be held out.
    """
    if min(labels.sum(), (~labels).sum()) < 2:
        return None
    telling = [np.nan_to_num(column, nan=-1.0) for column in columns.values()]
    telling = [column for column in telling if (column != column[0]).any()]
    if not telling:
        return Interval(0.5, 0.5, 0.5)
    x = np.stack(telling, axis=1)
    scores = _held_out_scores(x, labels, np.asarray(units), seed)
    return bootstrap(auroc, scores, labels, units, n=N_DRAWS, seed=seed)


def _held_out_scores(
    x: NDArray[np.float64], labels: NDArray[np.bool_], units: NDArray[np.str_], seed: int
) -> Column:
    selection = require("sklearn.model_selection", "train", "The leakage test")
    ensemble = require("sklearn.ensemble", "train", "The leakage test")
    threads = require("threadpoolctl", "train", "The leakage test")
    n_units = min(len(set(units[labels])), len(set(units[~labels])))
    if n_units >= 2:
        folds = selection.StratifiedGroupKFold(min(N_FOLDS, n_units), shuffle=True, random_state=seed)
    else:
        n_folds = min(N_FOLDS, int(min(labels.sum(), (~labels).sum())))
        folds = selection.StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    scores = np.full(len(labels), 0.5)
    for train, test in folds.split(x, labels, units):
        y = labels[train]
        if y.all() or not y.any():
            continue
        model = ensemble.HistGradientBoostingClassifier(
            max_iter=40,
            max_leaf_nodes=8,
            min_samples_leaf=int(np.clip(len(train) // 25, 3, 20)),
            early_stopping=False,
            class_weight="balanced",
            random_state=seed,
        )
        # On cores that others use, the threads of these small models wait for one another: 36 times slower.
        with threads.threadpool_limits(1):
            scores[test] = model.fit(x[train], y).predict_proba(x[test])[:, 1]
    return scores


def auroc(scores: Column, labels: NDArray[np.bool_]) -> float:
    """Area under the ROC curve by ranks (Mann and Whitney, 1947); nan when a class is missing.

    Equal to scikit-learn's, in a tenth of its time: an audit asks for it some ten thousand times.
    """
    stats = require("scipy.stats", "train", "The leakage test")
    n_synthetic = int(labels.sum())
    n_authentic = len(labels) - n_synthetic
    if not n_synthetic or not n_authentic:
        return float("nan")
    above = stats.rankdata(scores)[labels].sum() - n_synthetic * (n_synthetic + 1) / 2
    return float(above / (n_synthetic * n_authentic))


def telling_facts(
    columns: Mapping[str, Column], labels: NDArray[np.bool_], rows: Sequence[Row], n: int = 3
) -> tuple[FactScore, ...]:
    """The single facts that give the class away most, at most one of a kind, the worst first.

    Bytes are left out: they follow a picture's detail. So are facts under LEAST.

    Args:
        columns: name -> (N,).
        labels: (N,) True synthetic.
        rows: (N,).
        n: most facts returned.
    """
    candidates = {name: column for name, column in columns.items() if name not in BYTES}
    candidates |= _single_values(columns)
    ranked = sorted(((_folded(column, labels), name) for name, column in candidates.items()), reverse=True)
    found: list[FactScore] = []
    kinds: set[str] = set()
    for value, name in ranked:
        kind = name.split()[0]
        kind = {"square": "aspect", "height": "width"}.get(kind, kind)
        if len(found) == n or value < LEAST:
            break
        if kind not in kinds:
            kinds.add(kind)
            found.append(_fact_score(name, candidates[name], labels, rows))
    return tuple(found)


def _single_values(columns: Mapping[str, Column], n: int = 5) -> dict[str, Column]:
    """The commonest values of a number as facts of their own: one program saves all it makes at quality 93."""
    found: dict[str, Column] = {}
    for name in _VALUES:
        values, counts = np.unique(columns[name][~np.isnan(columns[name])], return_counts=True)
        for i in np.argsort(-counts, kind="stable")[:n]:
            found[f"{name} {values[i]:.0f}"] = (columns[name] == values[i]).astype(np.float64)
    return found


def _folded(column: Column, labels: NDArray[np.bool_]) -> float:
    known = ~np.isnan(column)
    value = auroc(column[known], labels[known])
    return 0.5 if np.isnan(value) else max(value, 1 - value)


def _fact_score(name: str, column: Column, labels: NDArray[np.bool_], rows: Sequence[Row]) -> FactScore:
    known = np.flatnonzero(~np.isnan(column))
    x, y = column[known], labels[known]
    in_order: Sequence[int] = known.tolist()
    sign = 1.0 if auroc(x, y) >= 0.5 else -1.0
    interval = bootstrap(auroc, sign * x, y, [rows[i].unit for i in in_order], n=N_DRAWS)
    synthetic, authentic = x[y], x[~y]
    if name in _UNITS:
        says = _UNITS[name]
        middle = float(np.median(synthetic)), float(np.median(authentic))
        figure = says.split(" is ")[1].format(middle[1])
        words = f"the median {says.format(middle[0])} for synthetic, {figure} for authentic"
        targets = middle
    else:
        kind, _, value = name.partition(" ")
        predicate = _PREDICATES.get(name) or _VALUED[kind].format(value)
        words = (
            f"{synthetic.mean():.0%} of synthetic pictures {predicate}, {authentic.mean():.0%} of authentic"
        )
        targets = (1.0, 0.0) if sign > 0 else (0.0, 1.0)
    examples: list[Row] = []
    for target, of_class in zip(targets, (np.flatnonzero(y), np.flatnonzero(~y)), strict=True):
        nearest = of_class[np.argsort(np.abs(x[of_class] - target), kind="stable")]
        examples += _of_several_sources([rows[in_order[i]] for i in nearest[:200]])
    return FactScore(name, interval, words, tuple(examples), int(y.sum()), int((~y).sum()))


def _of_several_sources(rows: Sequence[Row], n: int = 4) -> list[Row]:
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.unit, row)
    return [*first.values(), *(row for row in rows if first[row.unit] is not row)][:n]
