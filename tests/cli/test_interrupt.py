"""Ctrl-C: one line, exit code 130, no process and no half-written file left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_network import picture


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_clean(tmp_path: Path, resnet: Path, workers: str) -> None:
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
    part: list[Path] = []
    until = time.monotonic() + 30
    while not (part and part[0].stat().st_size) and time.monotonic() < until:
        time.sleep(0.1)
        part = list(tmp_path.glob(".out.jsonl.*.part"))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "mai: Stopped after" in told
    assert "Traceback" not in told
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    with pytest.raises(ProcessLookupError):  # nobody of the group is left
        until = time.monotonic() + 10
        while time.monotonic() < until:
            os.killpg(process.pid, 0)
            time.sleep(0.1)
