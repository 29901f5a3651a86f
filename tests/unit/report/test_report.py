"""Rows as people and programs get them; hostile names stay harmless."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mai.errors import UsageError
from mai.measure.calibrate import OperatingTable, operating_table
from mai.report import words
from mai.report.destination import whole_file
from mai.report.escape import safe_json, visible
from mai.report.jsonlines import JsonArray, JsonLines, line
from mai.report.schema import schema
from mai.report.table_csv import COLUMNS, Csv, safe_cell
from mai.report.terminal import PAGE, Table
from mai.types import (
    EVIDENCE_STATUSES,
    LABELS,
    REASONS,
    SCHEMA,
    STATUSES,
    Evidence,
    ImageInfo,
    Label,
    Reason,
    Record,
    Status,
    Thresholds,
    Verdict,
)

VALIDATOR = jsonschema.Draft202012Validator(schema())
INFO = ImageInfo("JPEG", 1024, 768, 181233, "ab" * 32)
POINT = Thresholds(0.91, 0.01, 0.12, 0.05)
EVIDENCE = Evidence("pixel", "pixel_v1_0", "ok", 3.2, 0.97, "Looks synthetic.", {"n_views": 3})


def row(
    path: str = "a.jpg", label: Label = "synthetic", reason: Reason = "above_threshold", **more: Any
) -> Record:
    verdict = Verdict(label, 0.97, reason, POINT, **more)
    return Record(path, "ok", verdict, (EVIDENCE,), INFO, None, {"decode": 0.01, "pixel": 0.02})


def bad(path: str = "b.jpg", status: Status = "truncated", message: str = "The file ends early.") -> Record:
    return Record(path, status, message=message, seconds={"read": 0.001})


NASTY = "\x1b]0;title\x07\x1b[2Jgpj\u202eexe.\x9b31m[red]bold[/red]\r\n\udcff\u2066=1+1"


def test_the_schema_is_a_schema_and_knows_every_word() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    properties = schema()["properties"]
    assert properties["schema"]["const"] == SCHEMA == schema()["title"]
    assert tuple(properties["status"]["enum"]) == STATUSES
    assert tuple(properties["label"]["enum"]) == (*LABELS, None)
    assert tuple(properties["reason"]["enum"]) == (*REASONS, None)
    statuses = properties["evidence"]["items"]["properties"]["status"]["enum"]
    assert tuple(statuses) == EVIDENCE_STATUSES
    assert set(words.LABELS) == set(get_args(Label))
    assert set(words.REASONS) == set(REASONS)
    assert set(words.STATUSES) == set(STATUSES)


def test_the_row_is_that_of_the_design() -> None:
    assert list(row().to_dict()) == [
        *(
            "schema",
            "path",
            "status",
            "label",
            "edited",
            "score",
            "reason",
            "thresholds",
            "evidence",
            "image",
        ),
        *("message", "seconds"),
    ]
    assert row().to_dict()["thresholds"] == {"synthetic": 0.91, "fpr": 0.01, "authentic": 0.12, "fnr": 0.05}


@pytest.mark.parametrize("record", [row(), row(edited=True), row(prior=0.01), row(NASTY), bad(), bad(NASTY)])
def test_rows_hold_to_the_schema(record: Record) -> None:
    VALIDATOR.validate(record.to_dict())
    VALIDATOR.validate(json.loads(line(record)))


@pytest.mark.parametrize(
    "change",
    [
        {"label": None},
        {"score": 1.5},
        {"message": "x"},
        {"extra": 1},
        {"status": "truncated"},
        {"reason": "guess"},
    ],
)
def test_the_schema_refuses_what_is_no_row(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(row().to_dict() | change)


def test_json_lines_and_the_array_hold_the_same_rows() -> None:
    records = [row(), bad(), row("猫.jpg")]
    lines, array, none = io.StringIO(), io.StringIO(), io.StringIO()
    for writer in (JsonLines(lines), JsonArray(array)):
        for record in records:
            writer.write(record)
        writer.finish()
    JsonArray(none).finish()
    parsed = [json.loads(text) for text in lines.getvalue().splitlines()]
    assert parsed == json.loads(array.getvalue()) == [record.to_dict() for record in records]
    assert json.loads(none.getvalue()) == []
    assert "猫.jpg" in lines.getvalue()  # readable, not escaped


def test_a_number_that_json_lacks_becomes_null() -> None:
    evidence = Evidence("pixel", details={"spread": float("nan"), "path": Path("x")})
    parsed = json.loads(line(Record("a", "ok", row().verdict, (evidence,), INFO)), parse_constant=pytest.fail)
    assert parsed["evidence"][0]["details"] == {"spread": None, "path": "x"}


OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(st.text(st.characters(min_codepoint=0, max_codepoint=0x10FFFF), max_size=30))
def test_json_keeps_the_text_and_holds_nothing_a_terminal_obeys(text: str) -> None:
    shown = safe_json(json.dumps(text, ensure_ascii=False))
    assert not OBEYED.search(shown)
    shown.encode("utf-8")
    if not re.search("[\ud800-\udfff]", text):
        assert json.loads(shown) == text
    assert not OBEYED.search(visible(text))
    assert "\n" not in visible(text)


def test_bytes_of_a_name_are_written_out() -> None:
    assert visible("a\udcffb\x1b\u202e.jpg") == "a\\xffb\\x1b\\u202e.jpg"
    assert json.loads(safe_json('"\udcff"')) == "\\xff"


def test_csv_is_read_back_and_holds_no_formula() -> None:
    stream = io.StringIO()
    writer = Csv(stream)
    names = ["a.jpg", '=HYPERLINK("http://x")', "+1", "-2", "@SUM(A1)", "\tx", 'with "quotes", commas', NASTY]
    for name in names:
        writer.write(row(name))
    writer.write(bad(message="=cmd|' /C calc'!A0"))
    writer.finish()
    assert not OBEYED.search(stream.getvalue())
    read = list(csv.DictReader(io.StringIO(stream.getvalue())))
    assert list(read[0]) == list(COLUMNS)
    assert [r["path"] for r in read[:-1]] == [safe_cell(name) for name in names]
    for cell in (value for r in read for value in r.values()):
        assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    expected = {
        **{"path": "a.jpg", "status": "ok", "label": "synthetic", "edited": "", "score": "0.97"},
        **{"reason": "above_threshold", "threshold_synthetic": "0.91", "fpr": "0.01"},
        **{"threshold_authentic": "0.12", "fnr": "0.05", "prior": "", "posterior": ""},
        **{"evidence": "pixel=0.9700", "format": "JPEG", "width": "1024", "height": "768"},
        **{"bytes": "181233", "sha256": "ab" * 32, "seconds": "0.030000", "message": ""},
    }
    assert read[0] == expected
    assert (read[-1]["label"], read[-1]["score"], read[-1]["status"]) == ("", "", "truncated")


def shown(*records: Record, **options: bool) -> str:
    stream = io.StringIO()
    table = Table(stream, **options)
    for record in records:
        table.write(record)
    table.finish()
    return stream.getvalue()


def test_the_table_speaks_in_words() -> None:
    text = shown(
        row(), row("c.png", "authentic", "below_threshold"), row("d", "inconclusive", "low_evidence"), bad()
    )
    lines = [re.split(r"\s{2,}", part.strip()) for part in text.splitlines()]
    assert lines[0] == ["File", "Verdict", "Score", "Reason"]
    assert lines[2:] == [
        ["a.jpg", "likely AI-generated", "0.97", "above the threshold"],
        ["c.png", "no sign of AI", "0.97", "below the threshold"],
        ["d", "cannot tell", "0.97", "between the thresholds"],
        ["b.jpg", "cut off", "-"],
    ]
    assert "\x1b" not in text  # no colours into a file


def test_the_table_shows_hostile_names_and_markup_as_they_are() -> None:
    text = shown(row(NASTY), row("[bold]x[/bold].jpg"), row(":smile:.jpg"))
    assert not OBEYED.search(text)
    assert "[bold]x[/bold].jpg" in text
    assert "[red]bold[/red]" in text
    assert ":smile:.jpg" in text


def test_pages_join_to_one_table_and_long_names_stay_whole() -> None:
    names = [f"{'very/' * 40}{i}.jpg" for i in range(2 * PAGE + 3)]
    text = shown(*(row(name) for name in names))
    assert text.count("Verdict") == 1
    assert [part.split()[0] for part in text.splitlines()[2:]] == names


def test_a_signature_says_whose_word_it_is_and_an_edit_is_told() -> None:
    for state, told in (("trusted", "(trusted signer)"), ("valid_untrusted", "(untrusted signer)")):
        details = {"declares": "synthetic", "reason": "signed_provenance", "state": state}
        verdict = Verdict("synthetic", None, "signed_provenance", None)
        record = Record("a", "ok", verdict, (Evidence("c2pa", details=details),), INFO)
        assert words.reason_words(record).endswith(told)
    assert words.verdict_words(row(edited=True)) == "likely AI-generated (edited)"


def test_verbose_shows_each_detector_and_a_prior_its_column() -> None:
    text = shown(row(prior=0.01), has_posterior=True, is_verbose=True)
    assert "pixel (pixel_v1_0, score 0.9700, 20.0 ms): Looks synthetic." in text
    assert "0.25" in text  # 0.97 at a prior of 1 in 100, by Bayes


def test_a_prior_does_not_pretend_to_weigh_a_declaration() -> None:
    weighed = words.posterior_words(row(prior=0.01))
    assert weighed is not None
    assert "is a probability of 0.25" in weighed
    declared = words.posterior_words(row(prior=0.01, reason="declared_metadata"))
    assert declared is not None
    assert "alone would be a probability of 0.25. It did not decide" in declared
    assert "0.25" not in shown(row(prior=0.01, reason="declared_metadata"), has_posterior=True)


def test_a_row_is_not_held_back_until_the_next_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mai.report.terminal.PAGE_S", 0.05)
    stream = io.StringIO()
    table = Table(stream)
    table.write(row())
    until = time.monotonic() + 30
    while "a.jpg" not in stream.getvalue() and time.monotonic() < until:
        time.sleep(0.02)
    assert "a.jpg" in stream.getvalue()
    table.finish()
    assert stream.getvalue().count("a.jpg") == 1


def test_a_reader_that_went_away_between_two_rows_is_told_at_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mai.report.terminal.PAGE_S", 0.05)

    class Gone(io.StringIO):
        is_gone = False

        def write(self, text: str) -> int:
            type(self).is_gone = True
            raise BrokenPipeError

    table = Table(Gone())
    table.write(row())
    until = time.monotonic() + 30
    while not Gone.is_gone and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.1)
    with pytest.raises(BrokenPipeError):
        table.write(row())


def test_a_disk_that_was_full_between_two_rows_is_told_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mai.report.terminal.PAGE_S", 0.05)

    class Full(io.StringIO):
        is_full = False

        def write(self, text: str) -> int:
            type(self).is_full = True
            raise OSError(errno.ENOSPC, "No space left on device")

    table = Table(Full())
    table.write(row())
    until = time.monotonic() + 30
    while not Full.is_full and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.1)
    with pytest.raises(OSError, match="No space left"):
        table.write(row())
    with pytest.raises(OSError, match="No space left"):
        table.finish()


def test_rates_and_scores_as_people_count() -> None:
    rates = (0.01, 0.05, 0.002, 0.0005, 0.15, 0.5)
    shown = ["1 in 100", "5 in 100", "2 in 1,000", "5 in 10,000", "15 in 100", "50 in 100"]
    assert [words.share(rate) for rate in rates] == shown
    assert [words.score_words(s) for s in (None, 0.0, 0.999, 0.5)] == ["-", "<0.01", ">0.99", "0.50"]
    table = operating_table([0.9, 0.1] * 200, [1, 0] * 200, "drawn scores")
    told = words.operating_point(POINT, table)
    assert "flags about 1 in 100 of the 200 authentic images" in told
    assert "drawn scores" in told
    assert "0 of the 200 (0%) are not flagged" in told
    weak = operating_table(
        np.r_[np.linspace(0, 0.9, 200), np.linspace(0, 0.5, 200)], [1] * 200 + [0] * 200, "x"
    )
    at_one = weak.at_fpr(0.01)
    assert at_one.n_caught == sum(score >= at_one.score for score in np.linspace(0, 0.9, 200))
    told = words.operating_point(replace(POINT, synthetic=at_one.score), weak)
    assert f"{200 - at_one.n_caught} of the 200" in told
    old = OperatingTable(
        tuple(replace(p, n_caught=None) for p in weak.synthetic), weak.authentic, 200, 200, "x"
    )
    assert OperatingTable.from_dict(old.to_dict()) == old
    assert "At least 50 in 100 of them are not flagged" in words.operating_point(
        replace(POINT, synthetic=0.6), old
    )
    assert "no error rate was measured" in words.operating_point(Thresholds(0.8, None, 0.1, None), table)


def test_a_device_or_pipe_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as stream:
        stream.write("flows")
    assert os.read(reader, 100) == b"flows"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    target.write_text("old")
    target.chmod(0o640)
    with pytest.raises(ZeroDivisionError), whole_file(target) as stream:
        stream.write("half")
        stream.flush()
        assert target.read_text() == "old"
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert target.read_text() == "old"
    with whole_file(target) as stream:
        stream.write("new\n")
    assert target.read_text() == "new\n"
    assert target.stat().st_mode & 0o777 == 0o640
    link = tmp_path / "link"
    link.symlink_to(target)
    with whole_file(link) as stream:
        stream.write("through the link")
    assert link.is_symlink()
    assert target.read_text() == "through the link"
    for wrong in (tmp_path, tmp_path / "none" / "out.json"):
        with pytest.raises(UsageError, match="cannot be written"), whole_file(wrong):
            pass
