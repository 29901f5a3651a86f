"""Reports for people: the page of one image, the page of a scan, the case file, the text; hostile text is inert."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import referencing
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pil
from PIL.PngImagePlugin import PngInfo
from small_network import make_weights, picture

from mai.detectors.base import DetectorSettings
from mai.detectors.pixel import Detector
from mai.images import decode
from mai.measure.calibrate import Calibration
from mai.pipeline import Scanner
from mai.report import heatmap, layers
from mai.report.case import Case, case_dict, case_json
from mai.report.case import schema as case_schema
from mai.report.explanation import explanation_page
from mai.report.html import Html
from mai.report.page import text
from mai.report.schema import schema
from mai.report.text import Explained
from mai.scanning.explain import explain
from mai.types import Evidence, HeatMap, ImageInfo, Record, Thresholds, Verdict

REGISTRY = referencing.Registry().with_resource(
    "urn:mai:record:1", referencing.Resource.from_contents(schema())
)
VALIDATOR = jsonschema.Draft202012Validator(case_schema(), registry=REGISTRY)
NASTY = "</title></style><script>alert(1)</script><img src=x onerror=alert(1)>"
NASTY += "\"'&\x1b]0;t\x07\x9b31m\u202egpj\r\n\udcff"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
VOID = {"meta", "img", "input", "col", "br", "path", "rect", "circle", "stop"}


class Page(HTMLParser):
    """The elements of a page, as a browser would meet them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.said: list[str] = []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def held_to_the_rules(page: str) -> Page:
    """Nothing is fetched, nothing runs but the page's own script, each reference and label has its end."""
    read = Page(page)
    assert not OBEYED.search(page)
    for tag, attributes in read.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "a"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"], attributes
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:image/").startswith("data:image/")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    policy = next(m["content"] or "" for m in read.all("meta") if m.get("http-equiv"))
    for source in (script, style):
        assert base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in read.elements:
        for name in ("aria-labelledby", "for", "data-map"):
            assert attributes.get(name, ids[0]) in ids
    assert all("alt" in attributes for attributes in read.all("img"))
    assert read.all("html") == [{"lang": "en"}]
    assert len(read.all("h1")) == 1
    return read


@pytest.fixture(scope="module")
def pixel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights"), "pixel", has_patches=True)


@pytest.fixture(scope="module")
def scanner(pixel: Path) -> Scanner:
    return Scanner(["pixel"], weights=pixel, prior=0.01)


def hostile(label: str = "synthetic") -> Case:
    """A case in which all that others can write is hostile."""
    details = {
        "declares": "synthetic",
        "reason": "declared_metadata",
        NASTY: NASTY,
        "prompt": f"line\n{NASTY}",
        "list": [NASTY, {NASTY: [NASTY, float("nan")]}],
        "long": "x" * 5000,
    }
    told = Evidence("metadata", None, "ok", note=NASTY, details=details)
    verdict = Verdict("synthetic", None, "declared_metadata", None, edited=True)
    info = ImageInfo(NASTY, 3, 2, 99, "ab" * 32)
    record = Record(NASTY, "ok", verdict, (told, Evidence(NASTY, NASTY, "failed", note=NASTY)), info)
    if label == "none":
        record = Record(NASTY, "truncated", message=NASTY)
    settings = {"detectors": ["metadata"], "fpr": None, "threshold": None, "prior": None, "weights": NASTY}
    settings |= {"trust": None, "max_bytes": 1, "max_pixels": 1}
    pixels = np.zeros((2, 3, 3), np.uint8)
    return Case(record, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), settings, {}, None, pixels, {})


def pages(case: Case) -> Iterator[str]:
    yield explanation_page(case)
    stream = io.StringIO()
    made = Html(stream, date=case.date, settings=case.settings, weights={NASTY: NASTY}, not_checked=[NASTY])
    made.write(case.record)
    made.finish()
    yield stream.getvalue()


@pytest.mark.parametrize("label", ["synthetic", "none"])
def test_hostile_text_is_inert_on_pages(label: str) -> None:
    for page in pages(hostile(label)):
        read = held_to_the_rules(page)
        assert len(read.all("script")) == len(read.all("style")) == 1
        assert not [a for a in read.all("img") if a.get("src") == "x"]
        shown = "".join(read.said)
        assert "<script>alert(1)</script>" in shown  # as text, for the person to see
        assert "\\x1b]0;t\\x07" in shown
        assert "\\u202egpj" in shown


