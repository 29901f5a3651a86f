"""Backbones that a person might name with python:MODULE:FUNCTION."""

from __future__ import annotations

import torch
from torch import nn


class Colours(nn.Module):
    """Mean and spread of the colours on a coarse grid: enough for the drawn pictures of the tests."""

    size_px, mean, std = 48, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(3, 8, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.kernel.weight.copy_(torch.randn(self.kernel.weight.shape, generator=generator))
            self.kernel.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.kernel(x))


class Moody(Colours):
    """Its path hangs on a number in the picture, so that it cannot be exported to ONNX."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = super().forward(x)
        return maps if float(maps.mean()) > -1 else maps * 0


def colours() -> nn.Module:
    return Colours()


def moody() -> nn.Module:
    return Moody()


def changed() -> nn.Module:
    made = Moody()
    with torch.no_grad():
        made.kernel.weight.mul_(1.5)
    return made


def words() -> str:
    return "no module"
