"""The rules of the verdict, each with the neighbour that must not trigger it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai.errors import UsageError, WeightsError
from mai.measure.calibrate import Calibration, operating_table
from mai.types import Evidence
from mai.verdict.decide import SYNTHESIS, Policy, decide, is_declared, thresholds
from mai.verdict.fuse import Fusion
from mai.weights import Weights


def _scores(n: int, shift: float, seed: int) -> np.ndarray[Any, Any]:
    logits = np.random.default_rng(seed).normal(shift, 1.5, n)
    return 1 / (1 + np.exp(-logits))


def make_weights(name: str = "resnet_v1_0", gap: float = 1.0, n: int = 1000, fpr: float = 0.01) -> Weights:
    """Weights with a table measured on drawn scores; `gap` is how far the classes lie apart."""
    scores = np.concatenate([_scores(n, gap, 1), _scores(n, -gap, 2)])
    labels = np.concatenate([np.ones(n), np.zeros(n)])
    table = operating_table(scores, labels, "drawn scores")
    architecture = name.rsplit("_v", 1)[0]
    config = {"sha256": name}
    return Weights(name, architecture, Path(), {}, Calibration(1.0, 0.0), table, fpr, 0.05, config)


WEAK = make_weights()
POINT = thresholds(WEAK, Policy())
MIDDLE = (POINT.synthetic + POINT.authentic) / 2
LOW, HIGH = POINT.authentic / 2, (1 + POINT.synthetic) / 2
STRICT = WEAK.table.at_fnr(0.01).score


def net(score: float, detector: str = "resnet", **details: Any) -> Evidence:
    logit = math.log(score / (1 - score))
    return Evidence(detector, f"{detector}_v1_0", "ok", logit, score, "", details)


def said(declares: str | None, reason: str | None, state: str = "unsigned", **details: Any) -> Evidence:
    status = "ok" if declares or details else "absent"
    facts = {"declares": declares, "reason": reason, "state": state, **details}
    return Evidence("c2pa" if reason and "signed" in reason else "metadata", status=status, details=facts)


def judged(*evidence: Evidence, **policy: float) -> tuple[str, str]:
    verdict = decide(evidence, {"resnet": WEAK}, Policy(**policy))
    return verdict.label, verdict.reason


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (POINT.synthetic, ("synthetic", "above_threshold")),
        (math.nextafter(POINT.synthetic, 0), ("inconclusive", "low_evidence")),
        (MIDDLE, ("inconclusive", "low_evidence")),
        (math.nextafter(POINT.authentic, 1), ("inconclusive", "low_evidence")),
        (POINT.authentic, ("authentic", "below_threshold")),
    ],
)
def test_the_thresholds_belong_to_the_label_they_give(score: float, expected: tuple[str, str]) -> None:
    assert judged(net(score)) == expected


def test_a_verdict_carries_its_operating_point_and_score() -> None:
    verdict = decide([net(0.5)], {"resnet": WEAK})
    assert verdict.score == 0.5
    assert verdict.thresholds is not None
    assert (verdict.thresholds.fpr, verdict.thresholds.fnr) == (0.01, 0.05)
    assert verdict.thresholds.synthetic > verdict.thresholds.authentic


def test_low_quality_abstains_even_far_above_the_threshold() -> None:
    assert judged(net(0.999, low_quality=True)) == ("inconclusive", "low_quality")
    assert judged(net(0.999, low_quality=False)) == ("synthetic", "above_threshold")


def test_absence_is_not_evidence() -> None:
    nothing = said(None, None, "none")
    assert judged(nothing) == ("inconclusive", "low_evidence")
    assert decide([nothing], {}).score is None
    assert judged(nothing, net(MIDDLE)) == judged(net(MIDDLE))


TRUSTED = said("synthetic", "signed_provenance", "trusted")
UNTRUSTED = said("synthetic", "signed_provenance", "valid_untrusted")
METADATA = said("synthetic", "declared_metadata")
WATERMARK = said("synthetic", "watermark")


@pytest.mark.parametrize("statement", [TRUSTED, UNTRUSTED, METADATA, WATERMARK])
def test_a_declaration_of_synthesis_decides_before_the_score(statement: Evidence) -> None:
    expected = ("synthetic", statement.details["reason"])
    for score in (MIDDLE, HIGH, math.nextafter(STRICT, 1)):
        assert judged(statement, net(score)) == expected
    assert judged(statement) == expected
    verdict = decide([statement, net(MIDDLE)], {"resnet": WEAK})
    assert verdict.score == MIDDLE  # the score stays that of the networks


@pytest.mark.parametrize("statement", [UNTRUSTED, METADATA, WATERMARK])
def test_an_unsigned_declaration_gives_way_below_the_strict_threshold(statement: Evidence) -> None:
    assert judged(statement, net(STRICT)) == ("inconclusive", "provenance_conflict")
    assert judged(statement, net(STRICT / 2)) == ("inconclusive", "provenance_conflict")
    # Between the strict threshold and the default authentic one the networks are not sure enough to object.
    assert POINT.authentic > STRICT
    assert judged(statement, net(POINT.authentic)) == ("synthetic", statement.details["reason"])
    # A network out of its depth has no objection to make.
    assert judged(statement, net(STRICT / 2, low_quality=True)) == ("synthetic", statement.details["reason"])


def test_a_trusted_signature_of_synthesis_never_gives_way() -> None:
    assert judged(TRUSTED, net(1e-6)) == ("synthetic", "signed_provenance")


def test_too_few_calibration_images_cannot_object() -> None:
    few = make_weights(n=40, fpr=0.1)
    verdict = decide([METADATA, net(1e-6)], {"resnet": few})
    assert (verdict.label, verdict.reason) == ("synthetic", "declared_metadata")


def test_the_strongest_declaration_names_the_reason() -> None:
    assert judged(WATERMARK, METADATA, UNTRUSTED) == ("synthetic", "signed_provenance")
    assert judged(WATERMARK, METADATA) == ("synthetic", "declared_metadata")
    # The untrusted signature beside a trusted one does not make it doubtful.
    assert judged(UNTRUSTED, TRUSTED, net(1e-6)) == ("synthetic", "signed_provenance")


@pytest.mark.parametrize("state", ["invalid", "remote_only", "none"])
@pytest.mark.parametrize("declares", ["synthetic", "edited", "capture"])
def test_a_broken_signature_changes_nothing(state: str, declares: str) -> None:
    for reason in ("signed_provenance", "signed_capture", "declared_edit"):
        broken = said(declares, reason, state, edited=True)
        for score in (LOW, MIDDLE, HIGH):
            assert judged(broken, net(score)) == judged(net(score))
        assert decide([broken], {}).edited is None
        assert not is_declared([broken])


def test_a_signed_statement_without_its_state_changes_nothing() -> None:
    assert judged(said("synthetic", "signed_provenance", "unsigned"), net(LOW)) == judged(net(LOW))


def test_a_trusted_camera_signature_weighs_but_pixels_may_dissent() -> None:
    capture = said("capture", "signed_capture", "trusted")
    assert judged(capture) == ("authentic", "signed_capture")
    assert judged(capture, net(MIDDLE)) == ("authentic", "signed_capture")
    assert judged(capture, net(HIGH)) == ("inconclusive", "provenance_conflict")
    assert judged(capture, net(HIGH, low_quality=True)) == ("authentic", "signed_capture")


def test_a_camera_signature_of_anybody_and_a_camera_tag_prove_nothing() -> None:
    for statement in (
        said("capture", "signed_capture", "valid_untrusted"),
        said("capture", None),
        said("capture", "declared_metadata"),
    ):
        assert judged(statement) == ("inconclusive", "low_evidence")
        assert judged(statement, net(HIGH)) == ("synthetic", "above_threshold")
        assert not is_declared([statement])


def test_a_spoofed_comment_on_a_signed_photograph_is_a_conflict() -> None:
    capture = said("capture", "signed_capture", "trusted")
    assert judged(capture, METADATA) == ("inconclusive", "provenance_conflict")
    assert judged(capture, TRUSTED) == ("synthetic", "signed_provenance")


def test_an_edit_is_told_and_leaves_the_label_to_the_rest() -> None:
    edit = said("edited", "declared_edit")
    for score, label in ((HIGH, "synthetic"), (MIDDLE, "inconclusive"), (LOW, "authentic")):
        verdict = decide([edit, net(score)], {"resnet": WEAK})
        assert (verdict.label, verdict.reason, verdict.edited) == (label, "declared_edit", True)
    assert judged(edit) == ("inconclusive", "declared_edit")
    both = decide([edit, METADATA], {})
    assert (both.label, both.reason, both.edited) == ("synthetic", "declared_metadata", True)
    conflict = decide([edit, METADATA, net(1e-6)], {"resnet": WEAK})
    assert (conflict.reason, conflict.edited) == ("provenance_conflict", True)


def test_edited_false_only_where_a_statement_says_so() -> None:
    capture = said("capture", "signed_capture", "trusted", edited=False)
    assert decide([capture], {}).edited is False
    assert decide([net(HIGH)], {"resnet": WEAK}).edited is None
    assert decide([capture, said("edited", "declared_edit")], {}).edited is True


def test_a_given_threshold_has_no_rates_and_leaves_no_overlap() -> None:
    for threshold in (POINT.authentic / 2, MIDDLE, 1.0):
        point = thresholds(WEAK, Policy(threshold=threshold))
        assert (point.synthetic, point.fpr, point.fnr) == (threshold, None, None)
        assert point.authentic < threshold
        assert point.authentic <= POINT.authentic
    assert judged(net(MIDDLE), threshold=MIDDLE) == ("synthetic", "above_threshold")
    assert judged(net(LOW / 2), threshold=LOW) == ("authentic", "below_threshold")


def test_crossing_thresholds_of_a_strong_network_leave_no_overlap_and_keep_their_rates() -> None:
    strong = make_weights(gap=4.0)
    assert strong.table.at_fnr(0.05).score > strong.table.at_fpr(0.01).score  # they do cross
    point = thresholds(strong, Policy())
    assert point.authentic == math.nextafter(point.synthetic, 0)
    labels = [decide([net(s)], {"resnet": strong}).label for s in np.linspace(0.001, 0.999, 300)]
    assert "inconclusive" not in labels
    assert labels == sorted(labels)  # authentic, then synthetic


def test_a_rate_below_the_resolution_is_refused_with_the_smallest_that_can_be_had() -> None:
    few = make_weights(n=40, fpr=0.1)
    with pytest.raises(
        UsageError, match=r"0\.001 cannot be told from the 40 authentic .* smallest that can is 0\.03"
    ):
        thresholds(few, Policy(fpr=0.001))
    with pytest.raises(WeightsError, match="default operating point"):
        thresholds(make_weights(n=40, fpr=0.001), Policy())


@pytest.mark.parametrize(
    "values",
    [
        *({"fpr": 0.0}, {"fpr": 1.0}, {"fpr": float("nan")}, {"fnr": -1.0}),
        *({"threshold": 0.0}, {"threshold": 1.1}, {"threshold": float("nan")}),
        *({"prior": 0.0}, {"prior": 1.0}, {"fpr": 0.01, "threshold": 0.5}),
    ],
)
def test_a_policy_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Policy(**values)


def test_a_prior_adds_the_posterior_and_moves_no_label() -> None:
    verdict = decide([net(0.97)], {"resnet": WEAK}, Policy(prior=0.01, threshold=0.9))
    assert verdict.label == "synthetic"
    assert verdict.score == 0.97
    # Bayes by hand: odds 0.97 / 0.03 times 1 / 99.
    assert verdict.posterior == pytest.approx((0.97 / 0.03 / 99) / (1 + 0.97 / 0.03 / 99))
    half = decide([net(0.97)], {"resnet": WEAK}, Policy(prior=0.5))
    assert half.posterior == pytest.approx(0.97)


PIXEL = make_weights("pixel_v1_0", gap=2.0)
BOTH = {"resnet": WEAK, "pixel": PIXEL}


def test_several_unfitted_networks_the_first_asked_gives_the_score() -> None:
    assert decide([net(0.5, "pixel"), net(MIDDLE)], BOTH).score == 0.5
    assert decide([net(MIDDLE), net(0.5, "pixel")], BOTH).score == MIDDLE
    failed = Evidence("pixel", "pixel_v1_0", "failed")
    assert decide([failed, net(MIDDLE)], BOTH).score == MIDDLE


def test_networks_that_contradict_each_other_abstain() -> None:
    verdict = decide([net(0.9999, "pixel"), net(LOW)], BOTH)
    assert (verdict.label, verdict.reason) == ("inconclusive", "detectors_disagree")
    verdict = decide([net(0.9999, "pixel"), net(MIDDLE)], BOTH)
    assert (verdict.label, verdict.reason) == ("synthetic", "above_threshold")
    verdict = decide([net(0.9999, "pixel"), net(LOW, low_quality=True)], BOTH)
    assert verdict.reason == "above_threshold"


def _fusion(**change: Any) -> dict[str, Fusion]:
    table = make_weights("fused_v1_0", gap=2.5).table
    names = ("pixel_v1_0", "resnet_v1_0")
    values = {"coefficients": {names[0]: 0.8, names[1]: 0.3}, "offset": -0.1, "table": table, "fpr": 0.01}
    values |= {"fnr": 0.05, "sha256": {name: name for name in names}} | change
    return {"pixel_v1_0+resnet_v1_0": Fusion(**values)}


def test_a_fitted_fusion_weighs_the_logits_in_any_order() -> None:
    one, other = net(0.9, "pixel"), net(0.6)
    expected = 0.8 * math.log(0.9 / 0.1) + 0.3 * math.log(0.6 / 0.4) - 0.1
    for evidence in ([one, other], [other, one]):
        verdict = decide(evidence, BOTH, None, _fusion())
        assert verdict.score == pytest.approx(1 / (1 + math.exp(-expected)))
        assert verdict.thresholds == thresholds(_fusion()["pixel_v1_0+resnet_v1_0"], Policy())


def test_a_fusion_fitted_for_other_numbers_is_not_used() -> None:
    other = _fusion(sha256={"pixel_v1_0": "retrained", "resnet_v1_0": "resnet_v1_0"})
    assert decide([net(0.9, "pixel"), net(0.6)], BOTH, None, other).score == 0.9
    assert decide([net(0.9, "pixel")], {"pixel": PIXEL}, None, _fusion()).score == 0.9


LABELS = {"synthetic", "authentic", "inconclusive"}
NAMES = st.sampled_from([None, "signed_provenance", "signed_capture", "declared_edit", *SYNTHESIS[1:]])
STATES = st.sampled_from(["trusted", "valid_untrusted", "invalid", "remote_only", "none", "unsigned"])
KINDS = st.sampled_from(["synthetic", "edited", "capture", None])


@given(
    statements=st.lists(st.builds(said, KINDS, NAMES, STATES), max_size=4),
    score=st.none() | st.floats(1e-6, 1 - 1e-6),
    low_quality=st.booleans(),
)
def test_any_evidence_gives_a_sound_verdict(statements: Any, score: float | None, low_quality: bool) -> None:
    networks = [] if score is None else [net(score, low_quality=low_quality)]
    verdict = decide([*statements, *networks], {"resnet": WEAK})
    assert verdict.label in LABELS
    assert verdict.score == score
    assert (verdict.thresholds is None) == (score is None)
    if verdict.label == "authentic":  # only a network below its threshold or a trusted camera makes it
        trusted = any(
            s.details["declares"] == "capture"
            and s.details["reason"] == "signed_capture"
            and s.details["state"] == "trusted"
            for s in statements
        )
        assert trusted or (score is not None and score <= POINT.authentic and not low_quality)
    # The order of statements does not matter.
    again = decide([*networks, *reversed(statements)], {"resnet": WEAK})
    assert (again.label, again.reason, again.edited) == (verdict.label, verdict.reason, verdict.edited)
