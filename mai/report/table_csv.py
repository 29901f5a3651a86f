"""Rows as CSV (RFC 4180 quoting, LF line ends, UTF-8), for spreadsheets and data frames.

A text cell that begins with `=`, `+`, `-`, `@`, a tab or a line end could run as a formula when a spreadsheet
opens the file (OWASP, 'CSV Injection'): it gets a leading apostrophe. Control characters are written out as
`\\xNN`. A program that needs exact names reads the JSON.
"""

from __future__ import annotations

import csv
from typing import TextIO

from mai.report.escape import visible
from mai.types import Evidence, Record

COLUMNS: tuple[str, ...] = (
    "path",
    "status",
    "label",
    "edited",
    "score",
    "reason",
    "threshold_synthetic",
    "fpr",
    "threshold_authentic",
    "fnr",
    "prior",
    "posterior",
    "evidence",
    "format",
    "width",
    "height",
    "bytes",
    "sha256",
    "seconds",
    "message",
)
"""Columns in order. `evidence`: `pixel=0.9712; c2pa=absent`. `seconds`: all stages together."""


def safe_cell(text: str) -> str:
    """A text cell that no spreadsheet takes for a formula and no terminal for a command."""
    shown = visible(text)
    return f"'{shown}" if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n") else shown


class Csv:
    """One row a record, after a header line."""

    def __init__(self, stream: TextIO) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._stream = stream
        self._rows.writerow(COLUMNS)

    def write(self, record: Record) -> None:
        """Write one row; None is an empty cell."""
        verdict, image = record.verdict, record.image
        point = verdict.thresholds if verdict else None
        edited = verdict.edited if verdict else None
        self._rows.writerow(
            (
                safe_cell(record.path),
                record.status,
                record.label,
                None if edited is None else str(edited).lower(),
                record.score,
                record.reason,
                point.synthetic if point else None,
                point.fpr if point else None,
                point.authentic if point else None,
                point.fnr if point else None,
                verdict.prior if verdict else None,
                verdict.posterior if verdict else None,
                safe_cell("; ".join(_brief(e) for e in record.evidence)),
                image.format if image else None,
                image.width if image else None,
                image.height if image else None,
                image.n_bytes if image else None,
                image.sha256 if image else None,
                f"{sum(record.seconds.values()):.6f}",
                safe_cell(record.message) if record.message else None,
            )
        )

    def finish(self) -> None:
        """Hand on what is buffered."""
        self._stream.flush()


def _brief(evidence: Evidence) -> str:
    if evidence.status == "ok" and evidence.score is not None:
        return f"{evidence.detector}={evidence.score:.4f}"
    declared = evidence.details.get("declares") if evidence.status == "ok" else None
    return f"{evidence.detector}={declared or evidence.status}"
