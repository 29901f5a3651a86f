"""The invisible watermark that Stable Diffusion and Flux programs write into the pixels (`dwtDct`).

Looks for four known messages. Each 8 x 8 block of pixels carries one bit, the message is repeated over the picture,
and what is read is held against what would be there: a Hamming match, with its probability on a picture without a
watermark. Only files that were never re-encoded with loss still carry it: JPEG at quality 90 or a resize wipes it
out, so that absence means nothing. What is read is never shown: on a clean picture it is noise.

The decoder gives the same bits as the package invisible-watermark 0.2.0 (imwatermark/maxDct.py), which needs torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.detectors.base import DetectorSettings, Kind, Needs
from mai.errors import MissingExtraError
from mai.types import Evidence, Image

if TYPE_CHECKING:
    from mai.types import Pixels

MEAN_LUMINANCE = 57.625
"""Mean of JPEG's standard luminance table, quality 50 (ITU-T T.81, table K.1)."""

MIN_PIXELS = 256 * 256
"""The programs write no watermark into smaller pictures (imwatermark/watermark.py)."""

SCALE = 36
"""Step of the quantisation that carries a bit, in units of the Haar approximation (imwatermark/maxDct.py)."""

LUMA = np.array([4899, 9617, 1868], np.float32) / np.float32(1 << 14)
BLUE = np.float32(8061 / (1 << 14))
"""OpenCV's 0.299, 0.587, 0.114 and 0.492, as fixed point of 14 bits."""

MAX_LOST_QUALITY = 90
"""JPEG quality at and below which nothing is left of it: 0 of 16 photographs, for each message (docs/detectors.md)."""

