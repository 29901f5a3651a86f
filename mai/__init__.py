"""MAI, the Multilayer Authenticity Identifier: tells AI-generated images from authentic ones, shows the evidence.

import mai
record = mai.scan("photo.jpg")
print(record.label, record.score, record.reason)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "scan": "mai.pipeline",
    "Scanner": "mai.pipeline",
    "load_detector": "mai.pipeline",
    "Image": "mai.types",
    "Evidence": "mai.types",
    "Verdict": "mai.types",
    "Record": "mai.types",
    "MaiError": "mai.errors",
}

__all__ = [
    "Evidence",
    "Image",
    "MaiError",
    "Record",
    "Scanner",
    "Verdict",
    "__version__",
    "load_detector",
    "scan",
]

if TYPE_CHECKING:
    from mai.errors import MaiError
    from mai.pipeline import Scanner, load_detector, scan
    from mai.types import Evidence, Image, Record, Verdict


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'mai' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
