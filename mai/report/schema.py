"""The published schema of a row, `mai.record/1`: record.schema.json, JSON Schema 2020-12, in the package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("record.schema.json")
"""Where the schema lies; programs in other languages may copy it."""


def schema() -> dict[str, Any]:
    """The schema as plain JSON values."""
    loaded: dict[str, Any] = json.loads(PATH.read_text("utf-8"))
    return loaded
