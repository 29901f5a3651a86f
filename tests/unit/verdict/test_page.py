"""docs/evidence-and-verdict.md names each reason, label and column of the row."""

from __future__ import annotations

from pathlib import Path

from mai.report.words import LABELS
from mai.types import REASONS

PAGE = (Path(__file__).parents[3] / "docs" / "evidence-and-verdict.md").read_text("utf-8")


def test_each_word_stands_on_the_page() -> None:
    for reason in REASONS:
        assert f"| `{reason}` |" in PAGE
    for label, words in LABELS.items():
        assert f"| `{label}` | {words} |" in PAGE
