"""What a detector is: one file in this folder, its stem is its name, with one class `Detector`.

    class Detector:
        name = "resnet"
        needs = "pixels"                 # or "bytes": looks at Image.data, the pixels are not decoded for it
        kind = "network"                 # or "statement": says something about the file, has no logit;
                                     # or "uncalibrated": has a logit and no score, is shown and not weighed
        def __init__(self, settings: DetectorSettings) -> None: ...
        weights: str | None
        def look(self, images: Sequence[Image]) -> list[Evidence]: ...
        def least_px(self, image: Image) -> int | None: ...          # may be missing, see least_px below

`look` returns one Evidence for each image, in order, and raises nothing for a bad image: it answers with
status `failed` and a note. Detectors never import one another and never decide.

`hub:ORG/NAME` and `hub:FOLDER` are detectors too: any image classifier of transformers (_hub.py).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from mai.errors import UnknownNameError
from mai.types import Evidence, Image
from mai.weights.session import Device

Needs = Literal["bytes", "pixels"]
Kind = Literal["network", "statement", "uncalibrated"]


@dataclass(frozen=True, slots=True)
class DetectorSettings:
    """What a detector may be told from outside.

    Attributes:
        weights: a folder of weights in place of the shipped ones.
        n_threads: threads of one inference session.
        trust: PEM file of C2PA trust anchors in place of the bundled list.
        synthetic_labels: labels of a `hub:` classifier that mean synthetic, where their words do not say it.
        device: where a network runs.
    """

    weights: Path | None = None
    n_threads: int = 1
    trust: Path | None = None
    synthetic_labels: tuple[str, ...] = ()
    device: Device = "cpu"


class Detector(Protocol):
    """The interface of every detector, see the head of this module."""

    name: str
    needs: Needs
    kind: Kind
    weights: str | None

    def look(self, images: Sequence[Image]) -> list[Evidence]:
        """One Evidence an image, in order."""
        ...


def least_px(detector: Detector, image: Image) -> int | None:
    """Short side in pixels that a detector needs of a picture that is not decoded yet.

    Returns:
        None: all pixels (so does every detector without a `least_px` of its own); 0: none of this one.
    """
    ask = getattr(detector, "least_px", None)
    found: int | None = ask(image) if ask is not None else None
    return found


def names() -> list[str]:
    """Names of all detectors: the files of this folder, without importing any."""
    folder = str(Path(__file__).parent)
    return sorted(
        m.name for m in pkgutil.iter_modules([folder]) if m.name != "base" and not m.name.startswith("_")
    )


def load(name: str, settings: DetectorSettings | None = None) -> Detector:
    """Make the detector `name` ready to look.

    Raises:
        UnknownNameError: no file of that name; the message names the nearest.
        WeightsError: its weights are missing or damaged.
        MissingExtraError: a package that it needs is not installed.
    """
    if name.startswith("hub:"):
        from mai.detectors._hub import HubDetector

        return HubDetector(name, settings or DetectorSettings())
    if name not in names():
        raise UnknownNameError("detector", name, names())
    module = importlib.import_module(f"mai.detectors.{name}")
    return cast(Detector, module.Detector(settings or DetectorSettings()))
