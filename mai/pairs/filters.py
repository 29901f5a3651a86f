"""What a row can come to: each is a status with a sentence, stored and counted; nothing is dropped in silence."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mai.types import Pixels

STATUSES = {
    "ok": "a pair",
    "near_duplicate": "the authentic image is a near duplicate of another",
    "blank": "the authentic image shows nothing",
    "too_small": "the authentic image would have to be enlarged",
    "unreadable": "the authentic image cannot be read",
    "caption_empty": "the captioner said nothing",
    "caption_refused": "the captioner refused",
    "caption_failed": "the captioner failed",
    "black": "the generator returned a blank picture, as safety checkers do",
    "unsafe": "the generator's safety checker withheld the picture",
    "refused": "the generator refused the prompt",
    "generator_failed": "the generator failed",
}
"""Every status of a row."""

BLANK_SPREAD = 3.0
"""Standard deviation of 255 under which a picture shows nothing."""

_REFUSALS = re.compile(
    r"^\W*(i['’]?m sorry|i am sorry|sorry[,.]|i can(?:no|['’])t\b|i cannot\b|i am unable|i['’]m unable|i won['’]t|"
    r"as an ai\b|as a language model|unable to (?:describe|provide|identify|generate)|i do not feel comfortable)",
    re.IGNORECASE,
)


def is_blank(pixels: Pixels) -> bool:
    """True where uint8 (H, W, 3) shows nothing: one colour, or nearly."""
    step = max(1, min(pixels.shape[:2]) // 256)
    return float(np.std(pixels[::step, ::step].astype(np.float32), axis=(0, 1)).max()) < BLANK_SPREAD


def caption_problem(text: str) -> tuple[str, str] | None:
    """The status and sentence of a caption that cannot be a prompt; None for a good one."""
    if not re.search(r"\w", text):
        return "caption_empty", "The caption is empty."
    if _REFUSALS.search(text):
        return "caption_refused", f"The captioner refused: '{text.strip()[:80]}'."
    return None
