"""Bodies that come at the same time do not fill the disk together."""

from __future__ import annotations

import collections
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from running_service import picture, serving

from mai.pipeline import ScanSettings
from mai.serve import room
from mai.serve.app import make_app
from mai.serve.refusal import Refusal
from mai.serve.settings import ServeSettings

MIB = 2**20
Usage = collections.namedtuple("Usage", "total used free")


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, int]:
    """A disk of a size that we choose: what lies below tmp_path is taken from its `free`."""
    told = {"free": 0}

    def usage(folder: Path) -> Usage:
        used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        return Usage(told["free"], used, told["free"] - used)

    monkeypatch.setattr(room, "disk_usage", usage)
    return told


def test_room_is_held_and_given_back(tmp_path: Path, disk: dict[str, int]) -> None:
    disk["free"] = 100 * MIB
    held = room.Room()
    folders = [tmp_path / str(n) for n in range(3)]
    for folder in folders:
        folder.mkdir()
    with held.hold(folders[0], 20 * MIB):
        (folders[0] / "0").write_bytes(bytes(5 * MIB))  # what is written is not counted twice
        with pytest.raises(Refusal, match="15 MiB that others"):
            held.hold(folders[1], 17 * MIB).__enter__()
        with held.hold(folders[1], 16 * MIB), pytest.raises(Refusal):
            held.hold(folders[2], 1).__enter__()
    with held.hold(folders[2], 31 * MIB):
        pass


def test_parallel_jobs_share_the_room(
    tmp_path: Path, weights: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight uploads of 3 MiB at once where there is room for two: two are taken, six refused before their ends."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    data = tmp_path / "data"
    app = make_app(
        ServeSettings(ScanSettings(("metadata",)), n_workers=1, data=data, max_job_bytes=4 * MIB, keep_s=60.0)
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        (socket,) = server.servers[0].sockets
        url = f"http://127.0.0.1:{socket.getsockname()[1]}/v1/jobs"
        used = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
        disk["free"] = used + (4 + 3 + 3) * MIB + MIB  # kept, two bodies, and what SQLite writes
        gate = threading.Barrier(9, timeout=120)
        refused = threading.Event()
        jpeg = picture()

        def body() -> Iterator[bytes]:
            yield jpeg
            gate.wait()  # all have begun
            refused.wait(120)  # those without room know it while the others still come
            yield bytes(3 * MIB - len(jpeg))

        codes: list[int] = []

        def send(number: int) -> None:
            headers = {"Content-Length": str(3 * MIB)}
            answer = httpx.post(url, content=body(), headers=headers, timeout=120, trust_env=False)
            codes.append(answer.status_code)
            if answer.status_code == 507:
                assert "too little room" in answer.json()["message"]

        with ThreadPoolExecutor(8) as pool:
            tasks = [pool.submit(send, number) for number in range(8)]
            gate.wait()
            time.sleep(1)
            refused.set()
            for task in tasks:
                task.result(180)
        assert sorted(codes) == [202, 202, *[507] * 6]
        assert httpx.post(url, content=jpeg, timeout=60, trust_env=False).status_code == 202  # given back
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
def test_workers_that_cannot_be_started_any_more_are_told_everywhere(tmp_path: Path, weights: Path) -> None:
    with serving("--workers", "1", "--weights", str(weights), log=tmp_path / "log") as service:
        assert "mai_failed 0.0" in service.client.get("/metrics").text
        end = time.monotonic() + 120
        while service.client.get("/healthz").status_code == 200 and time.monotonic() < end:
            for pid in service.workers():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        for path in ("/healthz", "/readyz"):
            answer = service.client.get(path)
            assert answer.status_code == 503
            assert "end before they begin" in answer.json()["message"]
        assert re.search(r"^mai_failed 1.0$", service.client.get("/metrics").text, re.MULTILINE)
