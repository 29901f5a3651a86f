"""A small vocabulary of what a picture looks like: measured from pixels, read out of captions.

The generator `small64` knows these words only, and the captioner `words` writes them: what is the subject, how bright,
which colour, how much detail, where the light is. Nothing is guessed: each word is a measured fact of the pixels, but
for the subject, which the data set must say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mai.types import Pixels

SUBJECTS = {
    "photo": ("photo", "photograph", "street", "building", "house", "mountain", "landscape", "beach", "tree"),
    "face": ("face", "portrait", "man", "woman", "person", "girl", "boy", "child", "selfie", "people"),
    "product": ("product", "shirt", "shoe", "bag", "bottle", "dress", "packshot", "jacket", "watch"),
    "art": ("art", "painting", "drawing", "illustration", "sketch", "watercolor", "artwork", "cartoon"),
}
LOOKS = {
    "dark": ("dark", "night", "dim", "black"),
    "bright": ("bright", "white", "light", "sunny", "snow"),
    "grey": ("grey", "gray", "monochrome", "colourless", "colorless"),
    "red": ("red", "pink"),
    "orange": ("orange", "brown", "yellow", "golden", "sand", "wooden"),
    "green": ("green", "grass", "forest", "leaves", "leaf", "plant"),
    "blue": ("blue", "sky", "sea", "ocean", "water", "lake"),
    "purple": ("purple", "violet", "magenta"),
    "plain": ("plain", "minimal", "blurred", "blurry", "smooth"),
    "detailed": ("detailed", "busy", "crowd", "texture", "textured"),
    "lighter-above": ("lighter-above",),
    "lighter-below": ("lighter-below",),
    "lighter-middle": ("lighter-middle",),
    "darker-middle": ("darker-middle",),
}
WORDS = (*SUBJECTS, *LOOKS)
"""The order of the network's inputs: append, never reorder."""
_OF = {synonym: word for table in (SUBJECTS, LOOKS) for word, names in table.items() for synonym in names}
_HUES = ("red", "orange", "green", "blue", "purple")
_HUE_ENDS = (15, 70, 170, 265, 330)
"""Upper ends in degrees of red, orange (to yellow), green, blue, purple; above the last it is red again."""


def looks(pixels: Pixels) -> list[str]:
    """Words for what uint8 RGB (H, W, 3) measurably looks like."""
    x = np.asarray(pixels, np.float32) / np.float32(255)
    luma = x @ np.array([0.299, 0.587, 0.114], np.float32)
    mean = float(luma.mean())
    words = ["dark"] if mean < 0.3 else ["bright"] if mean > 0.65 else []
    words.append(_colour(x))
    height, width = luma.shape
    edges = np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()
    relative = (
        float(edges) * (min(height, width) / 64) ** 0.5
    )  # smaller copies of a picture have steeper edges
    words += ["plain"] if relative < 0.055 else ["detailed"] if relative > 0.14 else []
    upper, lower = float(luma[: height // 2].mean()), float(luma[height // 2 :].mean())
    if abs(upper - lower) > 0.12:
        words.append("lighter-above" if upper > lower else "lighter-below")
    middle = float(luma[height // 4 : -height // 4, width // 4 : -width // 4].mean())
    around = (mean - middle * 0.25) / 0.75
    if abs(middle - around) > 0.15:
        words.append("lighter-middle" if middle > around else "darker-middle")
    return words


def _colour(x: NDArray[np.float32]) -> str:
    chroma = x.max(-1) - x.min(-1)
    if float(chroma.mean()) < 0.08:
        return "grey"
    weights = np.maximum(chroma, 1e-6)
    red, green, blue = (float((x[..., i] * weights).sum() / weights.sum()) for i in range(3))
    alpha, beta = red - (green + blue) / 2, (green - blue) * 3**0.5 / 2
    hue = float(np.degrees(np.arctan2(beta, alpha))) % 360
    return next((name for name, end in zip(_HUES, _HUE_ENDS, strict=True) if hue < end), "red")


def sentence(subject: str | None, seen: list[str]) -> str:
    """The words as a caption, `A dark photo, blue, detailed, lighter-above.`"""
    tone = next((word for word in seen if word in ("dark", "bright")), "")
    rest = [word for word in seen if word != tone]
    start = f"{tone} {subject if subject in SUBJECTS else 'picture'}".strip()
    return f"{'A'} {start}{''.join(f', {word}' for word in rest)}."


def vector(text: str) -> NDArray[np.float32]:
    """Which of WORDS a caption holds, by synonyms too: float32 (len(WORDS),) of 0 and 1."""
    found = {_OF[word] for word in re.findall(r"[a-z]+(?:-[a-z]+)?", text.lower()) if word in _OF}
    return np.array([word in found for word in WORDS], np.float32)
