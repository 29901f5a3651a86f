"""How good a network is on a labelled set: one score a picture, native and aligned, with intervals over sources.

native: the stored files as they are. aligned: both classes through the same drawn square window, size and codec
(mai/data/augment.py), so that neither format nor shape can help. A row that is a view already (column `view`: crop or
whole) gives that kind of view only; a row that is a whole file gives both, as in use.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.data.augment import aligned, draw_name
from mai.errors import DataError, ImageError
from mai.images.views import ViewPlan, by_side, native_views, whole_views
from mai.measure import metrics

if TYPE_CHECKING:
    from mai.data.sources import Row
    from mai.measure.calibrate import Calibration
    from mai.types import Pixels

Logits = Callable[[NDArray[np.uint8]], NDArray[Any]]
"""uint8 views (B, S, S, 3) -> logits (B,)."""

ALIGNED_FILE_PX = 448
"""Side that aligned whole files are resized to: within the 448..576 px that people have in their hands."""


@dataclass(slots=True)
class Picture:
    """All that was measured on one picture.

    Attributes:
        image: its name.
        label: 1 synthetic, 0 authentic.
        source: unit of balancing and bootstrapping.
        generator: empty for authentic.
        content: kind of content, empty where the set does not say.
        whole: logits of its whole views.
        native: logits of its native views.
    """

    image: str
    label: int
    source: str
    generator: str
    content: str
    whole: list[float] = field(default_factory=list)
    native: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Scored:
    """A set's pictures with their views' logits, and the files that could not be read (file -> sentence)."""

    pictures: list[Picture]
    broken: dict[str, str]

    def logits(self, plan: ViewPlan) -> NDArray[np.float64]:
        """One logit a picture, float64 (P,)."""
        return np.array([plan.combine(p.whole, p.native) for p in self.pictures])

    @property
    def labels(self) -> NDArray[np.int64]:
        """(P,) 1 synthetic, 0 authentic."""
        return np.array([p.label for p in self.pictures], np.int64)

    @property
    def sources(self) -> list[str]:
        """(P,) names."""
        return [p.source for p in self.pictures]


def views_of_row(
    row: Row, pixels: Pixels, plan: ViewPlan, protocol: str
) -> tuple[list[Pixels], list[Pixels]]:
    """Whole and native views of one labelled row.

    Args:
        row: says which views it can give.
        pixels: uint8 RGB (H, W, 3), decoded.
        plan: which views the network takes.
        protocol: `native` or `aligned`.
    """
    if protocol == "aligned":
        rng = np.random.default_rng([0, zlib.crc32(f"{draw_name(row.image)}:{row.view or ''}".encode())])
        if row.view in ("crop", "whole"):
            view, _ = aligned(pixels, rng, plan.side(row.view))
            return ([view], []) if row.view == "whole" else ([], [view])
        pixels, _ = aligned(pixels, rng, ALIGNED_FILE_PX)
    whole = [] if row.view == "crop" else whole_views(pixels, plan)
    has_native = row.view == "crop" or (row.view != "whole" and plan.asks_native)
    return whole, native_views(pixels, plan) if has_native else []


def score_rows(
    rows: Sequence[Row], logits: Logits, plan: ViewPlan, protocol: str, quiet: bool = False
) -> Scored:
    """Score all rows, in batches, one Picture an `image` name.

    Raises:
        DataError: no row could be read.
    """
    pictures: dict[str, Picture] = {}
    broken: dict[str, str] = {}
    least_px = plan.least_px if protocol == "native" else None  # as `mai scan` reads files
    waiting: list[tuple[list[float], Pixels]] = []
    for number, (row, pixels) in enumerate(decoded(rows, broken, least_px)):
        picture = pictures.setdefault(
            row.image,
            Picture(row.image, row.label, row.source or row.image, row.generator or "", row.content or ""),
        )
        whole, native = views_of_row(row, pixels, plan, protocol)
        waiting += [(picture.whole, view) for view in whole] + [(picture.native, view) for view in native]
        if len(waiting) >= 32:
            _run(waiting, logits)
        if not quiet and sys.stderr.isatty() and number % 50 == 0:
            print(f"\r{protocol}: {number:,} of {len(rows):,}", end="", file=sys.stderr, flush=True)
    _run(waiting, logits)
    if not quiet and sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    kept = [p for p in pictures.values() if p.whole or p.native]
    if not kept:
        raise DataError(f"No picture could be scored: {next(iter(broken.values()), 'the set is empty')}")
    return Scored(kept, broken)


def decoded(
    rows: Sequence[Row], broken: dict[str, str], least_px: int | None = None
) -> Iterator[tuple[Row, Pixels]]:
    """Rows with their pixels; a file that cannot be read goes into `broken` (file -> sentence).

    Args:
        rows: which.
        broken: is added to.
        least_px: see ViewPlan; of files that are no crops.
    """
    from mai.data.store import decode_row

    for row in rows:
        try:
            yield row, decode_row(row, None if row.view == "crop" else least_px)
        except ImageError as error:
            broken[row.file] = str(error)


def _run(waiting: list[tuple[list[float], Pixels]], logits: Logits) -> None:
    if waiting:
        for places, views in by_side([view for _, view in waiting]):
            for place, value in zip(places, logits(views), strict=True):
                waiting[place][0].append(float(value))
        waiting.clear()


LEAST_GROUP = 20
"""Groups of fewer pictures are listed with their share flagged but get no AUROC."""


def report(
    scored: Scored, plan: ViewPlan, calibration: Calibration, threshold: float, n_draws: int = 1000
) -> dict[str, Any]:
    """All figures of one protocol as plain JSON values.

    Args:
        scored: what `score_rows` returned.
        plan: how views are combined.
        calibration: logit -> score.
        threshold: score at or above which a picture is called synthetic, chosen before seeing this set.
        n_draws: bootstrap draws.
    """
    labels, sources = scored.labels.astype(bool), scored.sources
    scores = np.array([calibration.score(z) for z in scored.logits(plan)])

    def interval(metric: metrics.Metric, is_biased: bool = False) -> list[float]:
        return metrics.bootstrap(metric, scores, labels, sources, n_draws, is_biased=is_biased).to_list()

    result: dict[str, Any] = {
        "n_synthetic": int(labels.sum()),
        "n_authentic": int((~labels).sum()),
        "n_synthetic_sources": len({s for s, y in zip(sources, labels, strict=True) if y}),
        "n_authentic_sources": len({s for s, y in zip(sources, labels, strict=True) if not y}),
        "n_generators": len({p.generator for p in scored.pictures if p.label and p.generator}),
        "n_broken": len(scored.broken),
        "threshold": threshold,
    }
    if labels.any():
        result["recall"] = interval(lambda s, y: float((s[y] >= threshold).mean()))
    if not labels.all():
        result["flagged"] = interval(lambda s, y: float((s[~y] >= threshold).mean()))
    if labels.any() and not labels.all():
        result |= {
            "balanced_accuracy": interval(lambda s, y: metrics.balanced_accuracy(s >= threshold, y)),
            "auroc": interval(metrics.auroc),
            "average_precision": interval(metrics.average_precision),
            "tpr_at_1_fpr_oracle": interval(lambda s, y: metrics.tpr_at_fpr(s, y, 0.01)),
            "tpr_at_5_fpr_oracle": interval(lambda s, y: metrics.tpr_at_fpr(s, y, 0.05)),
            "ece": interval(metrics.ece, is_biased=True),
            "ece_if_calibrated": metrics.ece_if_calibrated(scores, labels).to_list(),
        }
    for name, key in (("generators", "generator"), ("sources", "source"), ("contents", "content")):
        result[name] = _groups(scored.pictures, scores, labels, key, threshold)
    return result


def _groups(
    pictures: list[Picture],
    scores: NDArray[np.float64],
    labels: NDArray[np.bool_],
    key: str,
    threshold: float,
) -> list[dict[str, Any]]:
    members: dict[tuple[str, int], list[int]] = {}
    for i, picture in enumerate(pictures):
        name = getattr(picture, key)
        if (
            name and name != picture.image
        ):  # a picture that no source is known of stands for itself, as its path
            members.setdefault((name, picture.label), []).append(i)
    rows = []
    for (name, label), index in sorted(
        members.items(), key=lambda item: (-item[0][1], -len(item[1]), item[0][0])
    ):
        row: dict[str, Any] = {
            "name": name,
            "label": "synthetic" if label else "authentic",
            "n": len(index),
            "called_synthetic": round(float((scores[index] >= threshold).mean()), 4),
        }
        others = scores[~labels] if label else scores[labels]
        if len(index) >= LEAST_GROUP and len(others):
            both = np.concatenate([scores[index], others])
            truth = np.array([bool(label)] * len(index) + [not label] * len(others))
            row["auroc_against_other_class"] = round(metrics.auroc(both, truth), 4)
        rows.append(row)
    return rows
