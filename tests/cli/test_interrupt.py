"""Ctrl-C and SIGTERM: one line, exit code 130, no process left behind, rows kept for --resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_network import picture


@pytest.fixture(autouse=True)
def hear_interrupts() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, and so do its children; a scan at a terminal does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("workers", "how"), [("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM)]
)
def test_a_stop_is_clean_and_keeps_its_rows(
    tmp_path: Path, resnet: Path, workers: str, how: signal.Signals
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture(9, "JPEG", 2000))
    sources = [str(tmp_path / "in" / "a.jpg")] * 2000
    output = tmp_path / "out.jsonl"
    options = ["--weights", str(resnet), "--workers", workers, "--output", str(output)]
    process = subprocess.Popen(
        [sys.executable, "-m", "mai", "scan", *sources, *options],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    part = tmp_path / "out.jsonl.partial" / "rows.jsonl"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.1)
    if how is signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does: to the whole group
    else:
        process.send_signal(how)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "mai: Stopped after" in told
    assert "Traceback" not in told
    assert "--resume goes on" in told
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.jsonl.partial"]
    assert part.read_bytes().endswith(b"\n")
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        until = time.monotonic() + 10
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.parametrize(("name", "how"), [("out.html", signal.SIGINT), ("out.txt", signal.SIGTERM)])
def test_a_report_that_is_stopped_holds_what_was_judged(
    tmp_path: Path, resnet: Path, name: str, how: signal.Signals
) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(9, "JPEG", 300))
    output = tmp_path / name
    options = ["--weights", str(resnet), "--output", str(output), "--progress", "json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mai", "scan", "-", *options],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stderr is not None
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(process.stderr or ()))
    reader.start()
    until = time.monotonic() + 60
    while '"files": ' not in "".join(told) and time.monotonic() < until:
        process.stdin.write(f"{tmp_path / 'a.jpg'}\n")  # a list that never ends
        process.stdin.flush()
        time.sleep(0.2)
    process.send_signal(how)
    assert process.wait(60) == 130, told
    reader.join(60)
    process.stdin.close()
    words = "".join(told)
    n = int(words.split("Stopped after ")[1].split()[0])
    text = output.read_text("utf-8")
    assert text.count("a.jpg") == n > 0
    assert f"{output} holds their rows." in words
    assert ("The scan was stopped before its end" in text) == (name == "out.html")
