"""One image on its way through the detectors: what is known of it, and how each is asked, whatever it raises."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from time import perf_counter

from mai.detectors.base import Detector
from mai.errors import ImageError
from mai.types import Evidence, Image, ImageInfo, Record, Status


@dataclass(slots=True)
class Work:
    """One image on its way; filled stage by stage."""

    path: str
    image: Image | None = None
    error: ImageError | None = None
    evidence: dict[str, Evidence] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)


def look(detector: Detector, work: Work) -> None:
    """Ask one detector, if it can look at this image; bytes are read even of a broken picture."""
    image = work.image
    if detector.name in work.evidence:  # known from the cache
        return
    if image is None or (detector.needs == "pixels" and not image.is_decoded):
        return
    start = perf_counter()
    work.evidence[detector.name] = _ask(detector, image)
    work.seconds[detector.name] = perf_counter() - start


def look_together(detector: Detector, works: list[Work]) -> None:
    """One batch. If that fails, nothing is said, and each picture is looked at alone."""
    start = perf_counter()
    try:
        found = detector.look([work.image for work in works if work.image])
    except Exception:
        return
    if len(found) == len(works):
        for work, evidence in zip(works, found, strict=True):
            work.evidence[detector.name] = _finite(evidence)
            work.seconds[detector.name] = (perf_counter() - start) / len(works)


def _ask(detector: Detector, image: Image) -> Evidence:
    """Its evidence, also from a detector that breaks its promise and raises."""
    try:
        (evidence,) = detector.look([image])
    except Exception as error:
        return Evidence(detector.name, detector.weights, "failed", note=f"It failed: {sentence(error)}")
    return _finite(evidence)


def _finite(evidence: Evidence) -> Evidence:
    """A score that is no number says nothing, and would pass every comparison with a threshold as false."""
    if all(value is None or math.isfinite(value) for value in (evidence.logit, evidence.score)):
        return evidence
    note = f"The network gave {evidence.logit}, which is no number."
    return replace(evidence, status="failed", logit=None, score=None, note=note)


def failed(
    work: Work, evidence: tuple[Evidence, ...], info: ImageInfo | None, status: Status, message: str
) -> Record:
    """The row of an image that has no verdict."""
    return Record(work.path, status, None, evidence, info, message, work.seconds)


def sentence(error: BaseException) -> str:
    """What an error that nobody foresaw says, in one line."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
