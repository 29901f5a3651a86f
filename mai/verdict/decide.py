"""Evidence -> verdict: the only place where MAI decides.

Two kinds of evidence meet here. Networks give a score; it is held against two thresholds, each chosen for a
measured error rate. Statement detectors report what the file declares, in `Evidence.details`:

    declares   "synthetic" | "edited" | "capture" | None
    state      "trusted" | "valid_untrusted": signed and whole; "invalid" | "remote_only" | "none": told, but
               never weighed; "unsigned" or absent: what anybody could have written
    reason     the Reason that a verdict resting on it carries
    edited     True | False | None, if the file speaks of edits with AI beside what it declares

The rules, first match wins; docs/evidence-and-verdict.md says why:

    1  synthesis, signed by a trusted signer               synthetic     signed_provenance
    2  synthesis that anybody could have written, and
       the networks lie below a strict threshold           inconclusive  provenance_conflict
    3  the same, and a trusted camera signature            inconclusive  provenance_conflict
    4  the same, otherwise                                 synthetic     signed_provenance (untrusted),
                                                                         declared_metadata, watermark
    5  a trusted camera signature, networks say synthetic  inconclusive  provenance_conflict
    6  a trusted camera signature, otherwise               authentic     signed_capture
    7  no network looked                                   inconclusive  low_evidence
    8  the networks, by their score                        any           above_threshold, below_threshold,
                                                                         low_evidence, low_quality,
                                                                         detectors_disagree

A declared edit sets `edited` and, in rules 6 to 8, the reason `declared_edit`; the label stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mai.errors import UsageError, WeightsError
from mai.types import Evidence, Label, Reason, Thresholds, Verdict
from mai.verdict.fuse import Fusion, Measured, Opinion, fuse
from mai.weights import Weights

STRICT_FNR = 0.01
"""Share of synthetic images below the score under which an unsigned declaration is doubted."""

SYNTHESIS: tuple[Reason, ...] = ("signed_provenance", "declared_metadata", "watermark")
"""Reasons that a declaration of synthesis may give, the strongest first."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the person asks of the decision; nothing set: the default operating point of the weights.

    Attributes:
        fpr: false-positive rate that the synthetic threshold is taken for, 0..1 exclusive.
        fnr: false-negative rate that the authentic threshold is taken for, 0..1 exclusive.
        threshold: the synthetic threshold itself, 0 < threshold <= 1, in place of a rate.
        prior: share of synthetic images where the picture comes from, 0..1 exclusive. It adds the posterior
            probability to the verdict; it does not move the label, as error rates do not depend on a prior.

    Raises:
        UsageError: a value out of its range, or both a rate and a threshold.
    """

    fpr: float | None = None
    fnr: float | None = None
    threshold: float | None = None
    prior: float | None = None

    def __post_init__(self) -> None:
        for name, rate in (("false-positive rate", self.fpr), ("false-negative rate", self.fnr)):
            if rate is not None and not 0 < rate < 1:
                raise UsageError(f"A {name} lies between 0 and 1, not at {rate:g}; 0.01 is 1 in 100.")
        if self.prior is not None and not 0 < self.prior < 1:
            raise UsageError(f"A prior lies between 0 and 1, not at {self.prior:g}; 0.01 is 1 in 100.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise UsageError(f"A threshold is a score above 0 and up to 1, not {self.threshold:g}.")
        if self.threshold is not None and self.fpr is not None:
            raise UsageError("Give either a false-positive rate or a threshold: the one sets the other.")


def thresholds(measured: Measured, policy: Policy) -> Thresholds:
    """The operating point that a policy means on measured thresholds.

    A network that separates well has its authentic threshold at or above the synthetic one: both rates hold
    for a score between them. The authentic threshold is then lowered to just below the synthetic one, which
    keeps its false-negative rate, so that each score has one label. The same is done below a threshold that
    the person gave; no rate was measured for that pair, and both rates are None.

    Raises:
        UsageError: a rate lies below what the calibration set resolves.
        WeightsError: the default rates of the weights do.
    """
    if policy.threshold is not None:
        authentic = _default(measured)[1]
        return Thresholds(policy.threshold, None, min(authentic, _below(policy.threshold)), None)
    if policy.fpr is None and policy.fnr is None:
        _default(measured)
    high = measured.table.at_fpr(measured.fpr if policy.fpr is None else policy.fpr)
    low = measured.table.at_fnr(measured.fnr if policy.fnr is None else policy.fnr)
    return Thresholds(high.score, high.rate, min(low.score, _below(high.score)), low.rate)


def decide(
    evidence: Sequence[Evidence],
    weights: Mapping[str, Weights],
    policy: Policy | None = None,
    fusions: Mapping[str, Fusion] | None = None,
) -> Verdict:
    """Judge one image by all that was found in it.

    Args:
        evidence: one entry a detector, in the order they were asked.
        weights: detector name -> the weights that a network used; with its table of thresholds.
        policy: what the person asks; the default operating point if None.
        fusions: fitted fusions by key, see fuse.

    Raises:
        UsageError: the policy asks for a rate that the calibration set does not resolve.
    """
    policy = policy or Policy()
    opinion = fuse(evidence, weights, fusions)
    point = thresholds(opinion.measured, policy) if opinion else None
    label, reason = _rules(evidence, opinion, point)
    edited = _edited(evidence)
    if edited and reason not in (*SYNTHESIS, "provenance_conflict"):
        reason = "declared_edit"
    return Verdict(label, opinion.score if opinion else None, reason, point, edited, policy.prior)


def is_declared(evidence: Sequence[Evidence]) -> bool:
    """True if a declaration decides, so that an image can be judged although each network failed."""
    return _synthesis(evidence) is not None or _has_trusted_capture(evidence)


def _rules(
    evidence: Sequence[Evidence], opinion: Opinion | None, point: Thresholds | None
) -> tuple[Label, Reason]:
    """Label and reason, before an edit is looked at. See the head of the module."""
    by_networks = _by_score(opinion, point) if opinion and point else None
    capture = _has_trusted_capture(evidence)
    declared = _synthesis(evidence)
    if declared is not None:
        reason, is_trusted = declared
        if not is_trusted and (capture or (opinion and point and _strongly_authentic(opinion, point))):
            return "inconclusive", "provenance_conflict"
        return "synthetic", reason
    if capture:
        if by_networks and by_networks[0] == "synthetic":
            return "inconclusive", "provenance_conflict"
        return "authentic", "signed_capture"
    return by_networks or ("inconclusive", "low_evidence")


def _by_score(opinion: Opinion, point: Thresholds) -> tuple[Label, Reason]:
    if opinion.is_low_quality:
        return "inconclusive", "low_quality"
    if opinion.is_disputed and not opinion.is_fused:
        return "inconclusive", "detectors_disagree"
    if opinion.score >= point.synthetic:
        return "synthetic", "above_threshold"
    if opinion.score <= point.authentic:
        return "authentic", "below_threshold"
    # A fused table was measured with its disagreements in it, so they abstain only in its grey zone.
    return "inconclusive", "detectors_disagree" if opinion.is_disputed else "low_evidence"


def _strongly_authentic(opinion: Opinion, point: Thresholds) -> bool:
    """The networks doubt a declaration: their score lies where at most STRICT_FNR of synthetic images lie."""
    if opinion.is_low_quality or opinion.is_disputed or opinion.score >= point.synthetic:
        return False
    try:
        return opinion.score <= opinion.measured.table.at_fnr(STRICT_FNR).score
    except UsageError:
        return False  # too few calibration images to say '1 in 100': the declaration stands


def _weighs(evidence: Evidence) -> bool:
    """A signed statement weighs if it is whole; an unsigned one if the detector read it at all."""
    if evidence.status != "ok" or evidence.details.get("state") in ("invalid", "remote_only", "none"):
        return False
    if str(evidence.details.get("reason", "")).startswith("signed_"):
        return evidence.details.get("state") in ("trusted", "valid_untrusted")
    return True


def _statements(evidence: Sequence[Evidence], declares: str) -> Iterator[Evidence]:
    return (e for e in evidence if e.details.get("declares") == declares and _weighs(e))


def _synthesis(evidence: Sequence[Evidence]) -> tuple[Reason, bool] | None:
    """The strongest declaration of synthesis and whether a trusted signer stands behind it."""
    best: tuple[int, int, Reason] | None = None
    for statement in _statements(evidence, "synthetic"):
        reason = statement.details.get("reason")
        if reason in SYNTHESIS:
            trusted = reason == "signed_provenance" and statement.details.get("state") == "trusted"
            rank = (0 if trusted else 1, SYNTHESIS.index(reason), reason)
            best = rank if best is None else min(best, rank)
    return (best[2], best[0] == 0) if best else None


def _has_trusted_capture(evidence: Sequence[Evidence]) -> bool:
    """A camera's signature counts when its signer is trusted: anybody can make a certificate and sign."""
    return any(
        e.details.get("reason") == "signed_capture" and e.details.get("state") == "trusted"
        for e in _statements(evidence, "capture")
    )


def _edited(evidence: Sequence[Evidence]) -> bool | None:
    """True if a statement that weighs declares an edit with AI, False if one declares that there was none."""
    said = [e.details.get("edited") for e in evidence if _weighs(e)]
    if True in said or any(True for _ in _statements(evidence, "edited")):
        return True
    return False if False in said else None


def _default(measured: Measured) -> tuple[float, float]:
    try:
        return measured.table.at_fpr(measured.fpr).score, measured.table.at_fnr(measured.fnr).score
    except UsageError as error:
        raise WeightsError(f"The default operating point of the weights cannot be used: {error}") from error


def _below(score: float) -> float:
    return max(math.nextafter(score, -math.inf), 0.0)
