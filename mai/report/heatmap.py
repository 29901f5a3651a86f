"""The places of a picture as a network judges them, drawn as a layer to lay over it.

    patch logits -> calibrated log-odds -> blue (leans authentic) | nothing (even) | orange (leans AI-generated)

Squares stay squares: smoothing would promise a sharpness that the network does not have.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mai.measure.calibrate import Calibration
from mai.types import HeatMap

SYNTHETIC_RGB = (230, 97, 1)
AUTHENTIC_RGB = (40, 110, 190)
"""Orange and blue, which most colour-blind people tell apart (ColorBrewer's PuOr and RdBu ends)."""

FULL_LOG_ODDS = 4.0
"""Log-odds of the full colour: a score of 0.98 or 0.02. Fixed, so that a calm map looks calm."""

MAX_ALPHA = 0.9
"""Opacity of the full colour, so that the picture can be seen through it."""

LAYER_PX = 512
"""Longest side of the layer, in pixels; a page enlarges it."""


def drawn(maps: Sequence[HeatMap]) -> list[HeatMap]:
    """Those that are laid over the picture: the whole windows, or the close-ups of a network that has no others."""
    return [found for found in maps if found.kind == "whole"] or list(maps)


def log_odds(
    maps: Sequence[HeatMap], calibration: Calibration, height: int, width: int
) -> NDArray[np.float32]:
    """Calibrated log-odds of synthetic at each place of a picture; the mean where windows overlap.

    Args:
        maps: of one network.
        calibration: of its weights.
        height: rows of the picture.
        width: columns of the picture.

    Returns:
        float32 (H, W), H and W at most LAYER_PX in the picture's shape; nan where no window lies.
    """
    scale = min(1.0, LAYER_PX / max(height, width))
    total = np.zeros((max(1, round(height * scale)), max(1, round(width * scale))), np.float32)
    count = np.zeros_like(total)
    for found in drawn(maps):
        values = calibration.slope * found.patches + calibration.offset
        rows, row_patch = _axis(found.top, found.side, values.shape[0], scale, total.shape[0])
        columns, column_patch = _axis(found.left, found.side, values.shape[1], scale, total.shape[1])
        total[rows, columns] += values[np.ix_(row_patch, column_patch)]
        count[rows, columns] += 1
    with np.errstate(invalid="ignore"):
        return np.asarray(total / count, np.float32)


def layer(maps: Sequence[HeatMap], calibration: Calibration, height: int, width: int) -> bytes:
    """The layer as PNG with alpha, see log_odds."""
    from PIL import Image

    odds = log_odds(maps, calibration, height, width)
    strength = np.nan_to_num(np.clip(np.abs(odds) / FULL_LOG_ODDS, 0, 1))
    pixels = np.empty((*odds.shape, 4), np.uint8)
    pixels[..., :3] = np.where((odds > 0)[..., None], SYNTHETIC_RGB, AUTHENTIC_RGB)
    pixels[..., 3] = np.round(strength * MAX_ALPHA * 255)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def _axis(start: int, side: int, n: int, scale: float, limit: int) -> tuple[slice, NDArray[np.intp]]:
    """Where a window lies along one axis of the layer, and which patch each of its pixels shows."""
    first = min(round(start * scale), limit - 1)
    last = max(first + 1, min(round((start + side) * scale), limit))
    middles = (np.arange(first, last) + 0.5) / scale - start
    return slice(first, last), np.clip(middles * n / side, 0, n - 1).astype(np.intp)
