"""docs/python.md: its code runs as it stands, and it names each argument of a Scanner."""

from __future__ import annotations

import inspect
import re
import tarfile
from pathlib import Path

import pytest
from small_network import make_weights, picture

from mai import pipeline, weights

PAGE = Path(__file__).parents[3] / "docs" / "python.md"


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_weights(tmp_path / "weights")
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(pipeline, "DEFAULT", ("pixel",))  # its stand-in `resnet` is the one with weights here
    pipeline._scanner.cache_clear()
    monkeypatch.chdir(tmp_path)
    Path("photo.jpg").write_bytes(picture(240, "JPEG", 300))
    Path("pictures").mkdir()
    Path("pictures/one.png").write_bytes(picture(10))
    with tarfile.open("shard.tar", "w") as shard:
        shard.add("photo.jpg")
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL):
        exec(block, {"__name__": "page"})  # each by itself
    pipeline._scanner.cache_clear()
    told = capsys.readouterr().out
    assert told.startswith("synthetic 0.99")
    assert "pictures/one.png authentic" in told
    assert "shard.tar::photo.jpg synthetic" in told
    assert "Evidence(detector='resnet'" in told


def test_each_argument_of_a_scanner_is_named() -> None:
    text = PAGE.read_text("utf-8")
    for name in list(inspect.signature(pipeline.Scanner).parameters):
        assert f"| `{name}` |" in text
