"""Records what invisible-watermark itself reads and writes, for test_watermark.py on machines without it (or torch).

pip install --no-deps invisible-watermark==0.2.0    # beside torch, opencv and PyWavelets
python tests/unit/detectors/make_watermark_golden.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GOLDEN = Path(__file__).with_name("watermark_golden.json")
LENGTHS = (32, 46, 48, 136)


def drawn() -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Pictures that every machine draws alike: noise, flat colours (whose blocks lie on edges), ramps, odd sides."""
    for seed, (height, width) in enumerate([(256, 256), (301, 333), (64, 1024), (519, 260)]):
        rng = np.random.default_rng(seed)
        yield f"noise {height} x {width}", rng.integers(0, 256, (height, width, 3), np.uint8)
        low = rng.integers(0, 256, (height // 32 + 1, width // 32 + 1, 3), np.uint8)
        yield f"blocks {height} x {width}", low.repeat(32, 0).repeat(32, 1)[:height, :width].copy()
        ramp = (
            np.arange(height)[:, None, None] // 3 + np.arange(width)[None, :, None] // 5 + np.arange(3) * 40
        )
        yield f"ramp {height} x {width}", (ramp % 256).astype(np.uint8)
    for grey in (0, 8, 128, 255):
        yield f"grey {grey}", np.full((256, 264, 3), grey, np.uint8)
    for step in range(6):  # chroma sums on both kinds of edge
        yield f"blue {step}", np.full((256, 256, 3), (10, 20, 30 + 18 * step), np.uint8)


def packed(bits: NDArray[np.bool_]) -> str:
    """Bits as text."""
    return "".join("1" if bit else "0" for bit in bits)


def main() -> None:
    """Ask the package and write."""
    from imwatermark.maxDct import EmbedMaxDct

    read = {
        name: {str(n): packed(EmbedMaxDct(wmLen=n).decode(picture[..., ::-1].copy())) for n in LENGTHS}
        for name, picture in drawn()
    }
    GOLDEN.write_text(json.dumps({"package": "invisible-watermark 0.2.0", "read": read}, indent=1) + "\n")


if __name__ == "__main__":
    main()
