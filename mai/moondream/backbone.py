"""Moondream's vision tower as frozen features for `mai train probe`: `backbone.name = "moondream:FOLDER"`.

    views uint8 (B, S, S, 3) -> ViT (27 layers in Moondream 2) -> tokens (B, T, V) -> mean over the tokens (B, V)

One view is one crop: no tiles, so that the number of tiles, which tells a picture's size, cannot reach the head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mai.errors import UsageError
from mai.moondream.crops import levels
from mai.moondream.load import load as load_moondream
from mai.moondream.vision import Vision


class VisionFeatures(nn.Module):
    """The vision transformer without the projector, pooled.

    Args:
        vision: of a loaded Moondream; frozen.
    """

    licence = "Apache-2.0 (vikhyatk/moondream2)"
    levels: Tensor

    def __init__(self, vision: Vision) -> None:
        super().__init__()
        self.vision = vision
        del self.vision.proj_mlp  # not used here, and half of the weights
        self.size_px, self.n_features = vision.config.crop_px, vision.config.dim
        self.register_buffer("levels", torch.from_numpy(levels().copy()), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, views: Tensor) -> Tensor:
        """uint8 RGB (B, S, S, 3) 0..255 -> float (B, V)."""
        crops = self.levels[views.long()].permute(0, 3, 1, 2).contiguous()
        return self.vision.tokens(crops).mean(1)


def load(name: str, pool: str, layers: tuple[int, ...]) -> nn.Module:
    """The frozen vision tower.

    Args:
        name: folder, or empty for the pinned revision of the hub.
        pool: `auto` or `mean`.
        layers: not used.

    Raises:
        UsageError: another pooling.
        WeightsError: the weights cannot be had.
        MissingExtraError: a package of the extra `vlm` is missing.
    """
    if pool not in ("auto", "mean") or layers:
        raise UsageError("Moondream's vision tower is pooled by 'mean', without backbone.layers.")
    return VisionFeatures(load_moondream(name).model.vision)
