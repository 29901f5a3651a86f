"""Validation by the calibrated score: Platt on the calibration split, figures on the validation split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.data.store import FOR_EVALUATION
from mai.errors import DataError
from mai.images.views import ViewPlan
from mai.measure import metrics
from mai.measure.calibrate import Calibration, fit_platt
from mai.training import evaluation

if TYPE_CHECKING:
    from mai.data.sources import LabelledSet, Row
    from mai.moondream.recipe import TuneRecipe
    from mai.moondream.student import Student


def plan_of(recipe: TuneRecipe) -> ViewPlan:
    """How a picture becomes views: squares of one side, so that neither shape nor number of tiles varies."""
    data = recipe.data
    return ViewPlan(
        size_px=data.size_px, n_whole=data.n_whole, whole_share=1.0, n_native=data.n_native,
        native_px=data.native_px or data.size_px,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """Validation figures.

    Attributes:
        auroc: aligned protocol, one score a picture.
        low: lower end of its 95 % interval, bootstrap over sources.
        high: its upper end.
        balanced_accuracy: at a calibrated score of one half.
        ece: of the calibrated score.
        broken: file -> sentence.
    """

    auroc: float
    low: float
    high: float
    balanced_accuracy: float
    ece: float
    broken: dict[str, str]


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw scores of the validation pictures, their labels and sources."""

    logits: NDArray[np.float64]
    labels: NDArray[np.int64]
    sources: list[str]

    def save(self, path: Path) -> None:
        """Write them."""
        np.savez(path, logits=self.logits, labels=self.labels, sources=np.array(self.sources))


def rows_of(labelled: LabelledSet, split: str, most: int) -> list[Row]:
    """Rows of a split without those for evaluation only; of at most so many pictures, spread evenly; 0: all."""
    rows = [row for row in labelled.rows if row.split == split and row.view != FOR_EVALUATION]
    names = list(dict.fromkeys(row.image for row in rows))
    if most and len(names) > most:
        kept = {names[round(i * (len(names) - 1) / max(1, most - 1))] for i in range(most)}
        rows = [row for row in rows if row.image in kept]
    return rows


def figures_of(
    student: Student, labelled: LabelledSet, plan: ViewPlan, most: int = 0, bf16: bool = False
) -> tuple[Found, Scores]:
    """Score the validation split; the calibration split, where there is one, makes the score a probability.

    Args:
        student: the model.
        labelled: the set.
        plan: how pictures become views.
        most: pictures a split; 0: all.
        bf16: compute in bf16.
    """

    def logits(views: NDArray[np.uint8]) -> NDArray[Any]:
        return student.score(views, bf16=bf16)

    scored = evaluation.score_rows(rows_of(labelled, "validation", most), logits, plan, "aligned", quiet=True)
    calibration = _calibration(rows_of(labelled, "calibration", most), logits, plan)
    raw, labels, sources = scored.logits(plan), scored.labels, scored.sources
    scores = np.array([calibration.score(z) for z in raw])
    area = metrics.bootstrap(metrics.auroc, raw, labels, sources, n=200)
    found = Found(
        auroc=area.value,
        low=area.low,
        high=area.high,
        balanced_accuracy=metrics.balanced_accuracy(scores >= 0.5, labels),
        ece=metrics.ece(scores, labels),
        broken=scored.broken,
    )
    return found, Scores(raw, labels, sources)


def _calibration(rows: Sequence[Row], logits: evaluation.Logits, plan: ViewPlan) -> Calibration:
    """Fitted, or the raw score as it is where that cannot be: no split, one class, no rise yet."""
    try:
        if rows:
            scored = evaluation.score_rows(rows, logits, plan, "aligned", quiet=True)
            return fit_platt(scored.logits(plan), scored.labels)
    except DataError:
        pass
    return Calibration(1.0, 0.0)
