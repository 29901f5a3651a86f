"""Several networks' evidence -> one opinion: a score, and the measured thresholds that go with it.

    no network looked           -> None
    one                         -> its calibrated score and its own table
    several, fitted together    -> sigmoid(sum of coefficient * logit + offset), the table measured for it
    several, never fitted       -> the score of the first that was asked; the others are shown, not weighed

Never a bare mean: two calibrated scores of networks that err together would count the same evidence twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mai.errors import WeightsError
from mai.measure.calibrate import Calibration, OperatingTable
from mai.types import Evidence
from mai.weights import FOLDER, Weights
from mai.weights.user import fusion_file


class Measured(Protocol):
    """Anything with measured thresholds: Weights of one network, or the Fusion of several."""

    @property
    def table(self) -> OperatingTable:
        """Thresholds by error rate."""
        ...

    @property
    def fpr(self) -> float:
        """False-positive rate of the default operating point."""
        ...

    @property
    def fnr(self) -> float:
        """False-negative rate of the default operating point."""
        ...


@dataclass(frozen=True, slots=True)
class Fusion:
    """A fitted weighing of several networks, for exactly these weights.

    Attributes:
        coefficients: weights name -> factor on that network's logit.
        offset: added to the weighed sum.
        table: thresholds measured on the fused score, on images that neither network nor the fit has seen.
        fpr: false-positive rate of the default operating point.
        fnr: false-negative rate of the default operating point.
        sha256: weights name -> hash of the model that it was fitted for.
    """

    coefficients: Mapping[str, float]
    offset: float
    table: OperatingTable
    fpr: float
    fnr: float
    sha256: Mapping[str, str]

    def score(self, logits: Mapping[str, float]) -> float:
        """Probability of synthetic, 0..1, at a prior of one half, from weights name -> logit."""
        total = sum(factor * logits[name] for name, factor in self.coefficients.items())
        return Calibration(1.0, self.offset).score(total)


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the networks say together.

    Attributes:
        score: probability of synthetic, 0..1, at a prior of one half.
        measured: whose table of thresholds goes with the score.
        is_fused: the score weighs all networks by fitted coefficients.
        is_low_quality: a network that the score rests on says that the image is worse than what it was
            calibrated on.
        is_disputed: one network would call the image synthetic and another authentic, each at its own default
            operating point.
        unweighed: detectors that looked but do not enter the score.
    """

    score: float
    measured: Measured
    is_fused: bool = False
    is_low_quality: bool = False
    is_disputed: bool = False
    unweighed: tuple[str, ...] = ()


def key(names: Sequence[str]) -> str:
    """The name of a set of weights in fusion.json: sorted names joined by `+`."""
    return "+".join(sorted(names))


def load_fusions(path: Path | None = None) -> dict[str, Fusion]:
    """Read the fitted fusions that ship and those that `mai calibrate` made here, none if there are no such files.

    Args:
        path: a fusion.json in place of these. An object of `key -> {"coefficients": {name: factor},
            "offset": x, "thresholds": OperatingTable.to_dict(), "default": {"fpr": r, "fnr": r},
            "sha256": {name: hex}}`.

    Raises:
        WeightsError: the file cannot be read as fusions.
    """
    if path is None:
        return {**load_fusions(FOLDER / "fusion.json"), **load_fusions(fusion_file())}
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))
        return {
            name: Fusion(
                coefficients={str(k): float(v) for k, v in entry["coefficients"].items()},
                offset=float(entry["offset"]),
                table=OperatingTable.from_dict(entry["thresholds"]),
                fpr=entry["default"]["fpr"],
                fnr=entry["default"]["fnr"],
                sha256=entry["sha256"],
            )
            for name, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} cannot be read as fitted fusions: {error!r}.") from error


def find_fusion(weights: Sequence[Weights], fusions: Mapping[str, Fusion]) -> Fusion | None:
    """The fusion fitted for exactly these weights (same names, same hashes), or None."""
    if len(weights) < 2:
        return None
    fusion = fusions.get(key([w.name for w in weights]))
    if fusion is None or set(fusion.coefficients) != {w.name for w in weights}:
        return None
    if any(fusion.sha256.get(w.name) != w.config.get("sha256") for w in weights):
        return None  # other numbers under the same name: the fit does not speak of them
    return fusion


def fuse(
    evidence: Sequence[Evidence],
    weights: Mapping[str, Weights],
    fusions: Mapping[str, Fusion] | None = None,
) -> Opinion | None:
    """Join what the networks found in one image.

    Args:
        evidence: of all detectors, in the order they were asked; statements and failures are passed over.
        weights: detector name -> the weights it used.
        fusions: fitted fusions by `key`.

    Returns:
        The opinion, None where no network looked.
    """
    networks = [e for e in evidence if e.status == "ok" and e.score is not None and e.detector in weights]
    if not networks:
        return None
    used = [weights[e.detector] for e in networks]
    disputed = len(networks) > 1 and _is_disputed(networks, used)
    fusion = find_fusion(used, fusions or {})
    if fusion is not None and all(e.logit is not None for e in networks):
        logits = {w.name: e.logit for w, e in zip(used, networks, strict=True) if e.logit is not None}
        low = any(_is_low_quality(e) for e in networks)
        return Opinion(fusion.score(logits), fusion, True, low, disputed)
    first = networks[0]
    assert first.score is not None
    return Opinion(
        first.score,
        used[0],
        is_low_quality=_is_low_quality(first),
        is_disputed=disputed,
        unweighed=tuple(e.detector for e in networks[1:]),
    )


def _is_low_quality(evidence: Evidence) -> bool:
    return evidence.details.get("low_quality") is True


def _is_disputed(networks: Sequence[Evidence], used: Sequence[Weights]) -> bool:
    """One clearly synthetic, one clearly authentic. A network that says low quality has no vote."""
    says_synthetic = says_authentic = False
    for evidence, own in zip(networks, used, strict=True):
        if evidence.score is None or _is_low_quality(evidence):
            continue
        if evidence.score >= own.table.at_fpr(own.fpr).score:
            says_synthetic = True
        elif evidence.score <= own.table.at_fnr(own.fnr).score:
            says_authentic = True
    return says_synthetic and says_authentic
