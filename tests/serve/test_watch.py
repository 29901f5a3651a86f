"""`mai watch`: files that arrive whole, slowly, again, or broken."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running_service import picture

pytest.importorskip("watchfiles", reason="the extra 'serve' is not installed")
PATIENCE_S = 120


@contextmanager
def watching(folder: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "mai", "watch", str(folder), *options],
            stdout=subprocess.DEVNULL, stderr=told, env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
    try:
        until(lambda: "Watching" in log.read_text(), process)
        yield process
    finally:
        if process.poll() is None:
            process.kill()


def until(is_so: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end, "it does not happen"
        assert process is None or process.poll() is None, "the watch has ended"
        time.sleep(0.05)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_what_arrives_is_judged_and_moved(tmp_path: Path, weights: Path) -> None:
    folder, out, sorted_to = tmp_path / "in", tmp_path / "rows.jsonl", tmp_path / "sorted"
    folder.mkdir()
    (folder / "old.jpg").write_bytes(picture(1))
    options = (
        "--weights",
        str(weights),
        "--output",
        str(out),
        "--move-to",
        str(sorted_to),
        "--settle",
        "0.6",
    )
    with watching(folder, tmp_path / "log", *options) as process:
        time.sleep(1)
        data = picture(200)
        with (folder / "slow.jpg").open("wb") as stream:  # a slow copy is not looked at before it is whole
            for start in range(0, len(data), len(data) // 4):
                stream.write(data[start : start + len(data) // 4])
                stream.flush()
                time.sleep(0.3)
        (folder / "notes.txt").write_text("no picture")
        (folder / "broken.jpg").write_bytes(picture()[:500])
        (folder / ".hidden.jpg").write_bytes(data)
        (folder / "deep").mkdir()
        (folder / "deep" / "slow.jpg").write_bytes(data)
        until(lambda: len(rows(out)) >= 3, process)
        time.sleep(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    found = {Path(row["path"]).relative_to(folder).as_posix(): row for row in rows(out)}
    assert set(found) == {"slow.jpg", "broken.jpg", "deep/slow.jpg"}
    assert found["slow.jpg"]["status"] == "ok"
    assert found["broken.jpg"]["status"] == "truncated"
    label = found["slow.jpg"]["label"]
    assert {p.name for p in (sorted_to / label).iterdir()} == {"slow.jpg", "slow-1.jpg"}
    assert [p.name for p in (sorted_to / "not-judged").iterdir()] == ["broken.jpg"]
    assert (folder / "old.jpg").exists()
    assert (folder / "notes.txt").exists()


def test_existing_files_once(tmp_path: Path, weights: Path) -> None:
    for n in range(5):
        (tmp_path / f"{n}.jpg").write_bytes(picture(50 * n))
    done = subprocess.run(
        [sys.executable, "-m", "mai", "watch", str(tmp_path), "--existing", "--once", "--quiet",
         "--weights", str(weights)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [Path(json.loads(line)["path"]).name for line in done.stdout.splitlines()] == [
        f"{n}.jpg" for n in range(5)
    ]


def test_wrong_use(tmp_path: Path) -> None:
    for options, told in ((("--once",), "--existing"), (("--move-to", str(tmp_path / "x")), "arrive anew")):
        done = subprocess.run(
            [sys.executable, "-m", "mai", "watch", str(tmp_path), *options],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 2
        assert told in done.stderr
