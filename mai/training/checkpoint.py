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
        raise TrainingError(f"There is no checkpoint {path}{_next(path)}") from error
    except Exception as error:
        raise TrainingError(
            f"The checkpoint {path} cannot be read ({error}). Delete it, or train anew."
        ) from error
    return state


def _next(path: Path) -> str:
    """What to do where a checkpoint is missing."""
    run = path.parent
    if others := sorted(file.name for file in run.glob("*.pt")):
        return (
            f"; {run} holds {', '.join(others)}. Take one of them, "
            "or let the run go on until it has this one (--resume)."
        )
    if run.is_dir():
        return f": '{run}' is no run of mai train, or has not ended an epoch. Give the folder that --output named."
    return f": there is no folder '{run}'. Give the folder that mai train --output named."
