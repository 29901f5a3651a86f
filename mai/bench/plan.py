"""What a benchmark measures: detectors x protocols x perturbations, and what a set cannot show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mai.bench import scorers
from mai.data.labelled import LabelledSet


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        detectors: specs for scorers.load.
        protocols: of native, aligned, web.
        perturbations: beside `none`.
        sweep_on: protocol that they are measured under.
        externals: other programs.
        thresholds: detector's name -> threshold in place of its own.
        n_workers: processes.
        n_draws: of each bootstrap.
        with_floors: also measure the leakage floors.
        seed: of perturbations.
    """

    detectors: tuple[str, ...]
    protocols: tuple[str, ...] = ("native", "aligned")
    perturbations: tuple[str, ...] = ()
    sweep_on: str = "aligned"
    externals: tuple[scorers.External, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    n_workers: int = 1
    n_draws: int = 500
    with_floors: bool = True
    seed: int = 0

    def cells(self) -> list[tuple[str, str]]:
        """(protocol, perturbation) pairs, in order."""
        pairs = [(protocol, "none") for protocol in self.protocols]
        return pairs + [(self.sweep_on, name) for name in self.perturbations if name != "none"]


def check(labelled: LabelledSet, plan: Plan) -> Iterable[str]:
    """Sentences about what a set cannot show; each is also in the report by what is missing there."""
    counts = labelled.counts()
    for name in ("synthetic", "authentic"):
        if not counts[name]:
            yield f"'{labelled.name}' has no {name} picture: recall or specificity only, no accuracy, no AUROC."
    if not all(row.source for row in labelled.rows):
        yield f"'{labelled.name}' names no source for some pictures: intervals are over pictures and too narrow."
    if len(plan.protocols) and "aligned" not in plan.protocols:
        yield "Without the aligned protocol, formats and sizes may tell the classes apart: see the floors."