@given(st.text())
def test_any_text_reads_back_as_itself_or_written_out(value: str) -> None:
    read = Page(f'<p title="{text(value)}">{text(value)}</p>')
    assert [tag for tag, _ in read.elements] == ["p"]
    assert not OBEYED.search("".join(read.said))
    assert read.all("p")[0]["title"] == "".join(read.said)


@pytest.mark.parametrize("label", ["synthetic", "none"])
def test_hostile_text_is_inert_in_json_and_on_a_terminal(label: str) -> None:
    case = hostile(label)
    said = case_json(case)
    assert not OBEYED.search(said)
    read = json.loads(said)
    VALIDATOR.validate(read)
    assert read["record"]["path"] == NASTY.replace("\udcff", "\\xff")
    stream = io.StringIO()
    told = Explained(stream)
    told.write(case.record)
    told.list("Not checked:", [NASTY])
    told.finish()
    assert not OBEYED.search(stream.getvalue())
    assert "<script>alert(1)</script>" in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines())) < 1000


def test_a_prompt_found_in_a_real_file_is_inert(pixel: Path, tmp_path: Path) -> None:
    """From the file through the real readers to the page."""
    info = PngInfo()
    info.add_text(
        "parameters",
        f"{NASTY[:-1]} <b>cat</b>\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42",
        zip=True,
    )
    path = tmp_path / "<img src=x onerror=alert(1)>.png"
    Pil.open(io.BytesIO(picture(130))).save(path, pnginfo=info)
    case = explain(Scanner(["metadata", "pixel"], weights=pixel), path)
    assert case.record.reason == "declared_metadata"
    VALIDATOR.validate(json.loads(case_json(case)))
    for page in pages(case):
        read = held_to_the_rules(page)
        assert len(read.all("script")) == 1
        assert not [a for a in read.all("img") if a.get("src") == "x"]
        assert not read.all("b")


def test_the_page_says_all_that_is_asked_of_it(scanner: Scanner) -> None:
    data = picture(230, size=90)
    case = explain(scanner, data)
    page = explanation_page(case)
    read = held_to_the_rules(page)
    shown = re.sub(r"\s+", " ", " ".join(read.said))
    for said in (
        *("Likely AI-generated", "score >0.99", "at or above the threshold"),
        *(
            "flags about 1 in 100 of the 500 authentic images",
            "5 of 500 (0.43% to 2.32%)",
            "Measured on drawn scores",
        ),
        *(
            "Where 1 in 100 pictures are AI-generated",
            "Network 'pixel'",
            "pixel_v1_0",
            "PNG",
            "90 x 90 pixels",
        ),
        *(
            "SynthID",
            "Content Credentials (C2PA): not asked",
            "signal, not proof",
            str(case.date.year),
            "n views",
        ),
        *(hashlib.sha256(data).hexdigest(), case.weights["pixel"].config["sha256"]),
    ):
        assert said in shown, said
    assert len(shown) > 500
    for never in (r"\bfake\b", r"\breal\b"):
        assert not re.search(never, shown, re.IGNORECASE)
    (slider,) = read.all("input")
    assert slider["type"] == "range"
    assert [image["src"][:16] for image in read.all("img") if image["src"]] == [
        "data:image/jpeg;",
        "data:image/png;b",
    ]


def test_the_words_of_each_answer(pixel: Path) -> None:
    scanner = Scanner(["pixel"], weights=pixel)
    told = {red: explanation_page(explain(scanner, picture(red))) for red in (230, 20, 130)}
    for red, words in ((230, "Likely AI-generated"), (20, "No sign of AI"), (130, "Cannot tell")):
        assert f"{words}</span></h1>" in told[red]
    broken = explain(scanner, b"no picture")
    page = explanation_page(broken)
    held_to_the_rules(page)
    assert "Not an image</span></h1>" in page
    assert "did not get to look" in page
    VALIDATOR.validate(case_dict(broken))


def test_a_threshold_of_ones_own_has_no_error_rate(pixel: Path) -> None:
    case = explain(Scanner(["pixel"], weights=pixel, threshold=0.3), picture(200))
    values = case_dict(case)
    VALIDATOR.validate(values)
    assert values["operating_point"]["false_positive"] is None
    assert "no error rate was measured" in explanation_page(case)


