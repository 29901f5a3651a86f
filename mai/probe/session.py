"""Probe weights whose backbone is no ONNX file: torch runs it, with the face of mai.weights.session.Session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mai import config as configuration
from mai.errors import WeightsError, require
from mai.probe.recipe import BackbonePlan

if TYPE_CHECKING:
    from mai.weights import Weights


class TorchSession:
    """One probe ready to run.

    Args:
        weights: of engine `torch`; the hashes of head and backbone are checked.
        n_threads: of one run, on a CPU.

    Raises:
        WeightsError: head or backbone is missing, damaged, or another one.
        MissingExtraError: torch or transformers is not installed.
    """

    outputs = ("logit",)

    def __init__(self, weights: Weights, n_threads: int = 1) -> None:
        torch = require("torch", "vlm", f"The weights {weights.name}")
        from mai.probe import backbones
        from mai.training import checkpoint
        from mai.training.device import choose_device
        from mai.training.hub import state_digest

        weights.model_bytes()  # checks the hash
        plan = configuration.build(BackbonePlan, weights.config["trained"]["recipe"]["backbone"])
        backbones.refuse_code(plan.name, str(weights.folder))
        backbone = backbones.load(plan)
        wanted = weights.config["backbone"]["sha256"]
        if state_digest(backbone) != wanted:
            raise WeightsError(
                f"The weights {weights.name} were fitted on another '{plan.name}' (sha256 {wanted[:12]}...) than the "
                "one that is here. Get that revision, or train and export again."
            )
        head = checkpoint.load(weights.model)["head"]
        if n_threads > 1:
            torch.set_num_threads(n_threads)
        self.device = choose_device()
        self._backbone = backbone.to(self.device)
        self._weight = head["head.weight"].to(self.device)
        self._bias = head["head.bias"].to(self.device)

    def run(self, views: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits float32 (B,) of uint8 views (B, S, S, 3); there is no map of patches."""
        return self.logits(views), None

    def logits(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 (B,) of uint8 views (B, S, S, 3)."""
        import torch

        with torch.inference_mode():
            features = self._backbone(torch.from_numpy(np.ascontiguousarray(views)).to(self.device))
            out: NDArray[np.float32] = (features @ self._weight.T + self._bias)[:, 0].float().cpu().numpy()
        return out
