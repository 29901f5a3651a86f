"""JPEG files decoded at a part of their size: one score of one file, whoever else looks at it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pil

from mai.data.labelled import Row
from mai.detectors.base import DetectorSettings, least_px, load
from mai.images.decode import from_bytes
from mai.images.views import ViewPlan
from mai.pipeline import Scanner
from mai.scanning.explain import explain
from mai.training.evaluation import score_rows

pytestmark = pytest.mark.filterwarnings("ignore")


def photograph(quality: int, short: int = 900, form: str = "JPEG") -> bytes:
    rng = np.random.default_rng(3)
    coarse = Pil.fromarray(rng.integers(0, 256, (15, 20, 3), np.uint8))
    large = np.asarray(coarse.resize((short * 4 // 3, short), Pil.Resampling.BICUBIC), np.float32)
    noisy = np.clip(large + rng.normal(0, 8, large.shape), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Pil.fromarray(noisy).save(stream, form, quality=quality)
    return stream.getvalue()


@pytest.mark.parametrize("quality", [85, 97])
def test_the_score_does_not_hang_on_who_else_looks(quality: int, tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(photograph(quality))
    alone = Scanner("pixel").scan(file)
    assert alone.score is not None
    for others in ("pixel,watermark", "watermark,pixel,metadata", "resnet,pixel"):
        found = {e.detector: e for e in Scanner(others).scan(file).evidence}
        assert found["pixel"].logit == alone.evidence[0].logit
    assert explain(Scanner("pixel"), file).record.score == alone.score
    by_batch = list(Scanner("pixel", batch=2).scan_many([file, file]))
    assert [record.score for record in by_batch] == pytest.approx([alone.score] * 2, abs=1e-5)


def test_it_is_near_the_score_of_all_pixels() -> None:
    scanner = Scanner("pixel")
    for quality in (75, 90):
        data = photograph(quality)
        part, whole = scanner.scan(data), scanner.scan(Pil.open(io.BytesIO(data)))
        assert part.evidence[0].logit != whole.evidence[0].logit
        assert part.score == pytest.approx(whole.score, abs=0.05)
        assert part.image is not None
        assert (part.image.width, part.image.height) == (1200, 900)


def test_who_needs_how_much() -> None:
    settings = DetectorSettings()
    large, fine = from_bytes(photograph(85)), from_bytes(photograph(97))
    assert least_px(load("pixel", settings), large) == 336
    assert least_px(load("resnet", settings), large) is None
    assert [least_px(load("watermark", settings), image) for image in (large, fine)] == [0, None]
    assert least_px(load("watermark", settings), from_bytes(photograph(99, 180))) == 0


def test_the_watermark_of_a_file_nobody_else_looks_at_is_skipped_with_its_reason() -> None:
    (found,) = Scanner("watermark").scan(photograph(85)).evidence
    assert found.status == "skipped"
    assert "quality 85" in found.note


def test_thumbnails_come_of_what_was_decoded() -> None:
    record = Scanner("pixel", thumbnails=True).scan(photograph(85))
    assert record.thumbnail is not None
    assert max(Pil.open(io.BytesIO(record.thumbnail)).size) <= 128


def test_the_heat_map_is_that_of_the_score() -> None:
    """The window lies in the whole picture; what it shows is what was judged."""
    case = explain(Scanner("pixel"), photograph(85))
    (found,) = case.heat_maps["pixel"]
    assert (found.top, found.left, found.side) == (0, 150, 900)
    assert found.patches.mean() == pytest.approx(case.record.evidence[0].logit, abs=1e-4)


def test_a_picture_is_not_too_small_because_it_was_decoded_smaller() -> None:
    plan = ViewPlan(64, 1, 1.0, 0, 64, 1.0, min_side_px=500)
    assert plan.least_px == 500
    assert ViewPlan(64, 1, 0.5, 0, 64, 1.0).least_px == 192


def test_evaluation_and_calibration_read_files_as_a_scan_does(tmp_path: Path) -> None:
    file = tmp_path / "photo.jpg"
    file.write_bytes(photograph(85))
    detector: Any = load("pixel", DetectorSettings())
    rows = [Row(file=str(file), label=0, image="photo", source="s")]
    (found,) = score_rows(rows, detector.session.logits, detector.plan, "native", quiet=True).logits(
        detector.plan
    )
    assert found == pytest.approx(Scanner("pixel").scan(file).evidence[0].logit, abs=1e-5)
