"""`mai scan examples/` gives what examples/expected.csv expects, with the weights that ship."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mai.types import LABELS

FOLDER = Path(__file__).resolve().parent.parent / "examples"
CLASSES = {"authentic", "synthetic"}


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, str]]:
    with (FOLDER / "expected.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def records() -> dict[str, dict[str, Any]]:
    """The rows of the real command, by path below examples/."""
    command = [sys.executable, "-m", "mai", "scan", "--jsonl", "--quiet", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {Path(row["path"]).relative_to(FOLDER).as_posix(): row for row in rows}


def test_every_picture_stands_in_the_file(expected: dict[str, dict[str, str]]) -> None:
    pictures = {p.relative_to(FOLDER).as_posix() for name in CLASSES for p in (FOLDER / name).iterdir()}
    assert set(expected) == pictures
    readme = (FOLDER / "README.md").read_text("utf-8")
    for file, row in expected.items():
        assert row["truth"] == file.split("/")[0]
        assert set(row["expected"].split("|")) <= set(LABELS)
        assert f"`{file}`" in readme, "its source and licence are not in examples/README.md"


def test_verdicts_are_the_expected_ones(
    expected: dict[str, dict[str, str]], records: dict[str, dict[str, Any]]
) -> None:
    assert set(records) == set(expected)
    wrong = [
        f"{file}: {records[file]['label']} ({records[file]['score']}, {records[file]['reason']}), not {row['expected']}"
        for file, row in expected.items()
        if records[file]["label"] not in row["expected"].split("|")
    ]
    assert not wrong, "\n".join(wrong)


def test_some_of_each_class_are_decided(
    expected: dict[str, dict[str, str]], records: dict[str, dict[str, Any]]
) -> None:
    """A tool that answers 'cannot tell' to everything would pass the test above."""
    right = Counter(row["truth"] for file, row in expected.items() if records[file]["label"] == row["truth"])
    assert set(right) == CLASSES, right


def test_declared_picture_carries_its_text() -> None:
    with Image.open(FOLDER / "synthetic" / "declared.png") as picture:
        assert "Steps: 20, Sampler: Euler a" in picture.info["parameters"]