PIXELS_AT_ONCE = 1 << 17
"""Pixels decoded together: their planes stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class Message:
    """A known message.

    Attributes:
        bits: its bits as text, `0` and `1`.
        generator: who writes it.
        min_match: bits that must agree. Chosen for a false alarm below 1 in a million with fair coins, and at
            least 6 bits above the best accidental match measured (docs/detectors.md).
    """

    bits: str
    generator: str
    min_match: int

    @property
    def false_alarm(self) -> float:
        """Of `min_match` or more, for fair coins. Pictures are none: docs/detectors.md has what was measured."""
        return chance(len(self.bits), self.min_match)


def _text_bits(text: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in text)


MESSAGES: tuple[Message, ...] = (
    # CompVis/stable-diffusion, scripts/txt2img.py.
    Message(_text_bits(b"StableDiffusionV1"), "Stable Diffusion 1", 100),
    # Stability-AI/stablediffusion, scripts/txt2img.py.
    Message(_text_bits(b"SDV2"), "Stable Diffusion 2", 30),
    # Stability-AI/generative-models, sgm/inference/helpers.py; diffusers, pipelines/stable_diffusion_xl/watermark.py.
    Message("101100111110110010010000011110111011000110011110", "Stable Diffusion XL", 41),
    # black-forest-labs/flux, src/flux/util.py: 48 bits, but `bin()` drops the two leading zeros, so 46 are written.
    Message("1010101111111010000111100111001111010100101110", "Flux", 40),
)


class Detector:
    """Decodes the watermark from the pixels."""

    name = "watermark"
    needs: Needs = "pixels"
    kind: Kind = "statement"
    weights: str | None = None

    def __init__(self, settings: DetectorSettings) -> None:
        """Nothing to load.

        Raises:
            MissingExtraError: PyWavelets is not installed.
        """
        if importlib.util.find_spec("pywt") is None:
            raise MissingExtraError("PyWavelets", "all", "Reading watermarks")

    def look(self, images: Sequence[Image]) -> list[Evidence]:
        """One Evidence an image."""
        return [self._look(image) for image in images]

    def least_px(self, image: Image) -> int | None:
        """None, or 0 where no watermark is looked for."""
        return 0 if _why_not(image) else None

    def _look(self, image: Image) -> Evidence:
        not_worth_it = _why_not(image)
        if not_worth_it:
            return Evidence(self.name, status="skipped", note=not_worth_it, details=_NOTHING)
        if image.pixels is None:
            return Evidence(self.name, status="failed", note="The image has no pixels to look at.")
        scores = block_bits(image.pixels)
        for message in MESSAGES:
            n_match = matching(read_bits(scores, len(message.bits)), message.bits)
            if n_match >= message.min_match:
                return self._found(message, n_match)
        note = "No known watermark. JPEG and resizing wipe it out, so this says nothing."
        return Evidence(self.name, status="absent", note=note, details=_NOTHING)

    def _found(self, message: Message, n_match: int) -> Evidence:
        n_bits, p = len(message.bits), chance(len(message.bits), n_match)
        details: dict[str, Any] = {
            "declares": "synthetic",
            "state": "unsigned",
            "reason": "watermark",
            "edited": None,
            "generator": message.generator,
            "method": "dwtDct",
            "n_bits": n_bits,
            "n_match": n_match,
            "min_match": message.min_match,
            "false_alarm": p,
            "false_alarm_at_threshold": message.false_alarm,
        }
        note = (
            f"Carries the invisible watermark of {message.generator}: {n_match} of {n_bits} bits agree "
            f"(by chance {p:.1g}). Anybody can write this watermark into a picture."
        )
        return Evidence(self.name, note=note, details=details)


def _why_not(image: Image) -> str | None:
    """Why no watermark is looked for in a picture, if it is so."""
    height, width = (image.info.height, image.info.width) if image.pixels is None else image.pixels.shape[:2]
    if height * width < MIN_PIXELS:
        return f"Too small: {width} x {height} pixels are fewer than 256 x 256 and carry no watermark."
    quality = jpeg_quality(image.data) if image.data else None
    if quality is not None and quality <= MAX_LOST_QUALITY:
        return f"A JPEG of quality {quality} carries no watermark any more."
    return None


def jpeg_quality(data: bytes) -> int | None:
    """The quality, 1..100, that a JPEG's table 0 of divisors stands for; None of another format, or none stated.

    By the mean of the divisors, of which libjpeg's quality is a scale; cameras' own tables get the nearest. Table 0 is
    the one of luminance by every writer's habit; of several of that number before the picture the last one counts.
    """
    if data[:3] != b"\xff\xd8\xff":
        return None
    at, found = 2, None
    for _ in range(64):
        if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] in (0xDA, 0xD9):
            break
        length = max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if data[at + 1] == 0xDB:
            found = _mean_of_table_0(data[at + 4 : at + 2 + length]) or found
        at += 2 + length
    if not found:
        return None
    scale = 100 * found / MEAN_LUMINANCE  # percent of the standard table
    return max(1, min(100, round((200 - scale) / 2 if scale <= 100 else 5000 / scale)))


def _mean_of_table_0(segment: bytes) -> float | None:
    """Mean divisor of table 0 in a DQT segment (ITU-T T.81, B.2.4.1); None if it holds only others."""
    at, mean = 0, None
    while at < len(segment):
        width = 2 if segment[at] >> 4 else 1  # bytes of a divisor
        divisors = segment[at + 1 : at + 1 + 64 * width]
        if len(divisors) < 64 * width:
            break
        if segment[at] & 15 == 0:
            mean = float(np.frombuffer(divisors, ">u2" if width == 2 else np.uint8).mean())
        at += 1 + 64 * width
    return mean


_NOTHING: dict[str, Any] = {"declares": None, "reason": None}


def chance(n_bits: int, n_match: int) -> float:
    """Probability that `n_match` or more of `n_bits` fair coins fall as given, 0..1."""
    return float(sum(comb(n_bits, n) for n in range(n_match, n_bits + 1)) / 2**n_bits)


def matching(bits: NDArray[np.bool_], expected: str) -> int:
    """Number of bits that agree.

    Args:
        bits: bool (n,).
        expected: n characters `0` and `1`.
    """
    return int((bits == (np.frombuffer(expected.encode("ascii"), np.uint8) == ord("1"))).sum())


def read_bits(scores: NDArray[np.bool_], n_bits: int) -> NDArray[np.bool_]:
    """The message of a length, by a vote of the blocks that carry each bit.

    Args:
        scores: bool (blocks,), see block_bits.
        n_bits: length of the message; block number i carries bit i modulo n_bits.

    Returns:
        bool (n_bits,); False where a picture has fewer blocks than the message has bits.
    """
    n_rounds, rest = divmod(len(scores), n_bits)
    ones = scores[: n_rounds * n_bits].reshape(n_rounds, n_bits).sum(axis=0, dtype=np.int64)
    ones[:rest] += scores[n_rounds * n_bits :]
    n_votes = np.full(n_bits, n_rounds, np.int64)
    n_votes[:rest] += 1
    # The package's own comparison, so that a tie falls on the same side.
    decided: NDArray[np.bool_] = ones / np.maximum(n_votes, 1) * 255 > 127
    return decided


def block_bits(pixels: Pixels) -> NDArray[np.bool_]:
    """What each block of a picture carries, in the order in which they are written: row by row.

    Args:
        pixels: uint8 RGB (H, W, 3), 0..255.

    Returns:
        bool (H // 8 * (W // 8)).
    """
    height, width = (side // 8 * 8 for side in pixels.shape[:2])
    rows = max(8, PIXELS_AT_ONCE // max(width, 1) // 8 * 8)
    parts = [_stripe_bits(pixels[top : min(top + rows, height), :width]) for top in range(0, height, rows)]
    return np.concatenate(parts) if parts else np.empty(0, np.bool_)


def _stripe_bits(pixels: Pixels) -> NDArray[np.bool_]:
    """The bits of some rows of blocks.

    The Haar approximation of a 2 x 2 square of the chroma plane U is half its sum, so that integers tell all but the
    blocks whose largest coefficient lies on an edge of the quantisation: there the package's floating point
    decides, and PyWavelets is asked.

    Args:
        pixels: uint8 RGB (h, w, 3), both sides multiples of 8.
    """
    chroma = chroma_u(pixels)
    height, width = chroma.shape
    pairs = chroma[0::2] + chroma[1::2]
    sums = pairs[:, 0::2] + pairs[:, 1::2]  # int16 (h/2, w/2), 0..1020: twice the approximation
    sums[::4, ::4] = 0  # a block's first coefficient is its mean and carries nothing; the largest other does
    largest = np.maximum(sums[0::2], sums[1::2])
    largest = np.maximum(largest[0::2], largest[1::2])
    largest = np.maximum(largest[:, 0::2], largest[:, 1::2])
    largest = np.maximum(largest[:, 0::2], largest[:, 1::2])
    step = largest % (2 * SCALE)
    bits: NDArray[np.bool_] = step > SCALE
    row, column = np.nonzero((step == 0) | (step == SCALE))
    if len(row):
        tiles = chroma.reshape(height // 8, 8, width // 8, 8).transpose(0, 2, 1, 3)
        bits[row, column] = _bits_by_wavelet(tiles[row, column])
    return bits.ravel()


def _bits_by_wavelet(tiles: NDArray[np.int16]) -> NDArray[np.bool_]:
    """The same, with the wavelet transform that the package uses.

    Args:
        tiles: int16 (n, 8, 8), chroma of one block each.
    """
    import pywt

    approximation = pywt.dwt2(tiles.astype(np.float64), "haar", axes=(-2, -1))[0]
    largest = approximation.reshape(len(tiles), 16)[:, 1:].max(axis=1)
    bits: NDArray[np.bool_] = largest % SCALE > 0.5 * SCALE
    return bits


def chroma_u(pixels: Pixels) -> NDArray[np.int16]:
    """The chroma plane U as OpenCV's COLOR_BGR2YUV gives it (modules/imgproc/src/color_yuv.simd.hpp).

    Args:
        pixels: uint8 RGB (h, w, 3).

    Returns:
        int16 (h, w), 0..255.
    """
    # Whole numbers below 2^24 in units of 2^-14: float32 holds each step exactly, and is fastest.
    planes = pixels.astype(np.float32)
    luma = planes @ LUMA
    luma += np.float32(0.5)
    np.floor(luma, out=luma)
    chroma: NDArray[np.float32] = planes[..., 2] - luma
    chroma *= BLUE
    chroma += np.float32(128.5)
    return np.clip(chroma, 0, 255, out=chroma).astype(np.int16)