def test_the_case_file_holds_what_a_newsroom_files(scanner: Scanner) -> None:
    case = explain(scanner, picture(200, size=90))
    read = json.loads(case_json(case))
    VALIDATOR.validate(read)
    assert read["record"] == json.loads(json.dumps(case.record.to_dict()))
    assert read["weights"][0]["sha256"] == hashlib.sha256(case.weights["pixel"].model_bytes()).hexdigest()
    assert datetime.fromisoformat(read["date"]).tzinfo is not None
    assert read["operating_point"]["false_positive"] | {"interval_95": []} == {
        **{"threshold": read["record"]["thresholds"]["synthetic"], "rate": 0.01},
        **{"n_errors": 5, "n": 500, "interval_95": []},
    }
    (window,) = read["heat_maps"]
    assert np.shape(window["logits"]) == (4, 4)
    assert np.mean(window["logits"]) == pytest.approx(read["record"]["evidence"][0]["logit"], abs=1e-3)


def test_patches_mean_is_the_windows_logit_and_windows_lie_where_views_were_cut(pixel: Path) -> None:
    detector = Detector(DetectorSettings(pixel))
    pixels = np.zeros((64, 160, 3), np.uint8)
    pixels[..., 1] = np.random.default_rng(0).integers(0, 255, (64, 160))
    pixels[:, 96:, 0] = 255  # the right window, and a third of the middle
    image = decode.from_array(pixels)
    maps = detector.heat_maps(image)
    assert [(m.kind, m.top, m.left, m.side) for m in maps] == [("whole", 0, 0, 64), ("whole", 0, 96, 64)]
    (evidence,) = detector.look([image])
    assert np.mean([m.patches.mean() for m in maps]) == pytest.approx(evidence.logit, abs=1e-5)
    assert maps[0].patches.max() < 0 < maps[1].patches.min()
    odds = heatmap.log_odds(maps, Calibration(1.0, 0.0), 64, 160)
    assert odds.shape == (64, 160)
    assert (odds[:, :64] < 0).all()
    assert (odds[:, 96:] > 0).all()
    assert np.isnan(odds[:, 64:96]).all()
    layer = np.asarray(Pil.open(io.BytesIO(heatmap.layer(maps, Calibration(1.0, 0.0), 64, 160))))
    assert layer.shape == (64, 160, 4)
    assert (layer[:, 64:96, 3] == 0).all()  # nothing is said about what no window saw
    assert tuple(layer[5, 5, :3]) == heatmap.AUTHENTIC_RGB
    assert tuple(layer[5, 150, :3]) == heatmap.SYNTHETIC_RGB


def test_each_patch_lies_where_the_network_saw_it(pixel: Path) -> None:
    """A picture that is nearly square: one window in its middle, its quarter columns from dark to bright red."""
    pixels = np.zeros((64, 72, 3), np.uint8)
    pixels[..., 1] = np.random.default_rng(0).integers(0, 255, (64, 72))
    for i in range(4):
        pixels[:, 4 + 16 * i : 20 + 16 * i, 0] = 60 * i
    (found,) = Detector(DetectorSettings(pixel)).heat_maps(decode.from_array(pixels))
    assert (found.top, found.left, found.side) == (0, 4, 64)
    columns = np.nanmean(heatmap.log_odds([found], Calibration(1.0, 0.0), 64, 72)[:, 4:68], axis=0)
    for i in range(4):  # the logit of red r is a tenth of r - 127.5; the edges blur in resizing
        assert columns[16 * i : 16 * i + 16] == pytest.approx((60 * i - 127.5) / 10, abs=0.6)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 5000), (5000, 3), (700, 900)])
def test_a_layer_of_any_shape_keeps_the_mean(height: int, width: int) -> None:
    side = min(height, width)
    patches = np.random.default_rng(1).normal(0, 3, (5, 5)).astype(np.float32)
    odds = heatmap.log_odds([HeatMap("whole", 0, 0, side, patches)], Calibration(0.5, 1.0), height, width)
    assert max(odds.shape) <= heatmap.LAYER_PX
    if side >= 100:
        assert np.nanmean(odds) == pytest.approx(0.5 * patches.mean() + 1, abs=0.15)
    assert heatmap.layer([HeatMap("whole", 0, 0, side, patches)], Calibration(0.5, 1.0), height, width)


def test_a_network_without_a_map_and_a_flat_picture_have_no_layer(tmp_path: Path, pixel: Path) -> None:
    plain = Scanner(["resnet"], weights=make_weights(tmp_path))
    assert explain(plain, picture(200)).heat_maps == {}
    flat = np.full((50, 50, 3), 9, np.uint8)
    assert explain(Scanner(["pixel"], weights=pixel), flat).heat_maps == {}


