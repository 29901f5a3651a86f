"""Scans that are stopped, killed and gone on with; evidence that is not looked for twice; a scan's report."""

from __future__ import annotations

import csv
import json
import os
import random
import resource
import select
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from small_network import make_weights

N = 60


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N small pictures from blue to red, one broken, one empty."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(N):
        pixels = rng.integers(60, 120, (80, 90, 3)).astype(np.uint8)
        pixels[..., 0] = np.clip(pixels[..., 0].astype(int) + 4 * i - 80, 0, 255)
        Pil.fromarray(pixels).save(folder / f"{i:03}.jpg", quality=90)
    (folder / "900.jpg").write_bytes((folder / "001.jpg").read_bytes()[:900])
    (folder / "901.jpg").write_bytes(b"")
    return folder


def many_of(pictures: Path, folder: Path, n: int) -> Path:
    """n names of the same files."""
    folder.mkdir()
    files = sorted(pictures.iterdir())
    for i in range(n):
        source = files[i % len(files)]
        (folder / f"{i:05}{source.name}").hardlink_to(source)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mai"


def scan(*args: str | Path, code: int = 1, **kwargs: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mai", "scan", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **kwargs)  # type: ignore[call-overload]
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done


def rows(path: Path) -> list[dict]:
    made = [json.loads(line) for line in path.read_text().splitlines()]
    for row in made:
        row.pop("seconds")
    return made


@pytest.mark.parametrize("n_kills", [5, pytest.param(30, marks=pytest.mark.soak)])
def test_killed_at_any_moment_no_row_is_lost_and_none_twice(
    tmp_path: Path, pictures: Path, weights: Path, n_kills: int
) -> None:
    pictures = many_of(pictures, tmp_path / "many", 40 * n_kills)
    options = ["--weights", str(weights), "--no-cache"]
    whole = tmp_path / "whole.jsonl"
    scan(pictures, *options, "--output", whole)
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "mai", "scan", str(pictures), *options, "--workers", "2", "--output", str(output),
               "--resume", "--quiet"]  # fmt: skip
    rng, kept = random.Random(1), 0
    n_killed = 0
    for kill in range(n_kills):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
        part = tmp_path / "out.jsonl.partial" / "rows.jsonl"
        until = time.monotonic() + 30
        # Wait until it has come a little further than before, then a random moment more.
        while process.poll() is None and time.monotonic() < until:
            if part.exists() and part.read_bytes().count(b"\n") > kept:
                time.sleep(rng.random() * 0.01)
                break
            time.sleep(0.002)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            n_killed += 1
        process.wait()
        if output.exists():
            break
        kept = part.read_bytes().count(b"\n") if part.exists() else kept
        if part.exists() and kill % 3 == 0:  # as a loss of power would leave it: a row cut in the middle
            with part.open("ab") as file:
                file.write(b'{"schema": "mai.record/1", "path": "' + str(pictures).encode())
    assert n_killed >= min(n_kills, 4)
    scan(pictures, *options, "--output", output, "--resume", code=0 if output.exists() else 1)
    assert sorted(r["path"] for r in rows(output)) == sorted(r["path"] for r in rows(whole))
    by_path = {r["path"]: r for r in rows(whole)}
    assert all(row == by_path[row["path"]] for row in rows(output))
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_what_stops_a_resume_is_told(tmp_path: Path, pictures: Path, weights: Path) -> None:
    output = tmp_path / "out.jsonl"
    base = [pictures, "--weights", weights, "--no-cache", "--output", output]
    slow = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "mai",
            "scan",
            "-",
            "--weights",
            str(weights),
            "--output",
            str(output),
            "--workers",
            "1",
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + 30
        while not (tmp_path / "out.jsonl.partial" / "scan.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        assert "Another scan is writing" in scan(*base, code=2).stderr
        assert slow.stdin is not None
        slow.stdin.write(f"{pictures / '001.jpg'}\n".encode() * 40)
        slow.stdin.flush()
        while not (tmp_path / "out.jsonl.partial" / "rows.jsonl").read_bytes() and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        slow.kill()
        slow.wait()
    told = scan(*base, code=2).stderr
    assert "Add --resume" in told
    assert "begun with other options" in scan(*base, "--resume", "--fpr", "0.05", code=2).stderr
    assert "needs --output" in scan(pictures, "--weights", weights, "--resume", code=2).stderr


def test_resume_with_nothing_there_starts_and_finished_is_finished(
    tmp_path: Path, pictures: Path, weights: Path
) -> None:
    output = tmp_path / "out.jsonl"
    told = scan(pictures, "--weights", weights, "--output", output, "--resume").stderr
    assert len(rows(output)) == N + 2
    assert told.splitlines()[-1].startswith(f"mai: {output}: {N + 2} images: ")
    assert told.splitlines()[-1].endswith(", 2 not judged.")
    before = output.stat().st_mtime_ns
    base = [pictures, "--weights", weights, "--output", output, "--resume"]
    told = scan(*base, code=1).stderr  # two files were not judged
    assert "nothing is left" in told
    assert "leave out --resume" in told
    assert scan(*base, "--fail-on", "synthetic", code=3)
    assert output.stat().st_mtime_ns == before
    # As kill -9 leaves it between the last rename and the end.
    partial = tmp_path / "out.jsonl.partial"
    partial.mkdir()
    (partial / "scan.json").write_text("{}")
    assert "nothing is left" in scan(*base, code=1).stderr
    assert output.stat().st_mtime_ns == before
    assert not partial.exists()


def test_a_file_that_is_named_twice_has_two_rows_also_after_a_resume(
    tmp_path: Path, pictures: Path, weights: Path
) -> None:
    """What is done is counted, not only known: a list may name a file again and again."""
    names = sorted(map(str, pictures.glob("0*.jpg")))[:3] * 40
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names))
    output = tmp_path / "out.jsonl"
    base = [f"@{listed}", "--weights", weights, "--no-cache", "--workers", "1", "--output", output]

    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    scan(*base, preexec_fn=little_room)
    kept = (tmp_path / "out.jsonl.partial" / "rows.jsonl").read_bytes().count(b"\n")
    assert 3 < kept < 120
    scan(*base, "--resume", code=0)
    assert sorted(r["path"] for r in rows(output)) == sorted(names)


