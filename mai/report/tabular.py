"""A record as one flat row: what SQLite and Parquet hold."""

from __future__ import annotations

from mai.types import Record

COLUMNS: dict[str, str] = {
    "path": "TEXT", "status": "TEXT", "label": "TEXT", "edited": "INTEGER", "score": "REAL", "reason": "TEXT",
    "threshold_synthetic": "REAL", "fpr": "REAL", "threshold_authentic": "REAL", "fnr": "REAL", "posterior": "REAL",
    "format": "TEXT", "width": "INTEGER", "height": "INTEGER", "bytes": "INTEGER", "sha256": "TEXT",
    "seconds": "REAL", "message": "TEXT",
}  # fmt: skip
"""Name -> SQLite's word for its kind."""

Value = str | float | int | bool | None


def flat(record: Record) -> dict[str, Value]:
    """The row's values in the order of COLUMNS; text that is no UTF-8 is written out."""
    verdict, image = record.verdict, record.image
    point = verdict.thresholds if verdict else None
    return {
        "path": _clean(record.path),
        "status": record.status,
        "label": record.label,
        "edited": verdict.edited if verdict else None,
        "score": record.score,
        "reason": record.reason,
        "threshold_synthetic": point.synthetic if point else None,
        "fpr": point.fpr if point else None,
        "threshold_authentic": point.authentic if point else None,
        "fnr": point.fnr if point else None,
        "posterior": verdict.posterior if verdict else None,
        "format": image.format if image else None,
        "width": image.width if image else None,
        "height": image.height if image else None,
        "bytes": image.n_bytes if image else None,
        "sha256": image.sha256 if image else None,
        "seconds": round(sum(record.seconds.values()), 6),
        "message": _clean(record.message) if record.message else None,
    }


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
