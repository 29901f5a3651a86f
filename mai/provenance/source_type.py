"""IPTC's digital source types, as XMP names them: what each declares about a picture.

Source: http://cv.iptc.org/newscodes/digitalsourcetype/ (IPTC NewsCodes, 2025-11).
"""

from __future__ import annotations

from typing import Literal

Declares = Literal["synthetic", "edited", "capture"]

_PREFIXES = (
    "http://cv.iptc.org/newscodes/digitalsourcetype/",
    "https://cv.iptc.org/newscodes/digitalsourcetype/",
    "digsrctype:",
)

SYNTHETIC = frozenset({"trainedAlgorithmicMedia"})
COMPOSITE = frozenset({"compositeWithTrainedAlgorithmicMedia", "compositeSynthetic"})
ALGORITHMIC = frozenset({"algorithmicMedia"})
"""Drawn by a formula without training data: told, but not weighed as AI."""

CAPTURE = frozenset(
    {
        *("digitalCapture", "computationalCapture", "compositeCapture"),
        *(
            "negativeFilm",
            "positiveFilm",
            "print",
            "minorHumanEdits",
            "humanEdits",
            "algorithmicallyEnhanced",
        ),
    }
)


def term(value: str) -> str | None:
    """`trainedAlgorithmicMedia` of its address, its short form or the bare word; None for anything else."""
    value = value.strip()
    for prefix in _PREFIXES:
        if value.startswith(prefix):
            value = value.removeprefix(prefix).rstrip("/")
            break
    return value if value in SYNTHETIC | COMPOSITE | ALGORITHMIC | CAPTURE else None


def declares(value: str) -> Declares | None:
    """What a source type declares, None if it is no known one or says nothing about AI or a camera."""
    word = term(value)
    if word in SYNTHETIC:
        return "synthetic"
    if word in COMPOSITE:
        return "edited"
    return "capture" if word in CAPTURE else None
