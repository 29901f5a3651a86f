"""`mai doctor` and `mai weights`, with weights whole, damaged and missing."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mai import weights


@pytest.fixture
def shipped(resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation whose only weights are those of the small network."""
    shutil.copytree(resnet, tmp_path / resnet.name)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    return tmp_path / resnet.name


def test_all_is_well_with_whole_weights(mai, shipped: Path) -> None:  # type: ignore[no-untyped-def]
    ran = mai("doctor")
    assert ran.code == 0, ran.out
    assert ran.out.rstrip().endswith("All is well.")
    report = json.loads(mai("doctor", "--json").out)
    assert report["well"] is True
    assert set(report) == {"well", "system", "packages", "formats", "weights", "detectors", "scan"}
    assert {f["name"]: f["ok"] for f in report["packages"]}["onnxruntime"] is True
    assert {f["name"]: f["ok"] for f in report["detectors"]}["resnet"] is True
    assert {f["name"]: f["ok"] for f in report["formats"]}["AVIF"] is True
    one = json.loads(mai("doctor", "resnet", "--json").out)
    assert one["resnet"][0]["found"].startswith("resnet_v1_0, loaded in")


def test_damage_is_a_fault(mai, shipped: Path) -> None:  # type: ignore[no-untyped-def]
    (shipped / "model.onnx").write_bytes(b"x")
    ran = mai("doctor")
    assert ran.code == 1
    assert "FAULT  resnet_v1_0" in ran.out
    assert "damaged or was replaced" in ran.out
    assert mai("doctor", "packages").code == 0  # only the part that was asked for
    assert json.loads(mai("weights", "list", "--json").out)[0]["intact"] is False
    assert "DAMAGED" in mai("weights", "list").out
    assert "DOES NOT MATCH" in mai("weights", "show", "resnet").out


def test_without_weights_the_scan_is_the_fault(mai, shipped: Path) -> None:  # type: ignore[no-untyped-def]
    shutil.rmtree(shipped)
    report = json.loads(mai("doctor", "--json").out)
    assert {f["name"]: f["ok"] for f in report["detectors"]}["resnet"] is None
    assert "Train some" in mai("weights", "list").out
    assert mai("weights", "show", "resnet").code == 2


def test_an_unknown_part_names_the_nearest(mai) -> None:  # type: ignore[no-untyped-def]
    ran = mai("doctor", "formts")
    assert ran.code == 2
    assert "Did you mean 'formats'?" in ran.err


def test_each_missing_package_names_the_extra_that_brings_least(mai, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from importlib import metadata

    def missing(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", missing)
    lines = {line.split()[1]: line for line in mai("doctor", "packages").out.splitlines() if "[" in line}
    wanted = {
        "pillow-heif": "heif",
        "pyarrow": "data",
        "torch": "train",
        "scikit-learn": "bench",
        "peft": "vlm",
    }
    wanted |= {"diffusers": "pairs", "fastapi": "serve", "ray": "scale"}
    for package, extra in wanted.items():
        assert f"pip install 'mai-identifier[{extra}]'" in lines[package]
    assert not any("[all]" in line or "[dev]" in line for line in lines.values())


def test_weights_are_shown_with_their_thresholds_and_card(mai, shipped: Path) -> None:  # type: ignore[no-untyped-def]
    (shipped / "README.md").write_text("# Card\x1b[2J\n")
    listed = mai("weights", "list").out
    assert listed.startswith("resnet_v1_0")
    shown = mai("weights", "show", "resnet").out
    assert "0.01 false positives: score >= 0." in shown
    assert re.search(r"\([02-9] errors, 95 %: ", shown)
    assert "(1 error, 95 %: 0.000 to 0.011)" in shown, "Wilson's interval of 1 in 500"
    assert "(1 errors" not in shown
    assert "# Card\\x1b[2J" in shown
    config = json.loads(mai("weights", "show", str(shipped), "--json").out)
    assert config["format"] == "mai.weights/1"
