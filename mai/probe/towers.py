"""Any vision network as frozen features: uint8 views in, its own normalisation, pooled output out.

views uint8 (B, S, S, 3) -> (x / 255 - mean) / std -> network -> tokens (B, T, D) or maps (B, C, H, W) -> (B, D)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mai.errors import UsageError


class Tower(nn.Module):
    """A network with its preparation and pooling.

    Args:
        network: takes float (B, 3, S, S), as `pixel_values` if it is one of transformers.
        size_px: S.
        mean: of each channel on 0..1.
        std: of each channel on 0..1.
        pool: `cls` (the first token), `mean` (of places), `cls_mean` (both), `pooler` (the network's own), or `auto`:
            both where there is a class token, else the mean.
        layers: hidden layers whose pooled outputs are joined; empty: the last.
    """

    licence = "see its own card"
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        size_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        pool: str,
        layers: Sequence[int],
    ) -> None:
        super().__init__()
        if pool == "stages":
            raise UsageError(
                "backbone.pool 'stages' is for pixel:imagenet; use auto, cls, mean, cls_mean or pooler."
            )
        self.network, self.size_px, self.pool, self.layers = network, size_px, pool, tuple(layers)
        config: Any = getattr(network, "config", None)
        self.is_transformers = config is not None and hasattr(config, "to_dict")
        self.n_registers = int(getattr(config, "num_register_tokens", 0) or 0)
        self.has_class_token = _has_class_token(network)
        self.register_buffer(
            "mean", torch.tensor(mean, dtype=torch.float32).view(3, 1, 1) * 255, persistent=False
        )
        self.register_buffer(
            "std", torch.tensor(std, dtype=torch.float32).view(3, 1, 1) * 255, persistent=False
        )

    def forward(self, views: Tensor) -> Tensor:
        """uint8 RGB (B, S, S, 3) 0..255 -> float (B, D)."""
        x = (views.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if not self.is_transformers:
            if self.layers or self.pool == "pooler":
                raise UsageError("backbone.layers and the pooling 'pooler' are for transformers models.")
            found = getattr(self.network, "forward_features", self.network)(x)
            return self._pooled(found)
        out = self.network(pixel_values=x, output_hidden_states=bool(self.layers))
        if self.pool == "pooler":
            if getattr(out, "pooler_output", None) is None:
                raise UsageError("This backbone has no pooled output; use backbone.pool mean or cls_mean.")
            pooler: Tensor = out.pooler_output.flatten(1)
            return pooler
        if not self.layers:
            return self._pooled(out.last_hidden_state)
        states = out.hidden_states
        for layer in self.layers:
            if not -len(states) <= layer < len(states):
                raise UsageError(f"backbone.layers: there is no layer {layer} among {len(states)}.")
        return torch.cat([self._pooled(states[layer]) for layer in self.layers], 1)

    def _pooled(self, x: Tensor) -> Tensor:
        """(B, D), tokens (B, T, D) or maps (B, C, H, W) -> (B, D)."""
        if x.ndim == 2:
            return x
        if x.ndim == 4:
            if self.pool in ("cls", "cls_mean"):
                raise UsageError("This backbone gives maps without a class token; use backbone.pool mean.")
            return x.mean((2, 3))
        first = x[:, 0]
        places = x[:, 1 + self.n_registers :] if self.has_class_token else x
        if self.pool == "cls":
            return first
        if self.pool == "mean" or (self.pool == "auto" and not self.has_class_token):
            return places.mean(1)
        return torch.cat([first, places.mean(1)], 1)


def _has_class_token(network: nn.Module) -> bool:
    """A parameter of that name says it: `cls_token` (ViT, DINO, timm), `class_embedding` (CLIP)."""
    return any(
        name.split(".")[-1] in ("cls_token", "class_embedding") for name, _ in network.named_parameters()
    )
