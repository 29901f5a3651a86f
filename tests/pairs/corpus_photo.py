"""A photograph of the corpus beside the checkout, cut to 192 px."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil


def photo(shared: Path) -> NDArray[np.uint8]:
    path = sorted((shared / "corpus" / "images").glob("*_whole.webp"))[0]
    return np.ascontiguousarray(np.asarray(Pil.open(path).convert("RGB"))[:192, :192])
