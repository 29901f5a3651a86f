"""Scans, tables and folders that somebody else made: a sentence, never a trace."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from mai.errors import MaiError, UsageError
from mai.images.find import find
from mai.pipeline import ScanSettings
from mai.report.summary import rows_of, summarise
from mai.scanning.workers import Crew


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "[1]"),
        ("a.jsonl", "5\n"),
        ("a.json", '{"path": 1}'),
        ("a.jsonl", '{"path": "a", "status": "ok", "label": "synthetic", "score": NaN}'),
        ("a.jsonl", '{"path": "a", "status": "ok", "label": "synthetic", "score": -9}'),
        ("a.jsonl", '{"path": "a", "status": "ok", "label": "synthetic", "score": "x"}'),
    ],
)
def test_rows_that_are_none_are_refused(name: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError, match="is no scan of MAI"):
        summarise(rows_of(file))


def test_a_table_that_is_no_scan_is_told_what_it_lacks(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("file,label\na.jpg,synthetic\n")
    with pytest.raises(UsageError, match=r"is no scan of MAI: it has no 'score'\. Give what `mai scan"):
        summarise(rows_of(table))


def test_any_name_of_a_database_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a#b?c%20.sqlite"
    with sqlite3.connect(file) as base:
        base.execute("CREATE TABLE records (path, status, label, score)")
        base.execute("INSERT INTO records VALUES ('a', 'ok', 'synthetic', 0.9)")
    assert [row["path"] for row in rows_of(file)] == ["a"]


def test_a_table_that_names_itself_ends(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(f"file\n{table}\n{tmp_path / 'none.jpg'}\n")
    assert [found.error and found.error.status for found in find([table])] == ["unsupported", "not_found"]


def test_workers_that_cannot_begin_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is gone; one that the account may not enter, as after `sudo -u` in /root, is told the same way."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    crew = Crew(ScanSettings(("metadata",)), 1)
    with pytest.raises(MaiError, match="current folder"):
        crew.start()
    crew.close()
