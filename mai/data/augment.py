"""Random changes at training, and the aligned chain of evaluation. Both classes are treated alike, always.

Formats, sizes and shapes give the class away in every set that people collect; so each sample is cut to a drawn
square, rescaled by a drawn factor with a drawn kernel and re-encoded up to three times with drawn codecs and
qualities, by draws that do not know the label. Repeated JPEG is worth more than one pass (facts: .901 -> .931 ->
.945 AUROC); heavy colour jitter hurts and is left out.

Every function takes a numpy Generator and is a pure function of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mai.config import need, need_share
from mai.data.labelled import pair_of
from mai.errors import require

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from mai.types import Pixels


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How strongly training samples are changed. Shares are probabilities, 0..1.

    Attributes:
        scale_low: smallest side of the drawn window as a share of the view's short side.
        native: share of samples that keep their pixels (no rescaling) where the view is large enough.
        codec_passes: most lossy encodings in a row; 0..codec_passes are drawn.
        quality_low: lowest JPEG or WebP quality drawn, 1..97 (the highest is 97).
        webp: share of the encodings that are WebP (the others JPEG).
        rescale: share that is made smaller and larger again between encodings.
        blur: share that is blurred (Gaussian, sigma 0.3..1.2 px).
        noise: share that gets Gaussian noise (standard deviation 1..6 of 255).
        light: share with a drawn gain 0.85..1.15 and gamma 0.85..1.18.
        mask: share with one rectangle of 5..25 % of the area filled with its mean.
        cutmix: share of samples with a rectangle of 10..50 % of the area from another sample of the batch, the target
            mixed by area (Yun et al., CutMix, arXiv 1905.04899); drawn by training/batches.py.
    """

    scale_low: float = 0.6
    native: float = 0.25
    codec_passes: int = 3
    quality_low: int = 45
    webp: float = 0.25
    rescale: float = 0.3
    blur: float = 0.12
    noise: float = 0.1
    light: float = 0.2
    mask: float = 0.15
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        need(0 < self.scale_low <= 1, "scale_low", self.scale_low, "more than 0, at most 1")
        need(self.codec_passes >= 0, "codec_passes", self.codec_passes, "0 or more")
        need(1 <= self.quality_low <= 97, "quality_low", self.quality_low, "1 to 97")
        for name in ("native", "webp", "rescale", "blur", "noise", "light", "mask", "cutmix"):
            need_share(name, getattr(self, name))


def encode_jpeg(pixels: Pixels, quality: int, subsampling: str = "420") -> bytes:
    """Encode uint8 RGB (H, W, 3) as JPEG of `quality` 1..100, chroma `420` or `444`."""
    import cv2

    factor = {"420": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, "444": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444}[
        subsampling
    ]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), options)[1])


def encode_webp(pixels: Pixels, quality: int) -> bytes:
    """Encode uint8 RGB (H, W, 3) as lossy WebP of `quality` 1..100, effort 1 (of 6: a third of the time)."""
    import io

    from PIL import Image as PILImage

    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=1)
    return buffer.getvalue()


def decode_pixels(data: bytes) -> Pixels:
    """Decode JPEG or WebP bytes of our own making to uint8 RGB (H, W, 3)."""
    import cv2

    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None  # our own codec wrote it
    rgb: Pixels = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
    return rgb


def draw_square(pixels: Pixels, rng: Generator, low: float) -> Pixels:
    """Cut a square with a side drawn from low..1 of the short side, at a drawn place."""
    height, width = pixels.shape[:2]
    side = max(16, round(min(height, width) * rng.uniform(low, 1.0)))
    side = min(side, height, width)
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    return pixels[top : top + side, left : left + side]


def drawn_resize(pixels: Pixels, size_px: int, rng: Generator) -> Pixels:
    """Resize a square to size_px with a drawn kernel: area (linear when larger), cubic, Lanczos or linear."""
    import cv2

    kernels = (cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_LINEAR)
    kernel = kernels[int(rng.integers(4))]
    side = pixels.shape[0]
    if side == size_px:
        return pixels
    if size_px > side and kernel == cv2.INTER_AREA:
        kernel = cv2.INTER_LINEAR
    if size_px < side / 1.5:  # the other kernels of OpenCV alias when they make much smaller
        kernel = cv2.INTER_AREA
    resized: Pixels = cv2.resize(pixels, (size_px, size_px), interpolation=kernel)
    return resized


def drawn_codec(pixels: Pixels, rng: Generator, quality_low: int, webp: float) -> bytes:
    """Encode with a drawn codec, quality (quality_low..97) and chroma subsampling."""
    quality = int(rng.integers(quality_low, 98))
    if rng.random() < webp:
        return encode_webp(pixels, quality)
    return encode_jpeg(pixels, quality, "420" if rng.random() < 0.75 else "444")


