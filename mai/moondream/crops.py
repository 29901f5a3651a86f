"""A picture of any shape -> the crops that Moondream sees: a global view and overlapping tiles.

Pillow's Lanczos is pinned: other resamplers give other pixels (the reference falls back to it, its fast path differs).
The number of tiles tells the picture's size: training guards against that shortcut (mai/moondream/samples.py).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

if TYPE_CHECKING:
    from mai.moondream.vision import VisionConfig
    from mai.types import Pixels


def tiling_of(height: int, width: int, config: VisionConfig) -> tuple[int, int]:
    """Rows and columns of tiles for a picture of that size; (1, 1) where a side is at most a crop."""
    margin = 2 * config.overlap_patches * config.patch_px
    window = config.crop_px - margin
    inner_h, inner_w = height - margin, width - margin
    if inner_h <= window or inner_w <= window:
        return 1, 1
    least_h, least_w = math.ceil(inner_h / window), math.ceil(inner_w / window)
    if least_h * least_w > config.max_crops:
        ratio = math.sqrt(config.max_crops / (least_h * least_w))
        return max(1, math.floor(least_h * ratio)), max(1, math.floor(least_w * ratio))
    rows = max(math.floor(math.sqrt(config.max_crops * inner_h / inner_w)), least_h)
    columns = max(math.floor(math.sqrt(config.max_crops * inner_w / inner_h)), least_w)
    if rows * columns > config.max_crops:
        if columns > rows:
            columns = math.floor(config.max_crops / rows)
        else:
            rows = math.floor(config.max_crops / columns)
    return max(1, rows), max(1, columns)


def crops_of(pixels: Pixels, config: VisionConfig) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Cut one picture.

    Args:
        pixels: uint8 RGB (H, W, 3).
        config: sizes.

    Returns:
        uint8 (1 + rows * columns, S, S, 3), the global view first, and (rows, columns).
    """
    rows, columns = tiling_of(pixels.shape[0], pixels.shape[1], config)
    side = config.crop_px
    margin = 2 * config.overlap_patches * config.patch_px
    window = side - margin
    picture = PILImage.fromarray(pixels)
    size = columns * window + margin, rows * window + margin
    large = np.asarray(picture.resize(size, PILImage.Resampling.LANCZOS))
    crops = np.zeros((1 + rows * columns, side, side, 3), np.uint8)
    crops[0] = np.asarray(picture.resize((side, side), PILImage.Resampling.LANCZOS))
    for r in range(rows):
        for c in range(columns):
            part = large[r * window : r * window + side, c * window : c * window + side]
            crops[1 + r * columns + c, : part.shape[0], : part.shape[1]] = part
    return crops, (rows, columns)


@lru_cache(maxsize=1)
def levels() -> NDArray[np.float32]:
    """What each of the 256 pixel values becomes, float32 (256,): (x / 255 - 0.5) / 0.5, rounded to bf16 at every step.

    The reference computes it in bf16 whatever the model's precision, and the model was trained so. In fp32 the image
    features of the golden numbers are off by 1e-3, so by 2e-7.
    """
    import torch

    steps = torch.arange(256).to(torch.bfloat16).div_(255).sub_(0.5).div_(0.5)
    table: NDArray[np.float32] = steps.float().numpy()
    return table


def normalised(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 (N, S, S, 3) -> float32 (N, 3, S, S); see `levels`."""
    return np.ascontiguousarray(levels()[crops.transpose(0, 3, 1, 2)])
