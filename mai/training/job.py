"""What a training run is given, and the versions that its outcome depends on."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mai
from mai.data.store import Store
from mai.training.recipe import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Job:
    """One training run.

    Attributes:
        recipe: what to do.
        build: makes the network, uint8 (B, H, W, 3) -> logits float (B,); reads the torch seed.
        store: decoded views of the whole labelled set.
        fingerprint: of the set.
        data: how the user named it.
        output: run folder.
        n_workers: processes that make batches; None: as many as there are processors, at most eight.
        stop_after_epochs: end this call early, for tests and for long runs cut into sessions; 0: no.
    """

    recipe: Recipe
    build: Callable[[], torch.nn.Module]
    store: Store
    fingerprint: str
    data: str
    output: Path
    n_workers: int | None = None
    stop_after_epochs: int = 0


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    import numpy
    import torch

    return {"mai": mai.__version__, "python": platform.python_version(), "torch": str(torch.__version__),
            "numpy": numpy.__version__}  # fmt: skip
