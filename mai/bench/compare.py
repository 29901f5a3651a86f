"""`mai bench compare A.json B.json`: what got better or worse, on the same pictures, with paired intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mai.bench.figures import brier, paired_difference
from mai.errors import DataError, UsageError
from mai.measure import metrics

FIGURES: dict[str, tuple[str, bool]] = {
    "auroc": ("AUROC", True),
    "tpr_at_5_fpr_oracle": ("TPR@5%FPR (oracle)", True),
    "recall": ("recall at the fixed threshold", True),
    "flagged": ("authentic flagged at the fixed threshold", False),
    "brier": ("Brier", False),
}
"""Name -> title, and whether more is better."""


def read_report(path: Path) -> dict[str, Any]:
    """Read what `mai bench run` wrote.

    Raises:
        UsageError: it is no such file.
    """
    try:
        report = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"'{path}' cannot be read as a report of mai bench: {error}") from error
    if not isinstance(report, dict) or not str(report.get("schema", "")).startswith("mai.bench/"):
        raise UsageError(f"'{path}' is no report of `mai bench run` (its JSON has no schema mai.bench/1).")
    return report


def compare(one: dict[str, Any], two: dict[str, Any], n_draws: int = 1000) -> list[dict[str, Any]]:
    """Differences two - one of every detector and protocol that both have.

    Reports of one detector each are compared whatever its name.

    Args:
        one: a report.
        two: another, on the same data.
        n_draws: of the paired bootstrap over sources.

    Raises:
        DataError: they share no picture.
    """
    rows: list[dict[str, Any]] = []
    for protocol in one["scores"]:
        mine, theirs = one["scores"][protocol], two["scores"].get(protocol, {})
        pairs = [(name, name) for name in mine if name in theirs]
        if not pairs and len(mine) == 1 and len(theirs) == 1:
            pairs = [(next(iter(mine)), next(iter(theirs)))]
        for a, b in pairs:
            rows += _compare_cell(protocol, a, b, one, two, n_draws)
    if not rows:
        raise DataError("The two reports have no detector and protocol in common that can be compared.")
    return rows


def _compare_cell(
    protocol: str, a: str, b: str, one: dict[str, Any], two: dict[str, Any], n_draws: int
) -> list[dict[str, Any]]:
    first, second = one["scores"][protocol][a], two["scores"][protocol][b]
    place = {name: i for i, name in enumerate(second["images"])}
    common = [i for i, name in enumerate(first["images"]) if name in place]
    if not common:
        raise DataError(
            f"The reports share no picture under the protocol '{protocol}': they are of other sets."
        )
    where = [place[first["images"][i]] for i in common]
    x = np.array(first["scores"])[common]
    y = np.array(second["scores"])[where]
    labels = np.array(first["labels"], bool)[common]
    if (labels != np.array(second["labels"], bool)[where]).any():
        raise DataError("The two reports give the same picture different labels.")
    units = [first["sources"][i] for i in common]
    limits = [_threshold(report, name, protocol) for report, name in ((one, a), (two, b))]
    # Each report has its own threshold, so calls at it are compared as scores 0 and 1.
    calls_x, calls_y = (x >= limits[0]).astype(float), (y >= limits[1]).astype(float)
    both = labels.any() and not labels.all()
    made: dict[str, list[float]] = {}
    if both:
        made["auroc"] = paired_difference(x, y, labels, units, metrics.auroc, n_draws)
        made["tpr_at_5_fpr_oracle"] = paired_difference(
            x, y, labels, units, lambda s, t: metrics.tpr_at_fpr(s, t, 0.05), n_draws
        )
        made["brier"] = paired_difference(x, y, labels, units, brier, n_draws)
    if labels.any():
        made["recall"] = paired_difference(
            calls_x, calls_y, labels, units, lambda s, t: float(s[t].mean()), n_draws
        )
    if not labels.all():
        made["flagged"] = paired_difference(
            calls_x, calls_y, labels, units, lambda s, t: float(s[~t].mean()), n_draws
        )
    return [
        {
            "protocol": protocol,
            "one": a,
            "two": b,
            "figure": name,
            "n": len(common),
            "difference": made[name],
            "verdict": _verdict(made[name], FIGURES[name][1]),
        }
        for name in FIGURES
        if name in made
    ]


def _threshold(report: dict[str, Any], name: str, protocol: str) -> float:
    cells = report["detectors"][name]["cells"]
    return float(
        next(c["threshold"] for c in cells if c["protocol"] == protocol and c["perturbation"] == "none")
    )


def _verdict(difference: list[float], more_is_better: bool) -> str:
    _, low, high = difference
    if low > 0:
        return "better" if more_is_better else "worse"
    if high < 0:
        return "worse" if more_is_better else "better"
    return "no difference shown"


def as_text(rows: list[dict[str, Any]]) -> str:
    """The comparison as a Markdown table."""
    lines = ["| protocol | detectors | figure | n | B - A | |", "|---|---|---|---|---|---|"]
    for row in rows:
        value, low, high = row["difference"]
        pair = row["one"] if row["one"] == row["two"] else f"{row['one']} -> {row['two']}"
        lines.append(
            f"| {row['protocol']} | {pair} | {FIGURES[row['figure']][0]} | {row['n']} | "
            f"{value:+.3f} [{low:+.3f}, {high:+.3f}] | {row['verdict']} |"
        )
    return "\n".join(lines)
