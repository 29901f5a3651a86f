"""The four stages joined: a source -> images/ -> detectors/ -> verdict/ -> a Record.

    import mai
    record = mai.scan("photo.jpg")
    scanner = mai.Scanner(["resnet"], fpr=0.01)
    for record in scanner.scan_many(paths): ...

`mai scan`, the Python API and everything else that judges images goes through the Scanner. It never raises
for a bad image: that is a Record with a status and a sentence.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mai import choice
from mai import weights as weights_room
from mai.asking import Work, failed, look, look_together, sentence
from mai.cache import EvidenceCache
from mai.choice import DEFAULT, ScanSettings, default_detectors, load_detector
from mai.detectors.base import least_px
from mai.errors import ImageError, MaiError, UsageError
from mai.images import decode as decoding
from mai.images.decode import Limits
from mai.images.source import Source, display, open_source
from mai.report.thumbnail import THUMBNAIL_PX, jpeg
from mai.types import Evidence, Image, Record, Thresholds
from mai.verdict.decide import Policy, decide, is_declared, thresholds
from mai.verdict.fuse import Measured, find_fusion, fuse, load_fusions
from mai.weights.session import Device

if TYPE_CHECKING:
    from mai.types import Pixels

__all__ = ["DEFAULT", "ScanSettings", "Scanner", "default_detectors", "load_detector", "scan"]

BATCH_PIXELS = 64_000_000
"""Pixels of one batch, after which it is not filled further: 200 MB decoded."""


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
        cache: str | Path | None = None,
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
        names = choice.names(detectors, given.architecture if given else None)
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
            Path(cache) if cache else None,
            tuple(synthetic_labels),
            device,
            batch,
        )
        chosen = choice.load(self.settings, given)
        self.detectors, self.weights = chosen.detectors, chosen.weights
        self.fusions = load_fusions() if len(self.weights) > 1 else {}
        self._needs_pixels = any(detector.needs == "pixels" for detector in self.detectors.values())
        kept_in = self.settings.cache
        self._cache = EvidenceCache(kept_in) if kept_in else None
        self._keys = choice.cache_keys(chosen, self.settings) if kept_in else {}
        self._check_operating_point()

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
            look(detector, work)
        return self._row(work)

    def _row(self, work: Work) -> Record:
        self._keep(work)
        record = self._record(work)
        if not self.settings.thumbnails or work.image is None or work.error is not None:
            return record
        pixels = next(iter(work.image.reduced.values()), None)
        if pixels is None:
            pixels = self.pixels(work.image)
        return record if pixels is None else replace(record, thumbnail=jpeg(pixels, THUMBNAIL_PX))

    def statements(self, source: Source) -> Record:
        """What a file says itself: the evidence of the detectors that need no pixels, and no verdict; see join."""
        work = self._open(source, decode=False)
        for detector in self.detectors.values():
            if detector.needs == "bytes":
                look(detector, work)
        self._keep(work)
        info = work.image.info if work.image else None
        evidence = tuple(work.evidence[n] for n in self.detectors if n in work.evidence)
        if work.error:
            return failed(work, evidence, info, work.error.status, str(work.error))
        return Record(work.path, "ok", None, evidence, info, None, work.seconds)

    def join(self, record: Record, shared: Iterable[Evidence]) -> Record:
        """The row of a file whose pixels show what those of another do.

        Args:
            record: of `statements`.
            shared: evidence of the other from the detectors that look at pixels.
        """
        image = Image(record.path, record.image, None, None) if record.image else None
        work = Work(record.path, image, seconds=dict(record.seconds))
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
            look(detector, work)
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
        works: list[Work] = []
        n_pixels = 0
        for source in sources:
            works.append(self._open(source))
            info = works[-1].image
            n_pixels += info.info.width * info.info.height if info else 0
            if len(works) >= self.settings.batch or n_pixels >= BATCH_PIXELS:
                yield from self._rows(works)
                works, n_pixels = [], 0
        yield from self._rows(works)

    def _rows(self, works: list[Work]) -> Iterator[Record]:
        """Rows of pictures that a network looks at together."""
        for name, detector in self.detectors.items():
            todo = [w for w in works if name not in w.evidence and w.image and w.image.is_decoded]
            if detector.kind == "network" and len(todo) > 1:
                look_together(detector, todo)
            for work in works:
                look(detector, work)
        for work in works:
            yield self._row(work)

    def _open(self, source: Source, decode: bool = True) -> Work:
        """Read, and decode if a detector looks at pixels. What goes wrong stands in the work."""
        work = Work(display(source))
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
                work.image = self._decoded(work.image, work.evidence)
                work.seconds["decode"] = perf_counter() - start
        except ImageError as error:
            work.error = error
        except MemoryError:
            work.error = ImageError("too_large", "There was not enough memory to decode the image.")
        except MaiError:
            raise
        except Exception as error:  # a reader's own mistake must not stop the scan; it is told in the row
            work.error = ImageError("unsupported", f"Reading failed unexpectedly: {sentence(error)}")
        return work

    def _decoded(self, image: Image, known: Container[str]) -> Image:
        """The image with the pixels that its detectors need: all, or those of a JPEG at a part of their size.

        Raises:
            ImageError: as decode.
        """
        eyes = [d for name, d in self.detectors.items() if d.needs == "pixels" and name not in known]
        asked = [least_px(detector, image) for detector in eyes]
        reductions = {decoding.reduction(image, least) for least in asked if least}
        for n in sorted(reductions - {1}):
            image = decoding.decode_reduced(image, self.settings.limits, n)
        needs_all = None in asked or not reductions or 1 in reductions
        return decoding.decode(image, self.settings.limits) if needs_all else image

    def _remember(self, work: Work) -> None:
        """Take from the cache what is known of these bytes."""
        if self._cache is None or work.image is None or work.image.data is None:
            return
        known = self._cache.read(work.image.info.sha256, self._keys.values())
        for name, key in self._keys.items():
            if key in known:
                work.evidence[name] = known[key]
                work.known.add(name)

    def _keep(self, work: Work) -> None:
        """Put new evidence into the cache. Of a file whose pixels failed, nothing: it is looked at anew."""
        if self._cache is None or work.image is None or work.image.data is None or work.error is not None:
            return
        fresh = {self._keys[n]: e for n, e in work.evidence.items() if n not in work.known}
        if fresh:
            self._cache.write(work.image.info.sha256, fresh)

    def _record(self, work: Work) -> Record:
        evidence = self._with_notes(tuple(work.evidence[n] for n in self.detectors if n in work.evidence))
        info = work.image.info if work.image else None
        if work.error:
            return failed(work, evidence, info, work.error.status, str(work.error))
        if not is_declared(evidence):
            silent = [e for e in evidence if e.status == "failed"]
            has_looked = any(
                e.status == "ok" and e.score is not None for e in evidence if e.detector in self.weights
            )
            if (self.weights and not has_looked) or len(silent) == len(evidence):
                told = " ".join(f"{e.detector}: {e.note}" for e in silent) or "No detector answered."
                return failed(work, evidence, info, "detector_failed", told)
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
