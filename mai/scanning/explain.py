"""One image looked at closely: its row, with all that a report on it says beside it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mai.images.source import Source, display
from mai.pipeline import Scanner
from mai.report.case import Case
from mai.types import HeatMap, Image


def explain(scanner: Scanner, source: Source) -> Case:
    """Judge one image and gather what a report on it says.

    Args:
        scanner: the detectors and the operating point.
        source: a path (taken literally), encoded bytes, a PIL image, or an array uint8 RGB (H, W, 3).

    Raises:
        UsageError: the source is of no kind that can be an image.
    """
    record, image = scanner.examine(source)
    pixels = scanner.pixels(image) if image else None
    has_maps = image is not None and pixels is not None and record.verdict is not None
    return Case(
        record=record,
        date=datetime.now(UTC),
        settings=settings_for_people(scanner),
        weights=scanner.weights,
        measured=scanner.measured_for(record),
        picture=pixels,
        heat_maps=_heat_maps(scanner, replace(image, pixels=pixels)) if has_maps and image else {},
    )


def _heat_maps(scanner: Scanner, image: Image) -> dict[str, tuple[HeatMap, ...]]:
    """Detector -> what it says about the places of the picture, of those networks that can."""
    found: dict[str, tuple[HeatMap, ...]] = {}
    for name, detector in scanner.detectors.items():
        look = getattr(detector, "heat_maps", None)
        if look is not None and (maps := tuple(look(image))):
            found[name] = maps
    return found


def settings_for_people(scanner: Scanner) -> dict[str, Any]:
    """What the person set, by the names of the options; None: the default."""
    settings = scanner.settings
    return {
        "detectors": list(scanner.detectors),
        "fpr": settings.fpr,
        "threshold": settings.threshold,
        "prior": settings.prior,
        "weights": None if settings.weights is None else display(str(settings.weights)),
        "trust": None if settings.trust is None else display(settings.trust),
        "max_bytes": settings.limits.max_bytes,
        "max_pixels": settings.limits.max_pixels,
    }
