"""What every detector promises (mai/detectors/base.py), asked of each file in mai/detectors/."""

from __future__ import annotations

import io
import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image as Pil
from small_network import make_weights, picture

from mai.detectors import base
from mai.detectors.base import Detector, DetectorSettings
from mai.errors import MissingExtraError
from mai.images import decode as decoding
from mai.pipeline import Scanner
from mai.report.jsonlines import line
from mai.report.schema import schema
from mai.types import REASONS, Image

NETWORKS = ("resnet", "pixel", "probe", "moondream")
"""Detectors of a shipped ONNX network; they are asked with small weights, made here."""


@pytest.fixture(params=base.names())
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, DetectorSettings]:
    name = request.param
    return name, DetectorSettings(make_weights(tmp_path, name) if name in NETWORKS else None)


@pytest.fixture
def detector(settings: tuple[str, DetectorSettings]) -> Detector:
    try:
        return base.load(*settings)
    except MissingExtraError as error:
        pytest.skip(str(error))


def images() -> list[Image]:
    """Pictures of several kinds: small, large, long, grey, transparent, one colour, one pixel."""
    rng = np.random.default_rng(0)
    grey = Pil.fromarray(rng.integers(0, 256, (300, 900), np.uint8))
    clear = Pil.fromarray(rng.integers(0, 256, (64, 64, 4), np.uint8))
    encoded = [picture(100), picture(200, "JPEG", 500), picture(50, "WEBP", 257)]
    for drawn in (grey, clear, Pil.new("RGB", (400, 300), (9, 9, 9)), Pil.new("RGB", (1, 1))):
        stream = io.BytesIO()
        drawn.save(stream, "PNG")
        encoded.append(stream.getvalue())
    return [decoding.decode(decoding.from_bytes(data, f"{i}")) for i, data in enumerate(encoded)]


def test_it_says_who_it_is(detector: Detector, settings: tuple[str, DetectorSettings]) -> None:
    assert detector.name == settings[0]
    assert detector.needs in ("bytes", "pixels")
    assert detector.kind in ("network", "statement")
    assert (detector.weights is not None) >= (detector.kind == "network")


def test_it_answers_about_each_image_in_order(detector: Detector) -> None:
    some = images()
    together = detector.look(some)
    assert len(together) == len(some)
    for image, evidence in zip(some, together, strict=True):
        alone = detector.look([image])[0]
        assert alone.status == evidence.status
        assert alone.score == pytest.approx(evidence.score, abs=1e-4)
        assert (evidence.detector, evidence.weights) == (detector.name, detector.weights)
    assert detector.look([]) == []


def test_its_evidence_is_of_its_kind(detector: Detector) -> None:
    for evidence in detector.look(images()):
        assert evidence.status in ("ok", "absent", "failed", "skipped")
        assert evidence.note or evidence.status != "failed"
        json.dumps(dict(evidence.details), allow_nan=False)
        if detector.kind == "network" and evidence.status == "ok":
            assert evidence.logit is not None
            assert evidence.score is not None
            assert 0 <= evidence.score <= 1
        if detector.kind == "statement":
            assert evidence.logit is None
            assert evidence.score is None
            assert evidence.details.get("declares") in (None, "synthetic", "edited", "capture")
            assert evidence.details.get("reason") in (None, *REASONS)


def test_it_raises_nothing_and_changes_nothing(detector: Detector) -> None:
    for image in images():
        assert image.pixels is not None
        before = image.pixels.copy()
        bare = Image(image.path, image.info, None, image.pixels)  # pixels in memory, no file
        unread = Image(image.path, image.info, image.data, None)  # a file, not decoded
        rotten = Image(image.path, image.info, (image.data or b"")[:40] + bytes(99), image.pixels)
        for odd in (image, bare, unread, rotten):
            assert len(detector.look([odd])) == 1
        assert np.array_equal(before, image.pixels)


def test_its_rows_hold_to_the_schema(settings: tuple[str, DetectorSettings]) -> None:
    name, told = settings
    try:
        scanner = Scanner([name], weights=told.weights)
    except MissingExtraError as error:
        pytest.skip(str(error))
    validator = jsonschema.Draft202012Validator(schema())
    for record in scanner.scan_many([picture(100), picture(9, "JPEG"), b"", *images()]):
        validator.validate(json.loads(line(record)))
