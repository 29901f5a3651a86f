"""Verdicts in plain words, the same on the terminal, on a page and in a case report."""

from __future__ import annotations

from fractions import Fraction

from mai.measure.calibrate import OperatingTable
from mai.types import Evidence, Label, Reason, Record, Status, Thresholds

LABELS: dict[Label, str] = {
    "synthetic": "likely AI-generated",
    "authentic": "no sign of AI",
    "inconclusive": "cannot tell",
}

REASONS: dict[Reason, str] = {
    "signed_provenance": "signed as AI-generated",
    "signed_capture": "signed by a trusted camera",
    "declared_metadata": "its metadata say so (unsigned)",
    "declared_edit": "declared as edited with AI",
    "watermark": "carries a generator's watermark",
    "above_threshold": "above the threshold",
    "below_threshold": "below the threshold",
    "low_evidence": "between the thresholds",
    "low_quality": "too small or too poor to judge",
    "detectors_disagree": "the detectors disagree",
    "provenance_conflict": "claims and pixels conflict",
}

BY_SCORE: tuple[Reason, ...] = (
    *("above_threshold", "below_threshold", "low_evidence", "low_quality", "detectors_disagree"),
    "declared_edit",  # the label is that of the score
)
"""Reasons of a verdict whose label rests on the score."""

EXPLANATIONS: dict[Reason, str] = {
    "signed_provenance": "A whole signature in the file declares that the picture was made by AI.",
    "signed_capture": "A camera whose signer is trusted signed the file as a capture, and nothing found speaks "
    "against it.",
    "declared_metadata": "The file's own metadata, at the place where a generator writes them, declare that the "
    "picture was made by AI. Anybody can write such metadata.",
    "declared_edit": "The file declares that the picture was edited with AI. The answer above is what the rest of "
    "the evidence gives for the picture as a whole.",
    "watermark": "The pixels carry a watermark that a generator writes. Anybody who knows it can write it too.",
    "above_threshold": "The score lies at or above the threshold for 'likely AI-generated'.",
    "below_threshold": "The score lies at or below the threshold for 'no sign of AI'. That is not proof that a "
    "camera took the picture.",
    "low_evidence": "The score lies between the two thresholds: there is not enough evidence either way.",
    "low_quality": "The picture is smaller or poorer than anything that the network was calibrated on, so its "
    "score does not count.",
    "detectors_disagree": "One network says AI-generated, another says no sign of AI, each at its own thresholds.",
    "provenance_conflict": "What the file claims and what else was found contradict each other. A claim can be "
    "planted in an authentic photograph, and a screen can be photographed.",
}

STATUSES: dict[Status, str] = {
    "ok": "judged",
    "not_found": "not found",
    "not_readable": "not readable",
    "not_a_file": "not a file",
    "empty": "empty file",
    "not_an_image": "not an image",
    "unsupported": "unsupported format",
    "truncated": "cut off",
    "too_large": "too large",
    "timed_out": "timed out",
    "detector_failed": "detector failed",
}


def verdict_words(record: Record) -> str:
    """The answer, or why there is none."""
    if record.label is None:
        return STATUSES[record.status]
    return LABELS[record.label] + (" (edited)" if record.verdict and record.verdict.edited else "")


def reason_words(record: Record) -> str:
    """The reason; a signature says whose word it is, and silence is not called a middle."""
    if record.reason is None:
        return ""
    if record.reason == "signed_provenance":
        trusted = any(_signs_synthesis(e) and e.details.get("state") == "trusted" for e in record.evidence)
        return f"{REASONS[record.reason]} ({'trusted' if trusted else 'untrusted'} signer)"
    if record.reason == "low_evidence" and record.score is None:
        return "the file declares nothing"
    return REASONS[record.reason]


def explanation(record: Record) -> str:
    """Why the answer is what it is, in full sentences; for an image without one, what went wrong."""
    if record.reason is None:
        return record.message or f"The image was not judged: {STATUSES[record.status]}."
    if record.reason == "low_evidence" and record.score is None:
        return "No network looked, and the file declares nothing. That is no evidence either way."
    text = EXPLANATIONS[record.reason]
    if record.reason == "signed_provenance":
        if reason_words(record).endswith("(trusted signer)"):
            return f"{text} Its signer is on the trust list."
        return f"{text} Its signer is on no trust list: anybody can make such a signature."
    return text


def weighed_posterior(record: Record) -> float | None:
    """The probability at the given prior, for a column beside the answer; None where the score did not decide."""
    verdict = record.verdict
    return verdict.posterior if verdict is not None and verdict.reason in BY_SCORE else None


def posterior_words(record: Record) -> str | None:
    """What the score means at the prior that the person gave; None where there is none."""
    verdict = record.verdict
    if verdict is None or verdict.prior is None or verdict.posterior is None:
        return None
    told = f"Where {share(verdict.prior)} pictures are AI-generated, this score "
    if verdict.reason in BY_SCORE:
        return (
            f"{told}is a probability of {score_words(verdict.posterior)}. The answer does not move with it."
        )
    return (
        f"{told}alone would be a probability of {score_words(verdict.posterior)}. It did not decide: what the file "
        "declares or carries did, and no prior says how far to believe that."
    )


def _signs_synthesis(evidence: Evidence) -> bool:
    return (
        evidence.details.get("reason") == "signed_provenance"
        and evidence.details.get("declares") == "synthetic"
    )


def score_words(score: float | None) -> str:
    """Two decimals, and never a certainty that rounding made."""
    if score is None:
        return "-"
    return "<0.01" if score < 0.01 else ">0.99" if score > 0.99 else f"{score:.2f}"


def share(rate: float) -> str:
    """A rate as people count: 0.01 is `1 in 100`, 0.05 is `5 in 100`, 0.002 is `2 in 1,000`."""
    for base in (100, 1000, 10_000):
        if abs(rate * base - round(rate * base)) < 1e-9 and round(rate * base) >= 1:
            return f"{round(rate * base)} in {base:,}"
    near = Fraction(rate).limit_denominator(10_000)
    return f"{near.numerator} in {near.denominator:,}"


def operating_point(point: Thresholds, table: OperatingTable) -> str:
    """One sentence on what the thresholds mean, with the images that they were measured on."""
    if point.fpr is None or point.fnr is None:
        return (
            f"A score of {point.synthetic:g} or more is called likely AI-generated, as you asked; "
            "no error rate was measured for this threshold."
        )
    return (
        f"A score of {point.synthetic:.3g} or more is called likely AI-generated: that flags about "
        f"{share(point.fpr)} of the {table.n_authentic:,} authentic images that it was calibrated on. "
        f"A score of {point.authentic:.3g} or less is called no sign of AI: about {share(point.fnr)} of the "
        f"{table.n_synthetic:,} synthetic ones lie there. {missed(point, table)}"
        f"Measured on {table.data.rstrip('.')}; other images may differ."
    )


def missed(point: Thresholds, table: OperatingTable) -> str:
    """What share of the synthetic images is not flagged, which is more than those called 'no sign of AI'."""
    rest = "not flagged: they get 'cannot tell' or 'no sign of AI'. "
    found = [own for own in table.synthetic if own.rate == point.fpr]
    if found and found[0].n_caught is not None and table.n_synthetic:
        n_missed = table.n_synthetic - found[0].n_caught
        return f"{n_missed:,} of the {table.n_synthetic:,} ({n_missed / table.n_synthetic:.0%}) are {rest}"
    below = [own.rate for own in table.authentic if own.score < point.synthetic]
    return f"At least {share(max(below))} of them are {rest}" if below else ""
