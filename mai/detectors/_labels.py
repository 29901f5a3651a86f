"""Which of a published classifier's labels mean synthetic: by their words, or as a person says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mai.errors import UsageError

SYNTHETIC_WORDS = frozenset(
    {"synthetic", "fake", "ai", "aigc", "aigenerated", "artificial", "generated", "deepfake", "deepfakes", "genai",
     "diffusion", "gan", "midjourney", "dalle", "sdxl", "flux", "synth"}
)  # fmt: skip
AUTHENTIC_WORDS = frozenset(
    {"authentic", "real", "realism", "human", "hum", "natural", "nature", "photo", "photograph", "genuine", "original",
     "pristine", "camera"}
)  # fmt: skip
NOT = frozenset({"not", "non", "no", "un", "without"})


def side_of(label: str) -> int | None:
    """1 where a label's words mean synthetic, 0 authentic, None where they do not say or say both.

    `not_ai`, `non-fake`: a word of denial turns the meaning round.
    """
    spaced = re.sub(r"([a-z])([A-Z])", r"\1 \2", label)
    words = set(re.split(r"[^a-z]+", spaced.lower())) - {""}
    is_synthetic, is_authentic = bool(words & SYNTHETIC_WORDS), bool(words & AUTHENTIC_WORDS)
    if is_synthetic == is_authentic:
        return None
    return int(is_synthetic) ^ int(bool(words & NOT))


def sides_of(labels: Mapping[int, str], synthetic: Sequence[str], where: str) -> dict[int, int]:
    """Class index -> 1 synthetic, 0 authentic.

    Args:
        labels: index -> name, as the classifier says.
        synthetic: names that a person says mean synthetic, all others then authentic; empty: by their words.
        where: the classifier, for the message.

    Raises:
        UsageError: a label that says neither, a name that is no label, or one side only; the labels are listed.
    """
    listed = ", ".join(repr(name) for name in labels.values())
    if synthetic:
        lower = {name.lower(): i for i, name in labels.items()}
        unknown = [name for name in synthetic if name.lower() not in lower]
        if unknown:
            raise UsageError(f"'{where}' has no label {', '.join(map(repr, unknown))}. Its labels: {listed}.")
        chosen = {lower[name.lower()] for name in synthetic}
        sides = {i: int(i in chosen) for i in labels}
    else:
        told = {i: side_of(name) for i, name in labels.items()}
        vague = [labels[i] for i, side in told.items() if side is None]
        if vague:
            raise UsageError(
                f"Of the labels of '{where}' ({listed}), {', '.join(map(repr, vague))} do not say whether they mean "
                f"synthetic. Name those that do: --synthetic-label {_quoted(vague[-1])}"
            )
        sides = {i: side for i, side in told.items() if side is not None}
    if len(labels) > 1 and len(set(sides.values())) < 2:
        side = "synthetic" if 1 in sides.values() else "authentic"
        raise UsageError(
            f"All labels of '{where}' ({listed}) would mean {side}. Name one: --synthetic-label LABEL"
        )
    return sides


def _quoted(label: str) -> str:
    return f"'{label}'" if re.search(r"[^\w.-]", label) else label
