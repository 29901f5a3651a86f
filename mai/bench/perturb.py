"""Perturbations by name: a seeded, documented change of a picture before it is scored.

A name is one step or several joined by `+`, done from left to right:

    none                    the picture as it is
    jpeg-70                 JPEG quality 70, chroma 4:2:0 (Pillow, libjpeg)
    webp-80  avif-60        lossy WebP, AVIF of that quality
    resize-0.5              both sides times 0.5, Lanczos; `resize-0.5-bicubic`: nearest, box, bilinear, bicubic,
                            hamming or lanczos
    fit-1080                made smaller so that the long side is at most 1080 px, Lanczos
    crop-0.05               5 % of each side cut off, at a drawn place
    blur-1.0                Gaussian, sigma in pixels
    noise-4                 Gaussian noise, standard deviation of 255
    gamma-1.1               each value v becomes 255 (v / 255)^gamma
    screenshot  messenger  social      presets, see PRESETS

Draws (places of crops, noise) come from the seed and the picture's name, so a perturbation is the same every time.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mai.errors import UsageError

if TYPE_CHECKING:
    from numpy.random import Generator

    from mai.types import Pixels

PRESETS: dict[str, str] = {
    # A screenshot of a picture in a page: shown smaller, a margin lost, saved by a phone or a desktop.
    "screenshot": "crop-0.05+resize-0.75-bilinear+jpeg-85",
    # Messengers make the long side 1600 px at most and save at about quality 70, here twice (forwarded once).
    "messenger": "fit-1600+jpeg-70+jpeg-70",
    # A social network: long side 1080 px, quality 75, then somebody's screenshot of it as WebP.
    "social": "fit-1080+jpeg-75+crop-0.03+webp-80",
}
"""Chains of our own that stand for what platforms do; the platforms change theirs without notice."""

KERNELS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

SWEEPS: dict[str, tuple[str, ...]] = {
    "quick": ("jpeg-70", "webp-80", "resize-0.5"),
    # What a verdict must survive (label flips at most 3 %): single steps and chains of two.
    "stability": (
        "jpeg-70", "webp-80", "resize-0.5", "resize-0.75", "crop-0.05",
        "jpeg-70+resize-0.75", "resize-0.75+webp-80", "crop-0.05+jpeg-70", "resize-0.5+jpeg-70",
    ),
    "robustness": (
        "jpeg-95", "jpeg-90", "jpeg-80", "jpeg-70", "jpeg-60", "jpeg-50", "jpeg-30",
        "webp-90", "webp-80", "webp-60", "avif-70", "avif-50",
        "resize-0.25", "resize-0.5", "resize-0.75", "resize-1.5", "resize-2",
        "resize-0.5-nearest", "resize-0.5-box", "resize-0.5-bilinear", "resize-0.5-hamming",
        "resize-0.5-bicubic", "resize-2-nearest", "resize-2-bicubic",
        "blur-0.5", "blur-1", "blur-2", "blur-3", "noise-2", "noise-4", "noise-8", "crop-0.05", "crop-0.2",
        "jpeg-80+resize-0.75", "resize-0.5+jpeg-70+jpeg-80", "jpeg-90+resize-0.75+webp-80+jpeg-70",
        "jpeg-95+crop-0.05+resize-0.75+webp-80+jpeg-60", "screenshot", "messenger", "social",
    ),
}  # fmt: skip
"""Named lists for `--sweep`."""

Step = Callable[["Pixels", "Generator"], "Pixels"]
MIN_SIDE = 16
"""Nothing is made smaller than this, in pixels."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A parsed name.

    Attributes:
        name: as given.
        steps: done in order.
    """

    name: str
    steps: tuple[Step, ...]

    def __call__(self, pixels: Pixels, picture: str, seed: int = 0) -> Pixels:
        """Apply to uint8 RGB (H, W, 3); `picture` names it for the draws."""
        rng = np.random.default_rng([seed, zlib.crc32(f"{self.name}:{picture}".encode())])
        for step in self.steps:
            pixels = step(pixels, rng)
        return pixels


def parse(name: str) -> Perturbation:
    """Read a name.

    Raises:
        UsageError: it is no perturbation; the message lists what there is.
    """
    parts = "+".join(PRESETS.get(part, part) for part in name.strip().split("+")).split("+")
    return Perturbation(name, tuple(_step(part, name) for part in parts if part != "none"))


def sweep(names: str) -> tuple[str, ...]:
    """A sweep's name, or perturbations joined by commas, as checked names, each once.

    Raises:
        UsageError: an unknown one.
    """
    found: list[str] = []
    for name in filter(None, (part.strip() for part in names.split(","))):
        found += SWEEPS.get(name, (name,))
    for name in found:
        parse(name)
    return tuple(dict.fromkeys(found))


def _step(part: str, whole: str) -> Step:
    kind, _, rest = part.partition("-")
    values = rest.split("-") if rest else []
    try:
        if kind in ("jpeg", "webp", "avif") and len(values) == 1 and 1 <= int(values[0]) <= 100:
            return _codec(kind, int(values[0]))
        if kind == "resize" and 1 <= len(values) <= 2 and 0.05 <= float(values[0]) <= 4:
            kernel = values[1] if len(values) == 2 else "lanczos"
            if kernel in KERNELS:
                return _resize(float(values[0]), kernel)
        if kind == "fit" and len(values) == 1 and int(values[0]) >= MIN_SIDE:
            return _fit(int(values[0]))
        if kind == "crop" and len(values) == 1 and 0 < float(values[0]) < 0.9:
            return _crop(float(values[0]))
        if kind == "blur" and len(values) == 1 and 0 < float(values[0]) <= 20:
            return _blur(float(values[0]))
        if kind == "noise" and len(values) == 1 and 0 < float(values[0]) <= 100:
            return _noise(float(values[0]))
        if kind == "gamma" and len(values) == 1 and 0.2 <= float(values[0]) <= 5:
            return _gamma(float(values[0]))
    except ValueError:
        pass
    raise UsageError(
        f"'{part}' in '{whole}' is no perturbation. Known: none, jpeg-1..100, webp-1..100, avif-1..100, "
        f"resize-0.05..4[-{'|'.join(KERNELS)}], fit-PIXELS, crop-SHARE, blur-SIGMA, noise-STANDARD_DEVIATION, "
        f"gamma-0.2..5, {', '.join(PRESETS)}; steps are joined by +. Sweeps: {', '.join(SWEEPS)}."
    )


def _codec(kind: str, quality: int) -> Step:
    def step(pixels: Pixels, rng: Generator) -> Pixels:
        from PIL import Image

        buffer = io.BytesIO()
        more = {"jpeg": {"subsampling": 2}, "webp": {"method": 2}, "avif": {"speed": 8}}[kind]
        Image.fromarray(pixels).save(buffer, kind.upper(), quality=quality, **more)
        return np.asarray(Image.open(buffer).convert("RGB"))

    return step


def _scaled(pixels: Pixels, scale: float, kernel: str) -> Pixels:
    from PIL import Image

    height, width = pixels.shape[:2]
    size = max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling[kernel.upper()]))


def _resize(scale: float, kernel: str) -> Step:
    return lambda pixels, rng: _scaled(pixels, scale, kernel)


def _fit(longest: int) -> Step:
    def step(pixels: Pixels, rng: Generator) -> Pixels:
        scale = longest / max(pixels.shape[:2])
        return pixels if scale >= 1 else _scaled(pixels, scale, "lanczos")

    return step


def _crop(share: float) -> Step:
    def step(pixels: Pixels, rng: Generator) -> Pixels:
        height, width = pixels.shape[:2]
        h, w = max(MIN_SIDE, round(height * (1 - share))), max(MIN_SIDE, round(width * (1 - share)))
        h, w = min(h, height), min(w, width)
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        return np.ascontiguousarray(pixels[top : top + h, left : left + w])

    return step


def _blur(sigma: float) -> Step:
    def step(pixels: Pixels, rng: Generator) -> Pixels:
        from PIL import Image, ImageFilter

        return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))

    return step


def _noise(deviation: float) -> Step:
    def step(pixels: Pixels, rng: Generator) -> Pixels:
        noise = rng.standard_normal(pixels.shape, np.float32) * np.float32(deviation)
        return np.clip(pixels + noise + 0.5, 0, 255).astype(np.uint8)

    return step


def _gamma(value: float) -> Step:
    table = (255 * (np.arange(256) / 255) ** value + 0.5).astype(np.uint8)
    return lambda pixels, rng: table[pixels]
