"""Checkpoints: written to a temporary name, synced, renamed; a killed run leaves the last whole one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from mai.errors import TrainingError


def save(state: dict[str, Any], path: Path) -> None:
    """Write `state` (tensors and plain values) atomically."""
    import torch

    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises:
        TrainingError: it is missing or damaged.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"There is no checkpoint {path}.") from error
    except Exception as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be read ({error}). Delete it, or train anew."
        ) from error
    return state
