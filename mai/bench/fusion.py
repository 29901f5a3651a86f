"""Whether several networks weighed together (mai/verdict/learn.py fits how) are worth more than the best alone.

fit        on the calibration split, aligned, thresholds from scores of left-out sources: `mai.verdict.learn`
worth      AUROC on the validation split against the best network alone, by paired draws of sources
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mai.errors import UsageError
from mai.machine import n_cpus
from mai.measure import metrics
from mai.verdict import learn

if TYPE_CHECKING:
    from mai.data.labelled import LabelledSet
    from mai.verdict.fuse import Fusion
    from mai.verdict.learn import Looked
    from mai.weights import Weights

N_DRAWS = 500


@dataclass(frozen=True, slots=True)
class Weighed:
    """A fusion, and what it is worth.

    Attributes:
        fusion: None where a network adds nothing to the others.
        useless: names of the weights that add nothing.
        measured: see `worth`; empty for a set without a validation split, or without a fusion.
        broken: file -> sentence, of pictures that could not be read.
    """

    fusion: Fusion | None
    useless: tuple[str, ...]
    measured: dict[str, Any]
    broken: dict[str, str]

    @property
    def is_worth_it(self) -> bool:
        """A gain over the best network alone was shown."""
        return bool(self.measured.get("is_worth_it"))

    def entry(self) -> tuple[str, dict[str, Any]]:
        """Key and value in fusion.json.

        Raises:
            UsageError: there is no fusion.
        """
        if self.fusion is None:
            raise UsageError(f"{', '.join(self.useless)} adds nothing to the others: there is no fusion.")
        name, values = learn.fusion_entry(self.fusion)
        return name, {**values, **({"measured": self.measured} if self.measured else {})}


def weigh(weights: Sequence[Weights], labelled: LabelledSet) -> Weighed:
    """Fit how networks are weighed together, and measure it.

    Args:
        weights: two or more networks.
        labelled: a set with a calibration and, to be measured, a validation split that none of them learnt from.

    Raises:
        UsageError: fewer than two networks, or one twice; the set has splits, and none is for calibration.
        DataError: a class is missing, or no picture can be read.
    """
    from mai.detectors import base
    from mai.detectors.base import DetectorSettings

    names = [own.name for own in weights]
    if len(set(names)) != len(names) or len(names) < 2:
        raise UsageError(f"A fusion weighs two or more different networks, not {', '.join(names) or 'none'}.")
    detectors = {
        own.name: base.load(own.architecture, DetectorSettings(own.folder, n_cpus())) for own in weights
    }
    rows, part = learn.rows_for(labelled)
    looked = learn.look(detectors, rows, "aligned")
    told = f"{labelled.name}, {part}, aligned protocol, {len(set(looked.sources))} sources"
    fitted = learn.fit_fusion(looked, {own.name: own for own in weights}, told)
    found = Weighed(fitted.fusion, fitted.useless, {}, looked.broken)
    validation = [row for row in labelled.rows if row.split == "validation" and row.view != "web"]
    if fitted.fusion is None or not validation:
        return found
    unseen = learn.look(detectors, validation, "aligned")
    return replace(found, measured=worth(unseen, fitted.fusion), broken=looked.broken | unseen.broken)


def worth(looked: Looked, fusion: Fusion) -> dict[str, Any]:
    """AUROC of each network and of the fusion, and what the fusion adds to the best one, with intervals.

    Args:
        looked: logits by names of weights, of pictures that neither the networks nor the fit have seen.
        fusion: of these networks.
    """
    from mai.bench.figures import paired_difference

    labels, sources = looked.labels.astype(bool), looked.sources
    factors = np.array(list(fusion.coefficients.values()))
    joint = np.stack([looked.logits[name] for name in fusion.coefficients], 1) @ factors + fusion.offset
    alone = {
        name: metrics.bootstrap(metrics.quick_auroc, looked.logits[name], labels, sources, N_DRAWS)
        for name in fusion.coefficients
    }
    best = max(alone, key=lambda name: alone[name].value)
    gain = paired_difference(looked.logits[best], joint, labels, sources, metrics.quick_auroc, N_DRAWS)
    return {
        "n_synthetic": int(labels.sum()),
        "n_authentic": int((~labels).sum()),
        "auroc": {name: found.to_list() for name, found in alone.items()},
        "auroc_fused": metrics.bootstrap(metrics.quick_auroc, joint, labels, sources, N_DRAWS).to_list(),
        "best_alone": best,
        "gain": gain,
        "is_worth_it": bool(gain[1] > 0),
    }
