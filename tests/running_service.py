"""A service as people run it: `mai serve` in a process of its own on a free port of this machine."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

START_S = 300
"""A machine with other things to do is slow; a service that cannot start ends at once."""


class Running:
    """A service that runs.

    Attributes:
        process: of `mai serve`.
        url: where it listens.
        client: asks it.
        log: where its stderr goes.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log
        self.client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def workers(self) -> list[int]:
        """Process ids of the workers (Linux): what runs below the service and is no server of multiprocessing."""
        found, parents = [], {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(path.name)] = int(fields[1])
        for pid, parent in parents.items():
            if parents.get(parent) == self.process.pid and parent != self.process.pid:
                found.append(pid)
        return found

    def stop(self, how: int = signal.SIGTERM) -> int:
        """End it and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def serving(*options: str, log: Path) -> Iterator[Running]:
    """A service with these options, ready to look."""
    temporary = log.with_name(f"{log.name}-tmp")
    temporary.mkdir(exist_ok=True)
    with log.open("wb") as told:
        process = subprocess.Popen(
            [sys.executable, "-m", "mai", "serve", "--port", "0", *options],
            stderr=told,
            stdout=told,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONUNBUFFERED": "1", "TMPDIR": str(temporary)},
        )
    running = None
    try:
        end = time.monotonic() + START_S
        while time.monotonic() < end and process.poll() is None:
            found = re.search(r"http://\S+?:\d+", log.read_text())
            if found and running is None:
                running = Running(process, found.group().replace("0.0.0.0", "127.0.0.1"), log)
            if running is not None:
                try:
                    if running.client.get("/readyz").status_code == 200:
                        break
                except httpx.TransportError:
                    pass
            time.sleep(0.05)
        else:
            pytest.fail(f"the service did not start: {log.read_text()}")
        assert running is not None
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def picture(
    value: int = 120, kind: str = "JPEG", size: tuple[int, int] = (160, 120), **options: Any
) -> bytes:
    """An encoded picture with some texture."""
    image = Image.effect_noise(size, 40).convert("RGB")
    image = Image.blend(image, Image.new("RGB", size, (value % 256, 90, 160)), 0.6)
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def browser_path() -> str | None:
    """Chromium of this system."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
