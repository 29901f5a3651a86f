"""IPTC's digital source types, as XMP names them: what each declares about a picture.

Source: http://cv.iptc.org/newscodes/digitalsourcetype/ (IPTC NewsCodes, 2025-11).
"""

from __future__ import annotations

import re
from typing import Literal

Declares = Literal["synthetic", "edited", "capture"]

_PREFIX = re.compile(r"(?i:(?:https?://)?cv\.iptc\.org/newscodes/digitalsourcetype/|digsrctype:)")

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


_TERMS = {word.lower(): word for word in SYNTHETIC | COMPOSITE | ALGORITHMIC | CAPTURE}


def term(value: str) -> str | None:
    """`trainedAlgorithmicMedia` of its address, its short form or the bare word; None for anything else.

    Also in other letters of case, and without the address's scheme: some programs write it so.
    """
    value = value.strip()
    if found := _PREFIX.match(value):
        value = value[found.end() :].rstrip("/")
    return _TERMS.get(value.lower())


def declares(value: str) -> Declares | None:
    """What a source type declares, None if it is no known one or says nothing about AI or a camera."""
    word = term(value)
    if word in SYNTHETIC:
        return "synthetic"
    if word in COMPOSITE:
        return "edited"
    return "capture" if word in CAPTURE else None
