"""What each layer of MAI found, in plain words: the same on the terminal and on a page.

Texts are returned as they were found; whoever shows them makes them harmless (mai/report/escape.py, page.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mai.detectors import base
from mai.report.words import score_words
from mai.types import Evidence

LAYERS: dict[str, tuple[str, str]] = {
    "c2pa": ("Content Credentials (C2PA)", "signed statements about where the file comes from"),
    "metadata": ("Metadata", "what programs wrote into the file: EXIF, XMP, IPTC, text"),
    "watermark": ("Watermarks", "known marks that generators hide in the pixels"),
    "pixel": ("Network 'pixel'", "the picture itself"),
    "resnet": ("Network 'resnet'", "the picture itself, in squares"),
    "moondream": ("Vision-language model 'moondream'", "what the picture shows"),
    "probe": ("Network 'probe'", "the picture itself, through a general-purpose network"),
}
"""Detector -> its title and what it looks at. A detector that is not here is called by its name."""

DECLARES: dict[str, str] = {
    "synthetic": "declares that AI made the picture",
    "edited": "declares an edit with AI",
    "capture": "declares a camera's capture",
}

NEVER_CHECKED: tuple[str, ...] = (
    "Watermarks that only their makers can read, such as SynthID.",
    "Anything outside the file: nothing was fetched, no copies of the picture were searched for.",
    "Edits made without AI, and whether what the picture shows is what is said about it.",
)
"""What MAI cannot look at, whatever is asked of it."""

MAX_DETAILS = 80
"""Most facts shown of one layer."""

MAX_CHARS = 2_000
"""Most characters shown of one fact."""

MAX_DEPTH = 6
"""How deep facts within facts are followed."""


def title(detector: str) -> str:
    """What a layer is called."""
    return LAYERS[detector][0] if detector in LAYERS else detector


def looks_at(detector: str) -> str | None:
    """What a layer looks at, in a few words; None of one that is not known here."""
    return LAYERS[detector][1] if detector in LAYERS else None


def finding(evidence: Evidence) -> str:
    """What a layer found, in a few words."""
    if evidence.status == "absent":
        return "nothing found"
    if evidence.status == "failed":
        return "could not look"
    if evidence.status == "skipped":
        return "did not look"
    if evidence.score is not None:
        counted = ", does not count" if evidence.details.get("low_quality") is True else ""
        return f"score {score_words(evidence.score)}{counted}"
    state = evidence.details.get("state")
    declared = DECLARES.get(str(evidence.details.get("declares")))
    if state in ("invalid", "remote_only"):
        told = "damaged or changed" if state == "invalid" else "lies elsewhere, not fetched"
        return f"{told}; does not count"
    if declared is None:
        return "something found, decides nothing"
    signer = {"trusted": ", trusted signer", "valid_untrusted": ", untrusted signer"}.get(str(state), "")
    return declared + signer


def is_telling(evidence: Evidence) -> bool:
    """True if the layer says something about how the picture was made."""
    return evidence.status == "ok" and (
        evidence.score is not None or evidence.details.get("declares") is not None
    )


def details(evidence: Evidence) -> list[tuple[str, str]]:
    """The facts of a layer as name and value, facts within facts joined by ' > '; long ones cut, and said so."""
    rows: list[tuple[str, str]] = []
    for name, value in _facts("", evidence.details, 0):
        if len(rows) == MAX_DETAILS:
            rows.append(("and more", f"only the first {MAX_DETAILS} facts are shown; the JSON holds all"))
            break
        rows.append((name, _cut(value)))
    return rows


def unchecked(evidence: Sequence[Evidence], asked: Sequence[str]) -> list[str]:
    """What was not looked at in one image.

    Args:
        evidence: what came of it.
        asked: detectors that would have looked, had the file let them.

    Returns:
        Layers that could not look, layers not asked, what MAI cannot look at.
    """
    found = {entry.detector for entry in evidence}
    stopped = [f"{title(name)}: did not get to look." for name in asked if name not in found]
    failed = [
        f"{title(entry.detector)}: {finding(entry)}. {entry.note}".strip()
        for entry in evidence
        if entry.status in ("failed", "skipped")
    ]
    return [*stopped, *failed, *not_asked([*found, *asked])]


def not_asked(asked: Iterable[str]) -> list[str]:
    """What is not looked at when these detectors are asked."""
    asked = set(asked)
    missing = [
        f"{title(name)}: not asked" + (f" ({looks})." if (looks := looks_at(name)) else ".")
        for name in base.names()
        if name not in asked
    ]
    return [*missing, *NEVER_CHECKED]


def _facts(name: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    """Flat name and value of a tree of JSON values; what says nothing (None, empty) is left out."""
    if value is None or value in ("", [], {}, ()):
        return
    if depth >= MAX_DEPTH:
        yield name, "..."
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            said = str(key).replace("_", " ")
            yield from _facts(f"{name} > {said}" if name else said, inner, depth + 1)
    elif isinstance(value, list | tuple):
        if all(not isinstance(inner, Mapping | list | tuple) for inner in value):
            yield name, ", ".join(_scalar(inner) for inner in value[: MAX_DETAILS * 10])
        else:
            for number, inner in enumerate(value, 1):
                yield from _facts(f"{name} {number}", inner, depth + 1)
    else:
        yield name, _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARS:
        return text
    return f"{text[:MAX_CHARS]}... ({len(text) - MAX_CHARS:,} more characters)"
