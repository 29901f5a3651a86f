"""Calibrating a detector, and fitting how it weighs beside others, on a labelled set that nothing was trained on.

Scores of a picture: networks of MAI look at their views (mai/training/evaluation.py), classifiers of the hub at the
picture as their own processor prepares it. Under the aligned protocol both classes go through the same drawn window,
size and codec first, so that a threshold does not rest on how a set stores its classes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mai.data.augment import aligned, draw_name
from mai.data.labelled import LabelledSet, Row
from mai.data.store import decode_row
from mai.detectors.base import Detector
from mai.errors import DataError, ImageError, UsageError, require
from mai.measure.calibrate import (
    DEFAULT_FNR,
    DEFAULT_FPR,
    Calibration,
    fit_platt,
    least_rate,
    operating_table,
)
from mai.training import evaluation
from mai.verdict.fuse import Fusion, key
from mai.weights import Weights

Protocol = Literal["aligned", "native"]
VIEW_PX = 224
"""Side that aligned rows become which are whole views already (a short side of 240 px in MAI's own corpus)."""
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Looked:
    """What detectors said of the same pictures.

    Attributes:
        images: (P,) names.
        labels: (P,) 1 synthetic, 0 authentic.
        sources: (P,) units of leaving out and of bootstraps.
        logits: name -> float64 (P,).
        broken: file -> sentence.
    """

    images: list[str]
    labels: NDArray[np.int64]
    sources: list[str]
    logits: dict[str, NDArray[np.float64]]
    broken: dict[str, str]


def rows_for(labelled: LabelledSet) -> tuple[list[Row], str]:
    """The rows to calibrate on, and what to call them: the calibration split, or a whole set without splits.

    Raises:
        UsageError: the set has splits, and none of them is for calibration.
    """
    has_splits = any(row.split for row in labelled.rows)
    rows = [row for row in labelled.rows if not has_splits or row.split == "calibration"]
    if not rows:
        raise UsageError(
            f"'{labelled.name}' has splits and none is 'calibration': calibrating on pictures that something was "
            "trained or measured on makes thresholds that do not hold. Run `mai data split`, or give another set."
        )
    plain = [row for row in rows if row.view != "web"]
    return plain or rows, "calibration split" if has_splits else "all pictures"


def look(detectors: Mapping[str, Detector], rows: Sequence[Row], protocol: Protocol) -> Looked:
    """Ask networks about labelled pictures; pictures that one of them could not see are left out.

    Args:
        detectors: by any names; two may be of one architecture.
        rows: of the pictures.
        protocol: see the head of this module.

    Raises:
        UsageError: a detector is no network.
        DataError: no picture could be read.
    """
    found: dict[str, dict[str, float]] = {}
    broken: dict[str, str] = {}
    for name, detector in detectors.items():
        if hasattr(detector, "session"):
            scored = evaluation.score_rows(rows, detector.session.logits, detector.plan, protocol)  # type: ignore[attr-defined]
            values = dict(zip([p.image for p in scored.pictures], scored.logits(detector.plan), strict=True))  # type: ignore[attr-defined]
            found[name] = {image: float(value) for image, value in values.items()}
            broken |= scored.broken
        elif hasattr(detector, "logit"):
            found[name] = _whole_pictures(detector, rows, protocol, broken)
        else:
            raise UsageError(f"'{name}' has no score of its own that could be calibrated.")
    facts = {row.image: row for row in rows}
    images = [image for image in facts if all(image in values for values in found.values())]
    if not images:
        raise DataError(f"No picture could be scored: {next(iter(broken.values()), 'the set is empty')}")
    return Looked(
        images,
        np.array([facts[image].label for image in images], np.int64),
        [facts[image].unit for image in images],
        {name: np.array([values[image] for image in images]) for name, values in found.items()},
        broken,
    )


def _whole_pictures(
    detector: Any, rows: Sequence[Row], protocol: Protocol, broken: dict[str, str]
) -> dict[str, float]:
    """Mean logit of each picture's files; crops only where a picture has nothing else."""
    has_whole = {row.image for row in rows if row.view != "crop"}
    sums: dict[str, list[float]] = {}
    for row in rows:
        if row.view == "crop" and row.image in has_whole:
            continue
        try:
            pixels = decode_row(row)
        except ImageError as error:
            broken[row.file] = str(error)
            continue
        if protocol == "aligned":
            seed = zlib.crc32(f"{draw_name(row.image)}:{row.view or ''}".encode())
            side = VIEW_PX if row.view in ("whole", "crop") else evaluation.ALIGNED_FILE_PX
            pixels, _ = aligned(pixels, np.random.default_rng([0, seed]), side)
        sums.setdefault(row.image, []).append(detector.logit(pixels))
    return {image: float(np.mean(values)) for image, values in sums.items()}


def calibrated(logits: NDArray[np.float64], labels: NDArray[np.int64], data: str) -> dict[str, Any]:
    """`calibration`, `thresholds` and `default` of a config.json.

    Raises:
        DataError: a class is missing, the logit does not rise with the label, or there are too few pictures.
    """
    calibration = fit_platt(logits, labels)
    table = operating_table([calibration.score(float(z)) for z in logits], labels, data)
    return {
        "calibration": calibration.to_dict(),
        "thresholds": table.to_dict(),
        "default": {
            "fpr": least_rate(table.synthetic, DEFAULT_FPR),
            "fnr": least_rate(table.authentic, DEFAULT_FNR),
        },
    }


@dataclass(frozen=True, slots=True)
class Fused:
    """A fitted fusion with what it is worth.

    Attributes:
        fusion: None where a network adds nothing (its factor would be negative).
        useless: networks that add nothing.
        scores: float64 (P,), each of a fit that had not seen the picture's source.
    """

    fusion: Fusion | None
    useless: tuple[str, ...]
    scores: NDArray[np.float64]


def fit_fusion(looked: Looked, weights: Mapping[str, Weights], data: str, seed: int = 0) -> Fused:
    """Fit how several networks weigh together; thresholds come from scores of left-out sources.

    Args:
        looked: their logits of the calibration pictures.
        weights: name in `looked` -> its weights, of those that are fused.
        data: what the pictures are, for people.
        seed: of the folds.

    Raises:
        DataError: a class has fewer than two sources and pictures, or a part of the sources holds all of one.
    """
    names = list(weights)
    x = np.stack([looked.logits[name] for name in names], 1)
    scores = _left_out_scores(x, looked, seed)
    factors, offset = _fit(x, looked.labels)
    useless = tuple(name for name, factor in zip(names, factors, strict=True) if factor <= 0)
    if useless:
        return Fused(None, useless, scores)
    table = operating_table(scores, looked.labels, f"{data}, cross-fitted by source in {FOLDS} parts")
    fusion = Fusion(
        {weights[name].name: float(factor) for name, factor in zip(names, factors, strict=True)},
        offset,
        table,
        least_rate(table.synthetic, DEFAULT_FPR),
        least_rate(table.authentic, DEFAULT_FNR),
        {own.name: str(own.config.get("sha256")) for own in weights.values()},
    )
    return Fused(fusion, (), scores)


def _fit(x: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Factors (K,) on raw logits and the offset, at a prior of one half: log loss with each class weighing alike."""
    linear = require("sklearn.linear_model", "train", "Fitting a fusion")
    mean, spread = x.mean(0), x.std(0)
    spread[spread < 1e-9] = 1.0
    model = linear.LogisticRegression(C=1.0, class_weight="balanced").fit((x - mean) / spread, labels)
    factors: NDArray[np.float64] = model.coef_[0] / spread
    return factors, float(model.intercept_[0] - factors @ mean)


def _left_out_scores(x: NDArray[np.float64], looked: Looked, seed: int) -> NDArray[np.float64]:
    selection = require("sklearn.model_selection", "train", "Fitting a fusion")
    groups = np.unique(looked.sources, return_inverse=True)[1]
    least = min(len(set(groups[looked.labels == label].tolist())) for label in (0, 1))
    if least < 2:
        groups, least = np.arange(len(groups)), min(np.bincount(looked.labels, minlength=2))
    if least < 2:
        raise DataError("Fitting a fusion needs at least two pictures of each class.")
    cut = selection.StratifiedGroupKFold(min(FOLDS, int(least)), shuffle=True, random_state=seed)
    scores = np.empty(len(x))
    for inside, outside in cut.split(x, looked.labels, groups):
        if len(set(looked.labels[inside].tolist())) < 2:
            raise DataError(
                "The sources cannot be divided so that each part leaves both classes: give more sources of each class."
            )
        factors, offset = _fit(x[inside], looked.labels[inside])
        scores[outside] = [Calibration(1.0, offset).score(float(z)) for z in x[outside] @ factors]
    return scores


def fusion_entry(fusion: Fusion) -> tuple[str, dict[str, Any]]:
    """A fusion as it stands in fusion.json: key and value."""
    return key(list(fusion.coefficients)), {
        "coefficients": dict(fusion.coefficients),
        "offset": fusion.offset,
        "thresholds": fusion.table.to_dict(),
        "default": {"fpr": fusion.fpr, "fnr": fusion.fnr},
        "sha256": dict(fusion.sha256),
    }


def write_entry(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Put one fusion into a fusion.json beside those that stand there; the file appears whole or not at all.

    Raises:
        DataError: what stands there is no JSON object.
    """
    try:
        entries = json.loads(path.read_text("utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): fitted fusions cannot be added to it.") from error
    if not isinstance(entries, dict):
        raise DataError(f"{path} holds no fusions by their names: fitted ones cannot be added to it.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({**entries, name: entry}, indent=1) + "\n", "utf-8")
    temporary.replace(path)
