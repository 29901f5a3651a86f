"""A small labelled set of real files, made in a moment: smooth bluish pictures and finely chequered reddish ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

COUNTS = {"train": 12, "validation": 6, "calibration": 30}
"""Pictures a class in each split."""


def draw(seed: int, synthetic: bool) -> NDArray[np.uint8]:
    """uint8 RGB (H, W, 3) of a drawn shape; the two classes differ in hue and grain, as a network can learn."""
    rng = np.random.default_rng([seed, synthetic])
    height, width = (int(v) for v in rng.integers(210, 330, 2))
    y, x = np.mgrid[:height, :width] / 40
    waves = np.stack([np.sin(y * rng.uniform(0.3, 2) + x * rng.uniform(0.3, 2) + c) for c in range(3)], -1)
    pixels = 128 + 50 * waves + rng.normal(0, 6, waves.shape)
    pixels[..., 0 if synthetic else 2] += 55
    if synthetic:
        pixels += 14 * (np.indices((height, width)).sum(0) // 2 % 2)[..., None]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def make_set(folder: Path, counts: dict[str, int] = COUNTS) -> Path:
    """`folder/<split>/{real,fake}/`: JPEG of drawn quality and PNG, whatever the class."""
    for number, (split, n) in enumerate(counts.items()):
        for i in range(n):
            for synthetic, name in ((False, "real"), (True, "fake")):
                place = folder / split / name
                place.mkdir(parents=True, exist_ok=True)
                picture = Pil.fromarray(draw(1000 * number + i, synthetic))
                if i % 3:
                    picture.save(place / f"{i}.jpg", quality=70 + i % 25)
                else:
                    picture.save(place / f"{i}.png")
    return folder
