"""Which detectors are asked, with which weights: what a Scanner is made of before it has seen an image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mai import __version__
from mai import weights as weights_room
from mai.cache import code_fingerprint
from mai.detectors import base
from mai.detectors.base import Detector, DetectorSettings
from mai.errors import UsageError, WeightsError
from mai.images.decode import Limits
from mai.weights.session import Device

DEFAULT: tuple[str, ...] = ("c2pa", "metadata", "watermark", "pixel")
"""Detectors asked when none are named, as far as they are in the package; `resnet` stands in for `pixel`."""


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """All that makes a Scanner, small and picklable: it travels to worker processes. See Scanner."""

    detectors: tuple[str, ...] | None = None
    fpr: float | None = None
    threshold: float | None = None
    prior: float | None = None
    limits: Limits = field(default_factory=Limits)
    weights: str | Path | None = None
    trust: Path | None = None
    n_threads: int = 1
    thumbnails: bool = False
    cache: Path | None = None
    synthetic_labels: tuple[str, ...] = ()
    device: Device = "cpu"
    batch: int = 1


def default_detectors() -> tuple[str, ...]:
    """The detectors asked when none are named: those of DEFAULT that are here and have what they need.

    Raises:
        WeightsError: neither a network's weights nor any other detector is here.
    """
    known = base.names()
    families = weights_room.families()
    found = [name for name in DEFAULT if name in known and (name != "pixel" or name in families)]
    if "pixel" not in found and "resnet" in known and "resnet" in families:
        found.append("resnet")
    if not found:
        weights_room.latest("resnet")  # raises, and says how weights are made
    return tuple(found)


def load_detector(
    name: str,
    *,
    weights: str | Path | None = None,
    trust: str | Path | None = None,
    n_threads: int = 1,
) -> Detector:
    """Make one detector ready; `detector.look(images)` then gives evidence without a verdict.

    Raises:
        UnknownNameError: no detector of that name.
        WeightsError: its weights are missing or damaged.
        MissingExtraError: a package that it needs is not installed.
    """
    folder = weights_room.load(weights).folder if weights is not None else None
    return base.load(name, DetectorSettings(folder, n_threads, Path(trust) if trust else None))


def names(detectors: Sequence[str] | str | None, architecture: str | None) -> tuple[str, ...]:
    """The asked names in order, each once; weights without names put their network in the default's place."""
    if detectors is None:
        if architecture is None:
            return default_detectors()
        known = base.names()
        return (*(n for n in DEFAULT if n in known and n != "pixel"), architecture)
    listed = detectors.split(",") if isinstance(detectors, str) else detectors
    names = tuple(dict.fromkeys(name.strip() for name in listed if name.strip()))
    if not names:
        raise UsageError(f"No detector is named. Known: {', '.join(base.names())}.")
    return names


@dataclass(frozen=True, slots=True)
class Chosen:
    """Detectors made ready, by name in the order that they are asked, and the weights of those that are networks."""

    detectors: dict[str, Detector]
    weights: dict[str, weights_room.Weights]


def load(settings: ScanSettings, given: weights_room.Weights | None) -> Chosen:
    """Make the detectors of a Scanner ready.

    Args:
        settings: with the detectors' names.
        given: weights in place of the shipped ones.

    Raises:
        UsageError: the weights are of no named detector.
        WeightsError: a network has no weights, or damaged ones.
        MissingExtraError: a package that a detector needs is not installed.
    """
    detectors: dict[str, Detector] = {}
    weights: dict[str, weights_room.Weights] = {}
    for name in settings.detectors or ():
        own = given if given is not None and given.architecture == name else None
        told = DetectorSettings(
            own.folder if own else None,
            settings.n_threads,
            settings.trust,
            settings.synthetic_labels,
            settings.device,
        )
        detector = base.load(name, told)
        detectors[name] = detector
        if detector.kind == "network":
            if detector.weights is None:
                raise WeightsError(f"The network '{name}' does not say which weights it uses.")
            loaded = own or getattr(detector, "loaded", None)
            weights[name] = loaded or weights_room.load(detector.weights)
    if given is not None and given.architecture not in weights:
        raise UsageError(
            f"The weights {given.name} are for '{given.architecture}', which is not among the detectors "
            f"{', '.join(detectors)}. Add it: --detectors {','.join((*detectors, given.architecture))}"
        )
    return Chosen(detectors, weights)


def cache_keys(chosen: Chosen, settings: ScanSettings) -> dict[str, str]:
    """Detector -> all that its evidence depends on beside the file's bytes."""
    trust = settings.trust
    anchors = hashlib.sha256(trust.read_bytes()).hexdigest()[:16] if trust else ""
    code = f"{__version__}:{code_fingerprint()}"
    keys: dict[str, str] = {}
    for name in chosen.detectors:
        own = chosen.weights.get(name)
        made_of = f"{own.name}:{own.config_digest}" if own else str(chosen.detectors[name].weights or "")
        if own and settings.device != "cpu":  # its last digits are others
            made_of += f":{settings.device}"
        keys[name] = f"{name}:{made_of}:{anchors if name == 'c2pa' else ''}:{code}"
    return keys
