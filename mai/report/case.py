"""A case: one image's record with all that a newsroom files beside it. As JSON it is `mai.case/1`.

The JSON Schema is case.schema.json; the page for people is explanation.py.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai import __version__
from mai.errors import UsageError
from mai.measure.metrics import wilson
from mai.report import layers, words
from mai.report.jsonlines import json_text
from mai.types import HeatMap, Record
from mai.verdict.fuse import Fusion, Measured
from mai.weights import Weights

if TYPE_CHECKING:
    from mai.types import Pixels

SCHEMA = "mai.case/1"

PACKAGES: tuple[str, ...] = ("numpy", "pillow", "onnxruntime", "c2pa-python", "PyWavelets")
"""Packages whose version can move a result; those that are installed are named."""

NOT_PROOF = "A verdict is a signal, not proof. Weigh it with what else is known about the picture."


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One image's record with what a report on it says.

    Attributes:
        record: the row.
        date: when it was judged, with its time zone.
        settings: what the person set, by the names of the options.
        weights: detector -> the weights it used.
        measured: whose thresholds the verdict was made with; None where no network looked.
        picture: uint8 RGB (H, W, 3), upright; None if it cannot be shown.
        heat_maps: detector -> its heat maps.
    """

    record: Record
    date: datetime
    settings: Mapping[str, Any]
    weights: Mapping[str, Weights]
    measured: Measured | None
    picture: Pixels | None
    heat_maps: Mapping[str, tuple[HeatMap, ...]]


@dataclass(frozen=True, slots=True)
class ErrorRate:
    """What was measured at one threshold.

    Attributes:
        kind: `false_positive` (authentic flagged), `false_negative` (synthetic called authentic) or `missed`
            (synthetic below the synthetic threshold, whatever they are called).
        threshold: the score.
        rate: the error rate that the threshold was chosen for; None of `missed`, which nothing was chosen for.
        n_errors: calibration images on the wrong side of it; of a lowered threshold, at most so many.
        n: calibration images of that class.
        low: lower end of the 95 % interval (Wilson) of n_errors / n.
        high: its upper end.
    """

    kind: str
    threshold: float
    rate: float | None
    n_errors: int
    n: int
    low: float
    high: float


def error_rates(case: Case) -> list[ErrorRate]:
    """The measured error rates of the case's thresholds; none for a threshold that the person gave."""
    verdict = case.record.verdict
    point = verdict.thresholds if verdict else None
    if point is None or case.measured is None or point.fpr is None or point.fnr is None:
        return []
    table = case.measured.table
    try:
        high, low = table.at_fpr(point.fpr), table.at_fnr(point.fnr)
    except UsageError:
        return []
    rates = [
        _rate("false_positive", point.synthetic, high.rate, high.n_errors, table.n_authentic),
        _rate("false_negative", point.authentic, low.rate, low.n_errors, table.n_synthetic),
    ]
    if high.n_caught is not None:
        n_missed = table.n_synthetic - high.n_caught
        rates.append(_rate("missed", point.synthetic, None, n_missed, table.n_synthetic))
    return rates


def _rate(kind: str, threshold: float, rate: float | None, n_errors: int, n: int) -> ErrorRate:
    interval = wilson(n_errors, n)
    return ErrorRate(kind, threshold, rate, n_errors, n, round(interval.low, 6), round(interval.high, 6))


def case_dict(case: Case) -> dict[str, Any]:
    """The case as plain JSON values, in the order of the published schema."""
    record = case.record
    return {
        "schema": SCHEMA,
        "date": case.date.isoformat(timespec="seconds"),
        "mai": versions(),
        "file": {"path": record.path, **(record.image.to_dict() if record.image else {})},
        "answer": {
            "words": words.verdict_words(record),
            "reason": words.reason_words(record) or None,
            "explanation": words.explanation(record),
            "note": NOT_PROOF,
        },
        "operating_point": _operating_point(case),
        "not_checked": layers.unchecked(record.evidence, case.settings["detectors"]),
        "settings": dict(case.settings) | {"trust_sha256": _sha256(case.settings.get("trust"))},
        "weights": [_weights(name, own) for name, own in case.weights.items()],
        "record": record.to_dict(),
        "heat_maps": [_heat_map(name, found) for name, maps in case.heat_maps.items() for found in maps],
    }


def case_json(case: Case) -> str:
    """The case as JSON text, nothing in it that a terminal would obey."""
    return json_text(case_dict(case), indent=2) + "\n"


def schema() -> dict[str, Any]:
    """The published JSON Schema (2020-12) of a case; it refers to that of a row."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("case.schema.json").read_text("utf-8"))
    return loaded


def versions() -> dict[str, Any]:
    """Versions of MAI, Python and the packages that can move a result."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"version": __version__, "python": platform.python_version(), "packages": packages}


def _operating_point(case: Case) -> dict[str, Any] | None:
    verdict, measured = case.record.verdict, case.measured
    if verdict is None or verdict.thresholds is None or measured is None:
        return None
    rates = {
        rate.kind: {
            "threshold": rate.threshold,
            "rate": rate.rate,
            "n_errors": rate.n_errors,
            "n": rate.n,
            "interval_95": [rate.low, rate.high],
        }
        for rate in error_rates(case)
    }
    return {
        "words": words.operating_point(verdict.thresholds, measured.table),
        "calibration_data": measured.table.data,
        "fusion": sorted(measured.coefficients) if isinstance(measured, Fusion) else None,
        "false_positive": rates.get("false_positive"),
        "false_negative": rates.get("false_negative"),
        "missed": rates.get("missed"),
    }


def _weights(detector: str, own: Weights) -> dict[str, Any]:
    return {
        "detector": detector,
        "name": own.name,
        "sha256": own.config["sha256"],
        "n_authentic": own.table.n_authentic,
        "n_synthetic": own.table.n_synthetic,
        "calibration": own.calibration.to_dict(),
    }


def _heat_map(detector: str, found: HeatMap) -> dict[str, Any]:
    return {
        "detector": detector,
        "kind": found.kind,
        "top": found.top,
        "left": found.left,
        "side": found.side,
        "logits": [[round(float(value), 4) for value in row] for row in found.patches],
    }


def _sha256(path: str | None) -> str | None:
    """Hash of the trust list that was given, None for the bundled one."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest() if path else None
    except OSError:  # it was read when the detectors were made; what counts stands in the evidence
        return None
