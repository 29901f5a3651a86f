"""Pictures to make pairs of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from labelled_pictures import draw
from PIL import Image as Pil


def make_authentic(folder: Path, n: int, *, side: int | None = None) -> Path:
    """JPEG and PNG of many shapes, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        patches = np.random.default_rng(i).integers(-60, 60, (9, 9, 3))  # so that no two are near duplicates
        pixels = draw(500 + i, False)
        height, width = pixels.shape[:2]
        bumps = (
            np.asarray(Pil.fromarray((patches + 128).astype(np.uint8)).resize((width, height)), np.int16)
            - 128
        )
        picture = Pil.fromarray(np.clip(pixels + bumps, 0, 255).astype(np.uint8))
        if side:
            picture = picture.resize((side, side))
        if i % 3:
            picture.save(folder / f"{i:04d}.jpg", quality=70 + i % 25)
        else:
            picture.save(folder / f"{i:04d}.png")
    return folder
