"""Making the two members of a pair alike in all that is not the picture, so that no shortcut is born.

The authentic image is cut to the shape of the size that the generator makes and resized to it; a synthetic image that
an API returns in another size goes through the same crop and the same kernel. Both are stored as PNG, without metadata.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PILImage

from mai.pairs.registry import Entry

if TYPE_CHECKING:
    from mai.types import Pixels

MAX_UPSCALE = 1.25
"""An authentic image that would have to be enlarged more is left out: it would be the blurred one of the two."""


@dataclass(frozen=True, slots=True)
class Target:
    """The size of both members, and the part of the authentic image that is shown.

    Attributes:
        width: of both members, in pixels.
        height: of both.
        crop: left, top, right, bottom in pixels of the authentic image.
    """

    width: int
    height: int
    crop: tuple[int, int, int, int]

    @property
    def upscale(self) -> float:
        """How much larger the authentic part becomes; below 1 it becomes smaller."""
        return self.width / (self.crop[2] - self.crop[0])


def nearest(width: int, height: int, buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The bucket whose shape is nearest, by the logarithm of width over height."""
    shape = math.log(width / height)
    return min(buckets, key=lambda size: (abs(math.log(size[0] / size[1]) - shape), size))


def target(width: int, height: int, entry: Entry) -> Target:
    """What an authentic image of a size becomes for a generator.

    Args:
        width: of the authentic image in pixels.
        height: of it.
        entry: its `sizes`, or `multiple` and `max_side` where it makes any size.
    """
    if entry.buckets:
        w, h = nearest(width, height, entry.buckets)
    else:
        scale = min(1.0, entry.max_side / max(width, height))
        w, h = (
            max(entry.multiple, int(side * scale) // entry.multiple * entry.multiple)
            for side in (width, height)
        )
        if scale == 1.0 and w <= width and h <= height:  # every pixel stays as it is
            return Target(w, h, _middle(width, height, w, h))
    scale = min(width / w, height / h)
    return Target(w, h, _middle(width, height, max(1, round(w * scale)), max(1, round(h * scale))))


def _middle(width: int, height: int, w: int, h: int) -> tuple[int, int, int, int]:
    left, top = (width - min(w, width)) // 2, (height - min(h, height)) // 2
    return left, top, left + min(w, width), top + min(h, height)


def fit(pixels: Pixels, to: Target) -> Pixels:
    """The authentic member: cut, then resized with the Lanczos kernel. uint8 RGB (H, W, 3)."""
    left, top, right, bottom = to.crop
    return resized(pixels[top:bottom, left:right], to.width, to.height)


def fit_synthetic(pixels: Pixels, to: Target) -> Pixels:
    """The synthetic member, the same way where its size is not the one that was asked for."""
    height, width = pixels.shape[:2]
    if (width, height) == (to.width, to.height):
        return pixels
    scale = min(width / to.width, height / to.height)
    w, h = max(1, round(to.width * scale)), max(1, round(to.height * scale))
    left, top, right, bottom = _middle(width, height, w, h)
    return resized(pixels[top:bottom, left:right], to.width, to.height)


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize with Pillow's antialiased Lanczos kernel; nothing is done where the size is right."""
    if pixels.shape[:2] == (height, width):
        return np.ascontiguousarray(pixels)
    image = PILImage.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((width, height), PILImage.Resampling.LANCZOS))


def png(pixels: Pixels) -> bytes:
    """uint8 RGB (H, W, 3) or grey (H, W) as PNG, no metadata, quickly (zlib level 1)."""
    import cv2

    done, data = cv2.imencode(
        ".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1]
    )
    assert done  # in memory, of a shape that PNG has
    return bytes(data)


def region(width: int, height: int, seed: int) -> Pixels:
    """A drawn region to be painted anew: uint8 (H, W), 255 inside.

    An ellipse or a rectangle of 8 to 35 % of the area, wholly inside the picture.
    """
    rng = np.random.default_rng([seed, 7])
    area, aspect = rng.uniform(0.08, 0.35) * width * height, math.exp(rng.uniform(-0.5, 0.5))
    w = int(min(width * 0.9, max(8, math.sqrt(area * aspect))))
    h = int(min(height * 0.9, max(8, area / max(w, 1))))
    left, top = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    mask = np.zeros((height, width), np.uint8)
    if rng.random() < 0.5:
        mask[top : top + h, left : left + w] = 255
    else:
        y, x = np.mgrid[:height, :width]
        inside = ((x - left - w / 2) / (w / 2)) ** 2 + ((y - top - h / 2) / (h / 2)) ** 2 <= 1
        mask[inside] = 255
    return mask
