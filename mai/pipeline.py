"""The four stages joined: a source -> images/ -> detectors/ -> verdict/ -> a Record.

    import mai
    record = mai.scan("photo.jpg")
    scanner = mai.Scanner(["resnet"], fpr=0.01)
    for record in scanner.scan_many(paths): ...

`mai scan`, the Python API and everything else that judges images goes through the Scanner. It never raises
for a bad image: that is a Record with a status and a sentence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mai import __version__
from mai import weights as weights_room
from mai.cache import EvidenceCache, code_fingerprint
from mai.detectors import base
from mai.detectors.base import Detector, DetectorSettings
from mai.errors import ImageError, MaiError, UsageError, WeightsError
from mai.images import decode as decoding
from mai.images.decode import Limits
from mai.images.source import Source, display, open_source
from mai.report.thumbnail import THUMBNAIL_PX, jpeg
from mai.types import Evidence, Image, ImageInfo, Record, Status, Thresholds
from mai.verdict.decide import Policy, decide, is_declared, thresholds
from mai.verdict.fuse import Measured, find_fusion, fuse, load_fusions
from mai.weights.session import Device

if TYPE_CHECKING:
    from mai.types import Pixels

DEFAULT: tuple[str, ...] = ("c2pa", "metadata", "watermark", "pixel")
"""Detectors asked when none are named, as far as they are in the package; `resnet` stands in for `pixel`."""


BATCH_PIXELS = 64_000_000
"""Pixels of one batch, after which it is not filled further: 200 MB decoded."""


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


@dataclass(slots=True)
class _Work:
    """One image on its way; filled stage by stage."""

    path: str
    image: Image | None = None
    error: ImageError | None = None
    evidence: dict[str, Evidence] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)


def default_detectors() -> tuple[str, ...]:
    """The detectors asked when none are named: those of DEFAULT that are here and have what they need.

    Raises:
        WeightsError: neither a network's weights nor any other detector is here.
    """
    known = base.names()
    architectures = {name.rsplit("_v", 1)[0] for name in weights_room.available()}
    found = [name for name in DEFAULT if name in known and (name != "pixel" or name in architectures)]
    if "pixel" not in found and "resnet" in known and "resnet" in architectures:
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


class Scanner:
    """Judges images with a fixed set of detectors and one operating point. Make it once, use it often."""

    def __init__(
        self,
        detectors: Sequence[str] | str | None = None,
        *,
        fpr: float | None = None,
        threshold: float | None = None,
        prior: float | None = None,
        limits: Limits | None = None,
        weights: str | Path | None = None,
        trust: str | Path | None = None,
        n_threads: int = 1,
        thumbnails: bool = False,
        cache: Path | None = None,
        synthetic_labels: Sequence[str] = (),
        device: Device = "cpu",
        batch: int = 1,
    ) -> None:
        """Load the detectors and check that the operating point can be had.

        Args:
            detectors: names, or one text with commas; the default set if None.
            fpr: false-positive rate of the synthetic threshold, 0..1; the weights' own if None.
            threshold: the synthetic threshold itself, above 0 and up to 1, in place of a rate.
            prior: share of synthetic images where the pictures come from, 0..1; adds a posterior.
            limits: most bytes and pixels of an image.
            weights: name or folder of weights in place of the shipped ones.
            trust: PEM file of C2PA trust anchors in place of the bundled list.
            n_threads: threads of one inference session.
            thumbnails: put a small picture into each Record, for pages.
            cache: SQLite file in which evidence is kept by content; None: nothing is kept.
            synthetic_labels: labels of `hub:` classifiers that mean synthetic, where their words do not say it.
            device: where networks run: `cpu`, `cuda`, `tensorrt`. If it cannot be had, `notes` say why and the CPU is
                used.
            batch: pictures that `scan_many` shows a network at once, 1 or more; a gain on a GPU only.

        Raises:
            UsageError: a value out of range, an unknown name, a rate too small for the calibration set.
            WeightsError: a network has no weights, or damaged ones.
            MissingExtraError: a package that a detector needs is not installed.
        """
        self.policy = Policy(fpr=fpr, threshold=threshold, prior=prior)
        given = weights_room.load(weights) if weights is not None else None
        names = _names(detectors, given.architecture if given else None)
        self.settings = ScanSettings(
            names,
            fpr,
            threshold,
            prior,
            limits or Limits(),
            weights,
            Path(trust) if trust else None,
            n_threads,
            thumbnails,
            cache,
            tuple(synthetic_labels),
            device,
            batch,
        )
        self.detectors: dict[str, Detector] = {}
        self.weights: dict[str, weights_room.Weights] = {}
        for name in names:
            own = given if given is not None and given.architecture == name else None
            told = DetectorSettings(
                own.folder if own else None,
                n_threads,
                self.settings.trust,
                self.settings.synthetic_labels,
                device,
            )
            detector = base.load(name, told)
            self.detectors[name] = detector
            if detector.kind == "network":
                if detector.weights is None:
                    raise WeightsError(f"The network '{name}' does not say which weights it uses.")
                loaded = own or getattr(detector, "loaded", None)
                self.weights[name] = loaded or weights_room.load(detector.weights)
        if given is not None and given.architecture not in self.weights:
            raise UsageError(
                f"The weights {given.name} are for '{given.architecture}', which is not among the detectors "
                f"{', '.join(names)}. Add it: --detectors {','.join((*names, given.architecture))}"
            )
        self.fusions = load_fusions() if len(self.weights) > 1 else {}
        self._needs_pixels = any(detector.needs == "pixels" for detector in self.detectors.values())
        self._cache = EvidenceCache(cache) if cache is not None else None
        self._keys = self._cache_keys() if cache is not None else {}
        self._check_operating_point()

    def _cache_keys(self) -> dict[str, str]:
        """Detector -> all that its evidence depends on beside the file's bytes."""
        trust = self.settings.trust
        anchors = hashlib.sha256(trust.read_bytes()).hexdigest()[:16] if trust else ""
        code = f"{__version__}:{code_fingerprint()}"
        keys: dict[str, str] = {}
        for name in self.detectors:
            own = self.weights.get(name)
            made_of = f"{own.name}:{own.config_digest}" if own else str(self.detectors[name].weights or "")
            if own and self.settings.device != "cpu":  # its last digits are others
                made_of += f":{self.settings.device}"
            keys[name] = f"{name}:{made_of}:{anchors if name == 'c2pa' else ''}:{code}"
        return keys

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what could not be had as it was asked for."""
        said = (getattr(detector, "problem", None) for detector in self.detectors.values())
        return tuple(dict.fromkeys(filter(None, said)))

    def close(self) -> None:
        """Write what the cache still holds back. A Scanner without a cache has nothing to close."""
        if self._cache is not None:
            self._cache.close()

    def _check_operating_point(self) -> None:
        """Refuse a rate now that would fail at the first image."""
        if not self.weights and (self.policy.fpr is not None or self.policy.threshold is not None):
            raise UsageError(
                "A false-positive rate or a threshold is of a network's score, and no network is among the "
                f"detectors {', '.join(self.detectors)}."
            )
        for measured in (*self.weights.values(), *filter(None, [self.measured])):
            thresholds(measured, self.policy)

    @property
    def measured(self) -> Measured | None:
        """Whose measured thresholds hold when every network looks; None without a network."""
        networks = list(self.weights.values())
        return find_fusion(networks, self.fusions) or (networks[0] if networks else None)

    @property
    def thresholds(self) -> Thresholds | None:
        """The operating point of this scanner; None without a network."""
        return thresholds(self.measured, self.policy) if self.measured else None

    def scan(self, source: Source) -> Record:
        """Judge one image.

        Args:
            source: a path (taken literally), encoded bytes, a PIL image, or an array uint8 RGB (H, W, 3).

        Raises:
            UsageError: the source is none of these.
        """
        work = self._open(source)
        for detector in self.detectors.values():
            self._look(detector, work)
        return self._row(work)

    def _row(self, work: _Work) -> Record:
        self._keep(work)
        record = self._record(work)
        if not self.settings.thumbnails or work.image is None or work.error is not None:
            return record
        pixels = self.pixels(work.image)
        return record if pixels is None else replace(record, thumbnail=jpeg(pixels, THUMBNAIL_PX))

    def statements(self, source: Source) -> Record:
        """What a file says itself: the evidence of the detectors that need no pixels, and no verdict; see join."""
        work = self._open(source, decode=False)
        for detector in self.detectors.values():
            if detector.needs == "bytes":
                self._look(detector, work)
        self._keep(work)
        info = work.image.info if work.image else None
        evidence = tuple(work.evidence[n] for n in self.detectors if n in work.evidence)
        if work.error:
            return _failed(work, evidence, info, work.error.status, str(work.error))
        return Record(work.path, "ok", None, evidence, info, None, work.seconds)

    def join(self, record: Record, shared: Iterable[Evidence]) -> Record:
        """The row of a file whose pixels show what those of another do.

        Args:
            record: of `statements`.
            shared: evidence of the other from the detectors that look at pixels.
        """
        image = Image(record.path, record.image, None, None) if record.image else None
        work = _Work(record.path, image, seconds=dict(record.seconds))
        work.evidence.update((e.detector, e) for e in (*record.evidence, *shared))
        return self._record(work)

    def examine(self, source: Source) -> tuple[Record, Image | None]:
        """Judge one image, and hand on what was read of it, for a report: None if that failed.

        Args:
            source: see scan.

        Raises:
            UsageError: the source is of no kind that can be an image.
        """
        work = self._open(source)
        for detector in self.detectors.values():
            self._look(detector, work)
        self._keep(work)
        return self._record(work), work.image if work.error is None else None

    def pixels(self, image: Image) -> Pixels | None:
        """The pixels of an image, also where no detector needed them; None if they cannot be had."""
        try:
            return decoding.decode(image, self.settings.limits).pixels
        except (ImageError, MemoryError):
            return None

    def measured_for(self, record: Record) -> Measured | None:
        """Whose thresholds a verdict was made with: not always `measured`, as a network may have failed."""
        opinion = fuse(record.evidence, self.weights, self.fusions)
        return opinion.measured if opinion else None

    def scan_many(self, sources: Iterable[Source]) -> Iterator[Record]:
        """Judge images one after another, lazily and in order; memory does not grow with their number.

        On a CPU one image is held at a time: all its views are one batch of a network already, and batches over images
        measured slower (the pixels leave the cache before the network looks at them). With `batch` above 1, so many.

        Args:
            sources: see scan; for folders, globs and shards give `mai.images.find.find(...)`.

        Raises:
            UsageError: a source is of no kind that can be an image.
        """
        if self.settings.batch <= 1:
            for source in sources:
                yield self.scan(source)
            return
        works: list[_Work] = []
        n_pixels = 0
        for source in sources:
            works.append(self._open(source))
            info = works[-1].image
            n_pixels += info.info.width * info.info.height if info else 0
            if len(works) >= self.settings.batch or n_pixels >= BATCH_PIXELS:
                yield from self._rows(works)
                works, n_pixels = [], 0
        yield from self._rows(works)

    def _rows(self, works: list[_Work]) -> Iterator[Record]:
        """Rows of pictures that a network looks at together."""
        for name, detector in self.detectors.items():
            todo = [w for w in works if name not in w.evidence and w.image and w.image.pixels is not None]
            if detector.kind == "network" and len(todo) > 1:
                self._look_together(detector, todo)
            for work in works:
                self._look(detector, work)
        for work in works:
            yield self._row(work)

    def _look_together(self, detector: Detector, works: list[_Work]) -> None:
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

    def _open(self, source: Source, decode: bool = True) -> _Work:
        """Read, and decode if a detector looks at pixels. What goes wrong stands in the work."""
        work = _Work(display(source))
        start = perf_counter()
        try:
            work.image = open_source(source, self.settings.limits)
            work.path = work.image.path
            work.seconds["read"] = perf_counter() - start
            self._remember(work)
            if (
                decode
                and self._needs_pixels
                and work.image.pixels is None
                and len(work.evidence) < len(self.detectors)
            ):
                start = perf_counter()
                work.image = decoding.decode(work.image, self.settings.limits)
                work.seconds["decode"] = perf_counter() - start
        except ImageError as error:
            work.error = error
        except MemoryError:
            work.error = ImageError("too_large", "There was not enough memory to decode the image.")
        except MaiError:
            raise
        except Exception as error:  # a reader's own mistake must not stop the scan; it is told in the row
            work.error = ImageError("unsupported", f"Reading failed unexpectedly: {_sentence(error)}")
        return work

    def _remember(self, work: _Work) -> None:
        """Take from the cache what is known of these bytes."""
        if self._cache is None or work.image is None or work.image.data is None:
            return
        known = self._cache.read(work.image.info.sha256, self._keys.values())
        for name, key in self._keys.items():
            if key in known:
                work.evidence[name] = known[key]
                work.known.add(name)

    def _keep(self, work: _Work) -> None:
        """Put new evidence into the cache. Of a file whose pixels failed, nothing: it is looked at anew."""
        if self._cache is None or work.image is None or work.image.data is None or work.error is not None:
            return
        fresh = {self._keys[n]: e for n, e in work.evidence.items() if n not in work.known}
        if fresh:
            self._cache.write(work.image.info.sha256, fresh)

    def _look(self, detector: Detector, work: _Work) -> None:
        """Ask one detector, if it can look at this image; bytes are read even of a broken picture."""
        image = work.image
        if detector.name in work.evidence:  # known from the cache
            return
        if image is None or (detector.needs == "pixels" and image.pixels is None):
            return
        start = perf_counter()
        work.evidence[detector.name] = _ask(detector, image)
        work.seconds[detector.name] = perf_counter() - start

    def _record(self, work: _Work) -> Record:
        evidence = self._with_notes(tuple(work.evidence[n] for n in self.detectors if n in work.evidence))
        info = work.image.info if work.image else None
        if work.error:
            return _failed(work, evidence, info, work.error.status, str(work.error))
        if not is_declared(evidence):
            failed = [e for e in evidence if e.status == "failed"]
            has_looked = any(
                e.status == "ok" and e.score is not None for e in evidence if e.detector in self.weights
            )
            if (self.weights and not has_looked) or len(failed) == len(evidence):
                told = " ".join(f"{e.detector}: {e.note}" for e in failed) or "No detector answered."
                return _failed(work, evidence, info, "detector_failed", told)
        verdict = decide(evidence, self.weights, self.policy, self.fusions)
        return Record(work.path, "ok", verdict, evidence, info, None, work.seconds)

    def _with_notes(self, evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
        """Say it where a network's score is shown but does not enter the verdict's score."""
        opinion = fuse(evidence, self.weights, self.fusions) if len(self.weights) > 1 else None
        if opinion is None or not opinion.unweighed:
            return evidence
        return tuple(
            replace(e, note=f"{e.note} Shown, not weighed: no fusion was fitted for these networks.".strip())
            if e.detector in opinion.unweighed
            else e
            for e in evidence
        )


def scan(source: Source, detectors: Sequence[str] | str | None = None, **settings: Any) -> Record:
    """Judge one image; the detectors stay loaded for the next call with the same settings.

    Args:
        source: a path, encoded bytes, a PIL image, or an array uint8 RGB (H, W, 3).
        detectors: see Scanner.
        settings: the keyword arguments of Scanner.

    Raises:
        UsageError, WeightsError, MissingExtraError: as Scanner; never for a bad image.
    """
    if not isinstance(detectors, str) and detectors is not None:
        detectors = ",".join(detectors)
    return _scanner(detectors, **settings).scan(source)


@lru_cache(maxsize=4)
def _scanner(detectors: str | None, **settings: Any) -> Scanner:
    return Scanner(detectors, **settings)


def _names(detectors: Sequence[str] | str | None, architecture: str | None) -> tuple[str, ...]:
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


def _ask(detector: Detector, image: Image) -> Evidence:
    """Its evidence, also from a detector that breaks its promise and raises."""
    try:
        (evidence,) = detector.look([image])
    except Exception as error:
        return Evidence(detector.name, detector.weights, "failed", note=f"It failed: {_sentence(error)}")
    return _finite(evidence)


def _finite(evidence: Evidence) -> Evidence:
    """A score that is no number says nothing, and would pass every comparison with a threshold as false."""
    if all(value is None or math.isfinite(value) for value in (evidence.logit, evidence.score)):
        return evidence
    note = f"The network gave {evidence.logit}, which is no number."
    return replace(evidence, status="failed", logit=None, score=None, note=note)


def _failed(
    work: _Work, evidence: tuple[Evidence, ...], info: ImageInfo | None, status: Status, message: str
) -> Record:
    return Record(work.path, status, None, evidence, info, message, work.seconds)


def _sentence(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
