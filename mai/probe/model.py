"""The probe: a frozen backbone and one linear layer.

    views uint8 (B, S, S, 3) -> backbone (frozen) -> features (B, D) -> linear -> logit (B,)

The standardisation of the features is folded into the linear layer. A linear head on frozen features of a large modern
backbone is what generalises best in the wild today (Simplicity Prevails, arXiv 2602.01738).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from mai.training.onnx_export import MATRIX


class Probe(nn.Module):
    """A backbone and its head.

    Args:
        backbone: uint8 views (B, S, S, 3) -> features (B, n_features); frozen.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(int(backbone.n_features), 1)  # type: ignore[arg-type]

    def forward(self, views: Tensor) -> Tensor:
        """uint8 RGB (B, S, S, 3) 0..255 -> logit (B,), > 0 leans synthetic."""
        logits: Tensor = self.head(self.backbone(views))[:, 0]
        return logits


def folded(module: nn.Module) -> nn.Module:
    """A copy with batch norms folded into the convolutions before them, where torch.fx can read the module.

    Transformers models cannot be read so; they have few batch norms, and are copied as they are.
    """
    from torch.fx.experimental.optimization import fuse

    try:
        return fuse(module.eval())
    except Exception:  # torch.fx raises whatever the module's own code raises on its proxies
        return copy.deepcopy(module).eval()


def shipped_form(probe: nn.Module) -> nn.Module:
    """The probe with norms folded and every matrix and kernel of the backbone rounded to what fp16 can hold."""
    made = folded(probe)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim >= MATRIX and not name.startswith("head."):
                parameter.copy_(parameter.half().float())
    return made