def test_details_are_flat_cut_and_without_silence() -> None:
    details = {
        **{"none": None, "empty": [], "yes": True, "n_views": 3, "share": 0.123456789},
        **{"signer": {"name": "A", "list": ["x", "y"]}, "actions": [{"action": "made"}, {"action": "cut"}]},
        "deep": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}},
        "long": "z" * 3000,
    }
    rows = layers.details(Evidence("c2pa", details=details))
    assert rows[:6] == [
        *[("yes", "yes"), ("n views", "3"), ("share", "0.123457"), ("signer > name", "A")],
        *[("signer > list", "x, y"), ("actions 1 > action", "made")],
    ]
    assert dict(rows)["deep > a > b > c > d > e"] == "..."
    assert dict(rows)["long"].endswith("... (1,000 more characters)")
    many = layers.details(Evidence("c2pa", details={f"k{i}": i for i in range(500)}))
    assert len(many) == layers.MAX_DETAILS + 1
    assert "only the first" in many[-1][1]


def test_what_was_not_checked() -> None:
    found = [Evidence("c2pa", status="absent"), Evidence("pixel", status="failed", note="No memory.")]
    said = layers.unchecked(found, ["c2pa", "pixel", "metadata"])
    assert said[:2] == ["Metadata: did not get to look.", "Network 'pixel': could not look. No memory."]
    assert any(entry.startswith("Network 'resnet': not asked") for entry in said)
    assert not any("C2PA" in entry for entry in said)
    assert said[-len(layers.NEVER_CHECKED) :] == list(layers.NEVER_CHECKED)


def test_findings_in_words() -> None:
    def said(status: str = "ok", score: float | None = None, **details: object) -> str:
        return layers.finding(Evidence("x", None, status, None, score, "", details))  # type: ignore[arg-type]

    assert said("absent") == "nothing found"
    assert said("failed") == "could not look"
    assert said("skipped") == "did not look"
    assert said(score=0.999) == "score >0.99"
    assert said(score=0.5, low_quality=True) == "score 0.50, does not count"
    assert said(declares="synthetic", state="trusted") == "declares that AI made the picture, trusted signer"
    assert said(declares="synthetic", state="invalid") == "damaged or changed; does not count"
    assert said(state="remote_only") == "lies elsewhere, not fetched; does not count"
    assert said(declares="capture", state="valid_untrusted").endswith("untrusted signer")
    assert said() == "something found, decides nothing"


def test_the_page_of_a_scan_counts_and_shows(pixel: Path) -> None:
    scanner = Scanner(["pixel"], weights=pixel, thumbnails=True)
    stream = io.StringIO()
    page = Html(stream, date=datetime.now(UTC), settings={}, weights={}, operating_point="One in a hundred.")
    for source in (picture(230), picture(20), picture(130), b"no picture"):
        page.write(scanner.scan(source))
    page.finish()
    read = held_to_the_rules(stream.getvalue())
    assert [row["data-label"] for row in read.all("tr") if "data-label" in row] == [
        *("synthetic", "authentic", "inconclusive", "none")
    ]
    assert len(read.all("img")) == 3
    shown = re.sub(r"\s+", " ", " ".join(read.said))
    for said in ("4 images", "likely AI-generated 1", "not judged 1", "One in a hundred.", "SHA-256"):
        assert said in shown, said
    small = Pil.open(io.BytesIO(base64.b64decode((read.all("img")[0]["src"] or "").split(",")[1])))
    assert small.format == "JPEG"
    assert not small.getexif()


def test_a_thumbnail_is_made_only_when_asked_and_never_in_the_row(pixel: Path) -> None:
    plain = Scanner(["pixel"], weights=pixel).scan(picture(9))
    assert plain.thumbnail is None
    asked = Scanner(["pixel"], weights=pixel, thumbnails=True).scan(picture(9))
    assert asked.thumbnail
    assert plain.to_dict() | {"seconds": {}} == asked.to_dict() | {"seconds": {}}


def test_an_answer_that_a_declaration_gave_says_so() -> None:
    point = Thresholds(0.9, 0.01, 0.1, 0.05)
    verdict = Verdict("synthetic", 0.2, "declared_metadata", point)
    case = hostile()
    record = Record("a", "ok", verdict, (), ImageInfo("PNG", 1, 1, 1, "ab" * 32))
    page = explanation_page(Case(record, case.date, case.settings, {}, None, None, {}))
    assert "that of the networks alone; it did not decide" in page
