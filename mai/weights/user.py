"""What a person's own calibrations are kept in: one folder a detector, and the fusions fitted with them.

    ~/.local/share/mai/calibrations/<name>-<hash>/config.json    weights without a network: it lives elsewhere
    ~/.local/share/mai/fusion.json                               as the shipped fusion.json

MAI_DATA names another folder in place of ~/.local/share/mai (or of $XDG_DATA_HOME/mai).
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path


def data_folder() -> Path:
    """Where a person's own calibrations live."""
    if os.environ.get("MAI_DATA"):
        return Path(os.environ["MAI_DATA"]).expanduser()
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "mai"


def calibration_folder(name: str) -> Path:
    """The folder of one detector's calibration, by its name and labels; need not be there."""
    short = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")[:60]
    return data_folder() / "calibrations" / f"{short}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def fusion_file() -> Path:
    """The fusions that `mai calibrate` fitted here."""
    return data_folder() / "fusion.json"
