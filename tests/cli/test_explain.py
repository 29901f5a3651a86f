"""`mai explain` and what `mai scan` shows of the evidence: real files, a real ONNX network with a map of places."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from small_network import make_weights, picture


@pytest.fixture(scope="session")
def pixel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights for the detector `pixel`."""
    return make_weights(tmp_path_factory.mktemp("weights"), "pixel", has_patches=True)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    path.write_bytes(picture(230))
    return path


def test_a_page_is_written_beside_the_text(mai, image, pixel, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    ran = mai("explain", image, "--weights", pixel)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == str(image)
    assert lines[1] == "  likely AI-generated, score >0.99: above the threshold"
    assert any(line.startswith("  - Network 'pixel' (pixel_v1_0): score >0.99.") for line in lines)
    assert any("flags about 1 in 100 of the 500 authentic images" in line for line in lines)
    assert "Not checked:" in lines
    assert lines[-1] == "Report: a.png.mai.html"
    page = (here / "a.png.mai.html").read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert hashlib.sha256(image.read_bytes()).hexdigest() in page
    assert "\x1b" not in ran.out


def test_the_ending_or_an_option_sets_the_form(mai, image, pixel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    common = ("explain", image, "--weights", pixel, "--quiet", "--output")
    assert mai(*common, tmp_path / "case.json").out == ""
    case = json.loads((tmp_path / "case.json").read_text())
    assert case["schema"] == "mai.case/1"
    assert case["record"]["label"] == "synthetic"
    assert case["settings"]["weights"] == str(pixel)
    assert len(case["heat_maps"]) == 1
    odd = mai(*common, tmp_path / "odd.pdf")
    assert odd.code == 2
    assert ".html, .htm, .json" in odd.err
    assert not (tmp_path / "odd.pdf").exists()
    assert mai(*common, tmp_path / "odd.txt", "--html").code == 0
    assert (tmp_path / "odd.txt").read_text().startswith("<!doctype html>")
    assert json.loads(mai(*common, "-", "--json").out)["file"]["bytes"] == image.stat().st_size
    assert mai(*common, "-").out.startswith("<!doctype html>")


def test_what_cannot_be_judged_gets_a_report_and_exit_code_1(mai, pixel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    bad = tmp_path / "bad.jpg"
    bad.write_text("I am text")
    for source, status in (
        (bad, "not_an_image"),
        (tmp_path / "none.jpg", "not_found"),
    ):
        ran = mai("explain", source, "--weights", pixel, "--output", tmp_path / "case.json")
        assert ran.code == 1
        assert json.loads((tmp_path / "case.json").read_text())["record"]["status"] == status
        assert mai("explain", source, "--weights", pixel, "--output", tmp_path / "page.html").code == 1
        assert "It cannot be shown" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--fpr", "0.0001"], "smallest that can is 0.002"),
        (["--output", "/nowhere/at/all.html"], "cannot be written"),
        (["--detectors", "pixle"], "Did you mean 'pixel'?"),
        (["--html", "--json"], "--html and --json ask for two formats"),
    ],
)
def test_wrong_use(mai, image, pixel, options, told) -> None:  # type: ignore[no-untyped-def]
    ran = mai("explain", image, "--weights", pixel, *options)
    assert ran.code == 2
    assert told in ran.err


def test_a_folder_is_refused_with_what_to_run(mai, image, pixel, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(image.parent)
    ran = mai("explain", ".", "--weights", pixel)
    assert ran.code == 2
    assert "'.' is a folder; mai explain looks at one image" in ran.err
    assert "mai scan '.' --html --output report.html" in ran.err
    assert [p.name for p in image.parent.iterdir()] == ["a.png"], "no report on it"


def test_the_image_is_never_written_over(mai, image, pixel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    before = image.read_bytes()
    (tmp_path / "link.html").symlink_to(image)
    for output in (image, tmp_path / "link.html"):
        ran = mai("explain", image, "--weights", pixel, "--output", output)
        assert ran.code == 2
        assert "is the image itself" in ran.err
    assert image.read_bytes() == before


def test_scan_explains_each_image(mai, image, pixel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "\x1b[31mb.png").write_bytes(picture(20))
    ran = mai("scan", tmp_path, "--weights", pixel, "--explain", "--prior", "0.5")
    assert ran.code == 0
    assert ran.out.count("Network 'pixel' (pixel_v1_0): score") == 2
    assert "\\x1b[31mb.png" in ran.out
    assert "\x1b" not in ran.out
    assert "Where 50 in 100 pictures are AI-generated" in ran.out
    assert ran.out.count("Not checked:") == 1
    assert "2 images: 1 likely AI-generated, 1 no sign of AI." in ran.out
    refused = mai("scan", tmp_path, "--weights", pixel, "--explain", "--jsonl")
    assert refused.code == 2
    assert "JSONL rows hold the evidence anyway" in refused.err


@pytest.mark.parametrize("workers", ["1", "2"])
def test_scan_writes_a_page_with_thumbnails(mai, image, pixel, tmp_path, workers) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "b.jpg").write_text("no picture")
    output = tmp_path / "out" / "scan.html"
    output.parent.mkdir()
    ran = mai("scan", tmp_path, "--weights", pixel, "--output", output, "--workers", workers)
    assert ran.code == 1
    assert ran.out == ""
    page = output.read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert page.count('src="data:image/jpeg;base64,') == 1
    assert ">2 images<" in page
    assert "No image format that MAI knows" in page
    assert mai("scan", image, "--weights", pixel, "--html").out.startswith("<!doctype html>")


def test_a_file_that_takes_too_long_gets_a_row(mai, pixel, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Reading and decoding 2 megapixels takes longer than a thousandth of a second on any machine."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(picture(200, size=1500))
    (tmp_path / "c.png").write_bytes(b"")
    ran = mai("scan", tmp_path, "--weights", pixel, "--jsonl", "--timeout", "0.001")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert ran.code == 1
    assert [row["status"] for row in rows[:2]] == ["timed_out", "timed_out"]
    assert "longer than the 0.001 s that --timeout gives" in ran.err
    assert [Path(row["path"]).name for row in rows] == ["a.png", "b.png", "c.png"]
    enough = mai("scan", tmp_path / "a.png", "--weights", pixel, "--jsonl", "--timeout", "120")
    assert json.loads(enough.out)["label"] == "synthetic"
    assert mai("scan", tmp_path, "--weights", pixel, "--timeout", "0").code == 2
