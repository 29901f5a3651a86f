"""The Scanner: each kind of source and failure, with real files, codecs and a real ONNX network."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from PIL import Image as Pil
from PIL.PngImagePlugin import PngInfo

import mai
from mai.errors import UnknownNameError, UsageError, WeightsError
from mai.images.decode import Limits
from mai.pipeline import Scanner, default_detectors
from mai.report.schema import schema

pytestmark = pytest.mark.usefixtures("plugins")
VALIDATOR = jsonschema.Draft202012Validator(schema())


def picture(red: int = 200, form: str = "PNG", size: int = 16, says: str | None = None) -> bytes:
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[..., 0] = red
    text = PngInfo()
    if says:
        text.add_text("Says", says)
    stream = io.BytesIO()
    Pil.fromarray(pixels).save(stream, form, **({"pnginfo": text} if form == "PNG" else {}))
    return stream.getvalue()


def test_each_kind_of_source_is_judged_alike(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(picture())
    opened = Pil.open(file)
    scanner = Scanner("red")
    sources = [str(file), file, file.read_bytes(), bytearray(file.read_bytes()), opened, np.asarray(opened)]
    records = list(scanner.scan_many(sources))
    assert not [r.message for r in records if r.message]
    assert {(r.label, r.score) for r in records} == {("synthetic", records[0].score)}
    assert records[0].score == pytest.approx(1 / (1 + np.exp(-0.1 * (200 - 127.5))), abs=1e-6)
    assert [r.path for r in records] == [str(file), str(file), "<bytes>", "<bytes>", "<image>", "<array>"]
    for record in records:
        VALIDATOR.validate(record.to_dict())
    assert set(records[0].seconds) == {"read", "decode", "red"}


def test_the_public_names_work(tmp_path: Path) -> None:
    record = mai.scan(picture(), ["red"], fpr=0.05)
    assert isinstance(record, mai.Record)
    assert record.verdict is not None
    assert record.verdict.thresholds is not None
    assert record.verdict.thresholds.fpr == 0.05
    assert mai.load_detector("statement").look([]) == []


def test_bad_images_are_rows_and_the_scan_goes_on(tmp_path: Path) -> None:
    good = picture()
    jpeg = picture(form="JPEG", size=64)
    sources = [good, b"", b"just text", jpeg[: len(jpeg) // 2], tmp_path / "none.png", tmp_path, good]
    records = list(Scanner("red").scan_many(sources))
    statuses = ["ok", "empty", "not_an_image", "truncated", "not_found", "not_a_file", "ok"]
    assert [r.status for r in records] == statuses
    for record in records:
        VALIDATOR.validate(record.to_dict())
    small = Scanner("red", limits=Limits(max_pixels=100))
    assert small.scan(good).status == "too_large"


def test_a_detector_that_breaks_costs_only_its_image() -> None:
    poison = picture()
    broken = Pil.open(io.BytesIO(poison))
    broken.putpixel((0, 0), (66, 66, 66))
    records = list(Scanner("red").scan_many([picture(), broken, picture(20)]))
    assert [r.status for r in records] == ["ok", "detector_failed", "ok"]
    assert records[1].message == "red: It failed: ZeroDivisionError: a mistake of its own"
    VALIDATOR.validate(records[1].to_dict())


def test_a_failed_network_matters_only_if_nothing_else_judged() -> None:
    stream = io.BytesIO()
    text = PngInfo()
    text.add_text("Says", "synthetic")
    grey = np.full((16, 16, 3), 66, np.uint8)
    Pil.fromarray(grey).save(stream, "PNG", pnginfo=text)
    record = Scanner("red,statement").scan(stream.getvalue())
    assert (record.status, record.label, record.reason, record.score) == (
        *("ok", "synthetic", "declared_metadata"),
        None,
    )
    assert [e.status for e in record.evidence] == ["failed", "ok"]
    text = PngInfo()
    text.add_text("Says", "capture")
    stream = io.BytesIO()
    Pil.fromarray(grey).save(stream, "PNG", pnginfo=text)
    assert Scanner("red,statement").scan(stream.getvalue()).status == "detector_failed"


def test_pixels_are_decoded_only_for_a_detector_that_looks_at_them() -> None:
    damaged = picture(says="synthetic", size=64)
    at = damaged.index(b"IDAT") + 8
    damaged = damaged[:at] + b"\xff" * 8 + damaged[at + 8 :]
    record = Scanner("statement").scan(damaged)
    assert (record.status, record.label, record.score) == ("ok", "synthetic", None)
    assert "decode" not in record.seconds
    record = Scanner("statement,red").scan(damaged)
    assert (record.status, record.label) == ("truncated", None)
    assert [e.detector for e in record.evidence] == ["statement"]  # what it says is shown all the same


def test_absence_is_not_evidence() -> None:
    record = Scanner("statement").scan(picture())
    assert (record.label, record.reason, record.score) == ("inconclusive", "low_evidence", None)


def test_an_unweighed_network_says_so() -> None:
    record = Scanner("red,crimson").scan(picture(135))
    assert record.score == record.evidence[0].score
    assert record.evidence[1].note.endswith("no fusion was fitted for these networks.")
    assert not record.evidence[0].note
    contrary = Scanner("red,crimson").scan(picture(255))
    assert (contrary.label, contrary.reason) == ("inconclusive", "detectors_disagree")


@pytest.mark.parametrize(
    ("detectors", "settings", "error", "told"),
    [
        ("red", {"fpr": 0.0001}, UsageError, "smallest that can is"),
        ("red", {"fpr": 2}, UsageError, "between 0 and 1"),
        ("red", {"fpr": 0.01, "threshold": 0.5}, UsageError, "either"),
        ("statement", {"fpr": 0.01}, UsageError, "no network is among"),
        ("statment", {}, UnknownNameError, "Did you mean 'statement'"),
        (" , ", {}, UsageError, "No detector is named"),
        ("statement", {"weights": "red_v1_0"}, UsageError, "--detectors statement,red"),
        ("red", {"weights": "blue_v1_0"}, UnknownNameError, "There are no weights named"),
    ],
)
def test_wrong_settings_are_refused_before_any_image(detectors, settings, error, told) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=told):
        Scanner(detectors, **settings)


def test_without_weights_a_sentence_says_how_to_make_them(plugins: Path) -> None:
    for file in (plugins / "weights").rglob("config.json"):
        file.unlink()
    with pytest.raises(UnknownNameError):
        Scanner("red")
    with pytest.raises(WeightsError, match="mai train resnet"):
        default_detectors()


def test_damaged_weights_are_refused(plugins: Path) -> None:
    model = plugins / "weights" / "red_v1_0" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged or was replaced"):
        Scanner("red")


def test_a_source_that_is_no_image_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="not float"):
        Scanner("red").scan(1.5)  # type: ignore[arg-type]


def test_the_scan_is_lazy_and_in_order() -> None:
    n_taken = 0

    def sources() -> Iterator[bytes]:
        nonlocal n_taken
        for red in range(100):
            n_taken += 1
            yield picture(red)

    records = Scanner("red").scan_many(sources())
    first = next(records)
    assert n_taken == 1
    scores = [first.score, *(r.score for r in records)]
    assert scores == sorted(scores)  # type: ignore[type-var]
    assert len(set(scores)) == 100


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    large = picture(size=1000)
    scanner = Scanner("red")
    list(scanner.scan_many([large] * 10))
    peaks = []
    for n in (20, 60):
        tracemalloc.start()
        for _ in scanner.scan_many(large for _ in range(n)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.1


def test_a_prior_adds_the_posterior() -> None:
    row = Scanner("red", prior=0.1).scan(picture()).to_dict()
    VALIDATOR.validate(row)
    odds = row["score"] / (1 - row["score"]) / 9
    assert row["posterior"] == {"prior": 0.1, "score": pytest.approx(odds / (1 + odds))}


def test_the_cache_may_be_named_by_a_text_or_be_none(tmp_path: Path) -> None:
    for cache in (str(tmp_path / "kept.sqlite"), tmp_path / "kept.sqlite", None, ""):
        scanner = Scanner("red", cache=cache)
        assert scanner.scan(picture()).label == "synthetic"
        scanner.close()
    assert (tmp_path / "kept.sqlite").stat().st_size > 0