def augment(pixels: Pixels, rng: Generator, size_px: int, how: Augmentation) -> Pixels:
    """One training sample from one view.

    Args:
        pixels: uint8 RGB (H, W, 3), any shape.
        rng: all draws come from it.
        size_px: side of the square returned.
        how: strengths.

    Returns:
        uint8 RGB (size_px, size_px, 3), contiguous.
    """
    cv2 = require("cv2", "train", "Augmentation")
    if rng.random() < how.native and min(pixels.shape[:2]) >= size_px:
        square = draw_square(pixels, rng, 1.0)
        top, left = (int(rng.integers(square.shape[0] - size_px + 1)) for _ in range(2))
        square = square[top : top + size_px, left : left + size_px]
    else:
        square = drawn_resize(draw_square(pixels, rng, how.scale_low), size_px, rng)
    for _ in range(int(rng.integers(how.codec_passes + 1))):
        square = decode_pixels(drawn_codec(np.ascontiguousarray(square), rng, how.quality_low, how.webp))
        if rng.random() < how.rescale / max(how.codec_passes, 1) * 2:
            square = _down_and_up(square, rng)
    if rng.random() < how.blur:
        square = cv2.GaussianBlur(square, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < how.light:
        square = _relight(square, rng)
    if rng.random() < how.noise:
        noise = rng.standard_normal(square.shape, np.float32) * np.float32(rng.uniform(1, 6))
        square = np.clip(square + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        square = square[:, ::-1]
    if rng.random() < how.mask:
        square = _masked(square, rng)
    return np.ascontiguousarray(square)


def _down_and_up(square: Pixels, rng: Generator) -> Pixels:
    side = square.shape[0]
    return drawn_resize(drawn_resize(square, max(16, round(side * rng.uniform(0.5, 0.95))), rng), side, rng)


def _relight(square: Pixels, rng: Generator) -> Pixels:
    import cv2

    ramp = np.linspace(0, 1, 256) ** rng.uniform(0.85, 1.18) * rng.uniform(0.85, 1.15)
    lit: Pixels = cv2.LUT(np.ascontiguousarray(square), np.clip(ramp * 255 + 0.5, 0, 255).astype(np.uint8))
    return lit


def _rectangle(side: int, rng: Generator, low: float, high: float) -> tuple[slice, slice]:
    area, aspect = rng.uniform(low, high), np.exp(rng.uniform(-0.7, 0.7))
    h = min(side, max(1, round(side * np.sqrt(area * aspect))))
    w = min(side, max(1, round(side * np.sqrt(area / aspect))))
    top, left = int(rng.integers(side - h + 1)), int(rng.integers(side - w + 1))
    return slice(top, top + h), slice(left, left + w)


def _masked(square: Pixels, rng: Generator) -> Pixels:
    place = _rectangle(square.shape[0], rng, 0.05, 0.25)
    square = square.copy()
    square[place] = square[place].mean((0, 1)).astype(np.uint8)
    return square


def cutmix(views: Pixels, labels: NDArray[np.float32], rng: Generator, share: float) -> None:
    """Put rectangles of other samples of a batch into some of its samples, in place; targets are mixed by area.

    Args:
        views: uint8 RGB (B, S, S, 3).
        labels: float32 (B,), 0..1.
        rng: all draws come from it.
        share: of samples that are changed.
    """
    before, targets = views.copy(), labels.copy()
    side = views.shape[1]
    for i, other in enumerate(rng.permutation(len(views))):
        if rng.random() < share:
            rows, columns = _rectangle(side, rng, 0.1, 0.5)
            views[i, rows, columns] = before[other, rows, columns]
            part = (rows.stop - rows.start) * (columns.stop - columns.start) / side**2
            labels[i] = (1 - part) * targets[i] + part * targets[other]


ALIGNED_LOW = 0.8
ALIGNED_QUALITY = (60, 96)


def draw_name(image: str) -> str:
    """The part of a picture's name that its draws are seeded by: the last three parts of a path.

    The members of a pair, `ID/authentic` and `ID/synthetic`, share it, so that both get the same window, size, codec
    and quality. Not the last part alone, which many share; not the whole path: the same set elsewhere should get the
    same draws.
    """
    return "/".join((pair_of(image) or image).split("/")[-3:])


def aligned(pixels: Pixels, rng: Generator, size_px: int) -> tuple[Pixels, bytes]:
    """The aligned protocol: both classes through the same drawn window, size, codec and quality.

    A square of 80..100 % of the short side at a drawn place, resized to size_px with a drawn kernel, then one JPEG
    (three of four) or WebP pass of quality 60..95.

    Args:
        pixels: uint8 RGB (H, W, 3).
        rng: all draws come from it.
        size_px: side of the square returned.

    Returns:
        uint8 RGB (size_px, size_px, 3) as the network sees it, and the encoded bytes that it was decoded from.
    """
    require("cv2", "train", "The aligned protocol")
    square = drawn_resize(draw_square(pixels, rng, ALIGNED_LOW), size_px, rng)
    quality = int(rng.integers(*ALIGNED_QUALITY))
    square = np.ascontiguousarray(square)
    data = encode_webp(square, quality) if rng.random() < 0.25 else encode_jpeg(square, quality)
    return decode_pixels(data), data
