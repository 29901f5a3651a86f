"""Scores of training pictures by runs that did not train on them: more pictures for thresholds than one split has.

A 1 % threshold of 300 authentic pictures rests on three of them. Runs that each hold back one part of the training
split's sources (`data.n_folds`, `data.fold`) score their part; each run's logits are calibrated on the calibration
split, as the shipped network's are, so that the scores mean the same. The shipped network is their average and errs
less than any of them: thresholds from their scores are, if anything, too careful (cross-conformal prediction, Vovk,
Annals of Mathematics and Artificial Intelligence 74, 2015).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai import config as configuration
from mai.errors import TrainingError
from mai.measure.calibrate import fit_platt
from mai.training import evaluation, start
from mai.training.recipe import DataPlan, Recipe

if TYPE_CHECKING:
    import torch

    from mai.data.sources import LabelledSet, Row
    from mai.images.views import ViewPlan
    from mai.training.architectures import Architecture


@dataclass(frozen=True, slots=True)
class FoldScores:
    """What the runs say of the parts that they held back.

    Attributes:
        scores: float64 (N,), calibrated, 0..1, one a picture.
        labels: int64 (N,), 1 synthetic, 0 authentic.
        sources: (N,) names.
        auroc: of each run on its part.
    """

    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    sources: list[str]
    auroc: list[float]


def held_back(labelled: LabelledSet, plan: DataPlan) -> list[Row]:
    """Rows of the training split that a run with this plan did not train on; none without folds."""
    return [
        row
        for row in labelled.rows
        if row.split == "train" and row.view != "web" and plan.holds_back(row.source or row.image)
    ]


def score_folds(
    architecture: Architecture, states: Sequence[Mapping[str, Any]], labelled: LabelledSet, plan: ViewPlan
) -> FoldScores | None:
    """Score each run's held-back part by that run's network, under the aligned protocol.

    Args:
        architecture: of the runs.
        states: their checkpoints.
        labelled: the set that they were trained on, with a calibration split.
        plan: how pictures become views.

    Returns:
        The scores, or None where no run held a part back.

    Raises:
        TrainingError: two runs held back the same part, which would count its pictures twice; a run did not begin
            untrained.
    """
    from mai.measure.metrics import auroc

    parts: list[tuple[NDArray[np.float64], NDArray[np.int64], list[str]]] = []
    areas: list[float] = []
    seen: set[str] = set()
    for number, state in enumerate(states):
        recipe = configuration.build(Recipe, dict(state["recipe"]))
        rows = held_back(labelled, recipe.data)
        if not rows:
            continue
        if recipe.init not in ("scratch", "imagenet"):
            raise TrainingError(
                f"Run {number + 1} holds back a fold but began at {recipe.init}, which may have been trained on it. "
                "Runs with folds start from scratch or from imagenet."
            )
        again = seen & {row.image for row in rows}
        if again:
            raise TrainingError(
                f"Run {number + 1} held back pictures that a run before it held back too ({len(again):,}). "
                "Give each run its own data.fold."
            )
        seen |= {row.image for row in rows}
        logits = _network(architecture, replace(recipe, init="scratch"), state, f"run {number + 1}")
        calibration_rows = [r for r in labelled.rows if r.split == "calibration" and r.view != "web"]
        fitted = evaluation.score_rows(calibration_rows, logits, plan, "aligned")
        calibration = fit_platt(fitted.logits(plan), fitted.labels)
        scored = evaluation.score_rows(rows, logits, plan, "aligned")
        scores = np.array([calibration.score(z) for z in scored.logits(plan)])
        parts.append((scores, scored.labels, scored.sources))
        both = 0 < scored.labels.sum() < len(scores)
        areas.append(auroc(scores, scored.labels) if both else float("nan"))
    if not parts:
        return None
    return FoldScores(
        np.concatenate([part[0] for part in parts]),
        np.concatenate([part[1] for part in parts]),
        [name for part in parts for name in part[2]],
        areas,
    )


def _network(
    architecture: Architecture, recipe: Recipe, state: Mapping[str, Any], name: str
) -> evaluation.Logits:
    model = architecture.build(recipe)
    start.fill(model, start.average_of([dict(state)], [name]), name)
    return torch_logits(model.eval())


def torch_logits(model: torch.nn.Module) -> evaluation.Logits:
    """A network in evaluation mode as a function of views."""
    import torch

    def logits(views: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(views)).float().numpy(), np.float32)

    return logits