def test_rows_come_at_once_where_paths_come_slowly(pictures: Path, weights: Path) -> None:
    command = [sys.executable, "-m", "mai", "scan", "-", "--weights", str(weights), "--jsonl"]
    for more in ([], ["--workers", "2"]):
        process = subprocess.Popen([*command, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        for i in range(3):
            path = str(pictures / f"{i:03}.jpg")
            process.stdin.write(path.encode() + b"\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], 60)
            assert ready, "no row though the file is there"
            assert json.loads(process.stdout.readline())["path"] == path
        process.stdin.close()
        assert process.wait(30) == 0
        process.stdout.close()


def test_every_format_holds_the_same_rows(tmp_path: Path, pictures: Path, weights: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    duckdb = pytest.importorskip("duckdb")
    for ending in ("jsonl", "json", "csv", "parquet", "sqlite", "duckdb"):
        scan(pictures, "--weights", weights, "--output", tmp_path / f"out.{ending}")
    wanted = {r["path"]: (r["label"], r["score"]) for r in rows(tmp_path / "out.jsonl")}
    assert {
        r["path"]: (r["label"], r["score"]) for r in json.loads((tmp_path / "out.json").read_text())
    } == wanted
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert {r["path"]: (r["label"], r["score"]) for r in table} == wanted
    with sqlite3.connect(tmp_path / "out.sqlite") as db:
        found = db.execute("SELECT path, label, score FROM records").fetchall()
    assert {p: (label, score) for p, label, score in found} == wanted
    with duckdb.connect(str(tmp_path / "out.duckdb"), read_only=True) as db:
        found = db.execute("SELECT path, label, score FROM records").fetchall()
    assert {p: (label, score) for p, label, score in found} == wanted
    with (tmp_path / "out.csv").open(newline="") as file:
        assert {r["path"]: r["label"] or None for r in csv.DictReader(file)} == {
            p: v[0] for p, v in wanted.items()
        }
    from mai.report.summary import rows_of, summarise

    told = [
        summarise(rows_of(tmp_path / f"out.{ending}")).to_dict()
        for ending in ("jsonl", "json", "csv", "parquet", "sqlite", "duckdb")
    ]
    assert all(
        t["labels"] == told[0]["labels"] and t["score_histogram"] == told[0]["score_histogram"] for t in told
    )
    assert told[0]["labels"]["none"] == 2
    assert told[0]["n"] == N + 2


def test_parquet_in_parts(
    tmp_path: Path, pictures: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = pytest.importorskip("pyarrow.dataset")
    from mai.report import parquet
    from mai.report.summary import rows_of, summarise
    from mai.scanning.sinks import convert
    from mai.types import Record

    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.parquet"
    scan(pictures, "--weights", weights, "--output", whole)
    for _ in range(2):  # the second takes the place of the first
        scan(pictures, "--weights", weights, "--output", parts, "--partition-by", "label")
        read = dataset.dataset(parts, partitioning="hive").to_table().to_pylist()
        assert {(r["path"], r["label"], r["score"]) for r in read} == {
            (r["path"], r["label"], r["score"]) for r in rows(whole)
        }
    assert sorted(p.name for p in parts.iterdir())[0] == "label=__HIVE_DEFAULT_PARTITION__"
    assert summarise(rows_of(parts)).to_dict()["labels"] == summarise(rows_of(whole)).to_dict()["labels"]
    assert not list(tmp_path.glob(".*"))

    monkeypatch.setattr(parquet, "PART_ROWS", 25)
    records = [Record.from_dict(json.loads(line)) for line in whole.read_text().splitlines()]
    convert(records, "parquet", tmp_path / "many.parquet", "rows")
    assert len(list((tmp_path / "many.parquet").iterdir())) == 3
    assert [r["path"] for r in rows_of(tmp_path / "many.parquet")] == [r.path for r in records]

    (tmp_path / "mine.parquet").mkdir()
    (tmp_path / "mine.parquet" / "letter.txt").write_text("not to be lost")
    done = scan(
        pictures,
        "--weights",
        weights,
        "--output",
        tmp_path / "mine.parquet",
        "--partition-by",
        "rows",
        code=2,
    )
    assert "no folder of Parquet parts" in done.stderr
    assert (tmp_path / "mine.parquet" / "letter.txt").exists()


@pytest.mark.parametrize("ending", ["sqlite", "duckdb", "parquet", "csv"])
def test_a_full_disk_at_the_end_is_a_sentence_too(
    tmp_path: Path, pictures: Path, weights: Path, ending: str
) -> None:
    pytest.importorskip("duckdb")
    output = tmp_path / f"out.{ending}"
    base = [pictures, "--weights", weights, "--no-cache", "--workers", "1", "--output", output]
    # Only what is written at the end is refused: the limit is that of the rows, and they are there already.
    scan(*base, "--output", tmp_path / "rows.jsonl")
    size = {"sqlite": 20_000, "duckdb": 20_000, "parquet": 3_000, "csv": 3_000}[ending]
    journal = tmp_path / f"out.{ending}.partial"

    def stop_after_the_rows() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    journal.mkdir()
    (journal / "rows.jsonl").write_bytes((tmp_path / "rows.jsonl").read_bytes())
    before = sorted(tmp_path.rglob("*"))
    done = scan(*base, "--resume", preexec_fn=stop_after_the_rows)
    assert "cannot be written" in done.stderr
    assert sorted(set(tmp_path.rglob("*")) - set(before)) == [journal / "scan.json"]
    scan(*base, "--resume")
    from mai.report.summary import rows_of

    assert len(list(rows_of(output))) == N + 2


def test_a_second_scan_looks_at_nothing_again_also_with_another_threshold(
    tmp_path: Path, pictures: Path, weights: Path, own_cache: Path
) -> None:
    first, second, third, fresh = (tmp_path / f"{name}.jsonl" for name in ("a", "b", "c", "d"))
    base = [pictures, "--weights", weights, "--detectors", "metadata,resnet"]
    scan(*base, "--output", first, "--workers", "2")
    assert list(own_cache.glob("evidence*.sqlite"))
    scan(*base, "--output", second)
    scan(*base, "--output", third, "--fpr", "0.1")
    scan(*base, "--output", fresh, "--no-cache", "--fpr", "0.1")
    assert rows(first) == rows(second)
    assert rows(third) == rows(fresh)
    assert [r["label"] for r in rows(third)] != [r["label"] for r in rows(first)]

    def looked(path: Path) -> int:
        return sum("resnet" in json.loads(line)["seconds"] for line in path.read_text().splitlines())

    assert looked(first) == N
    assert looked(second) == looked(third) == 0
    assert looked(fresh) == N


def test_other_weights_are_asked_anew_and_a_damaged_cache_costs_time_only(
    tmp_path: Path, pictures: Path, weights: Path, own_cache: Path
) -> None:
    a, b, c = (tmp_path / f"{name}.jsonl" for name in "abc")
    scan(pictures, "--weights", weights, "--output", a)
    scan(pictures, "--weights", make_weights(tmp_path / "other", slope=-0.1), "--output", b)
    assert [r["score"] for r in rows(a)] != [r["score"] for r in rows(b)]
    for file in own_cache.glob("evidence*"):
        file.write_bytes(b"not a database" * 100)
    scan(pictures, "--weights", weights, "--output", c)
    assert rows(c) == rows(a)


def test_a_full_disk_is_a_sentence_and_the_rows_stay(tmp_path: Path, pictures: Path, weights: Path) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write beyond it fails, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000))

    output = tmp_path / "out.jsonl"
    base = [pictures, "--weights", weights, "--no-cache", "--workers", "1", "--output", output]
    done = scan(*base, preexec_fn=little_room)
    assert "cannot be written" in done.stderr
    kept = (tmp_path / "out.jsonl.partial" / "rows.jsonl").read_bytes()
    assert kept.count(b"\n") > 3
    scan(*base, "--resume")
    assert len({r["path"] for r in rows(output)}) == len(rows(output)) == N + 2


def test_two_formats_and_unknown_endings_are_refused(tmp_path: Path, pictures: Path, weights: Path) -> None:
    base = [pictures, "--weights", weights]
    assert "two formats" in scan(*base, "--csv", "--output", tmp_path / "a.jsonl", code=2).stderr
    assert "no format is known" in scan(*base, "--output", tmp_path / "a.xlsx", code=2).stderr
    assert "needs --output" in scan(*base, "--sqlite", code=2).stderr
    assert not list(tmp_path.glob("a.*"))


def test_progress_for_programs(tmp_path: Path, pictures: Path, weights: Path) -> None:
    done = scan(pictures, "--weights", weights, "--output", tmp_path / "a.jsonl", "--progress", "json")
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert told[-1]["done"] is True
    assert told[-1]["files"] == N + 2
    assert told[-1]["failed"] == 2


def test_report_of_a_scan(tmp_path: Path, pictures: Path, weights: Path) -> None:
    strange = pictures.parent / "strange"
    strange.mkdir(exist_ok=True)
    name = os.fsencode(strange) + b"/\xff<b>.jpg"
    Path(os.fsdecode(name)).write_bytes((pictures / "059.jpg").read_bytes())
    output = tmp_path / "out.jsonl"
    scan(pictures, strange, "--weights", weights, "--output", output)
    command = [sys.executable, "-m", "mai", "report", str(output)]
    text = subprocess.run(
        [*command, "--output", str(tmp_path / "a.html")], capture_output=True, text=True, check=True
    )
    assert f"{N + 3} files" in text.stdout
    page = (tmp_path / "a.html").read_text()
    assert "Content-Security-Policy" in page
    assert "<b>" not in page.replace("<b>.jpg", "<b>") or "\\xff&lt;b&gt;.jpg" in page
    listed = subprocess.run(
        [*command, "--paths-of", "synthetic", "--null"], capture_output=True, check=True
    ).stdout
    paths = listed.split(b"\0")[:-1]
    assert name in paths
    assert all(Path(os.fsdecode(p)).exists() for p in paths)
    wanted = [r["path"] for r in rows(output) if r["label"] == "synthetic"]
    assert len(paths) == len(wanted) > 3
    no_scan = [sys.executable, "-m", "mai", "report", str(tmp_path / "no.jsonl")]
    bad = subprocess.run(no_scan, capture_output=True, text=True, check=False)
    assert bad.returncode == 2
    assert "There is no file" in bad.stderr
