"""The process: overload, killed workers, a stop that finishes what was taken."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from fastapi import FastAPI
from running_service import Running, picture, serving

from mai.cli import group
from mai.pipeline import ScanSettings
from mai.serve.app import make_app
from mai.serve.settings import ServeSettings


def one_scan(service: Running, data: bytes, number: int = 0) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/scan?name={number}", content=data, timeout=240, trust_env=False)


def n_taken(service: Running) -> int:
    """Images that the service has taken since its start, answered or not."""
    metrics = httpx.get(f"{service.url}/metrics", trust_env=False, timeout=60).text
    return round(
        sum(map(float, re.findall(r"^mai_images_(?:taken|total\{.*\}) (\S+)", metrics, re.MULTILINE)))
    )


def test_overload_is_answered_with_429_and_none_is_lost(tmp_path: Path, weights: Path) -> None:
    """Ten times as many clients as places: each is answered, those that were taken correctly."""
    options = ("--workers", "1", "--weights", str(weights), "--queue", "4", "--max-files", "4")
    with serving(*options, log=tmp_path / "log") as service:
        data = picture(size=(800, 600))
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda number: one_scan(service, data, number), range(80)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 429}, codes
        for number, answer in enumerate(answers):
            if answer.status_code == 200:
                assert answer.json()["path"] == str(number)
            else:
                assert answer.json()["error"] == "queue_full"
                assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert service.client.post("/v1/scan", content=picture()).status_code == 200
        assert "mai_images_taken 0.0" in service.client.get("/metrics").text


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")
def test_a_killed_worker_costs_at_most_its_own_image(tmp_path: Path, weights: Path) -> None:
    options = ("--workers", "2", "--weights", str(weights))
    with serving(*options, log=tmp_path / "log") as service:
        data = picture(size=(600, 450))
        answers: list[httpx.Response] = []
        killed = []
        with ThreadPoolExecutor(8) as pool:
            waiting = [pool.submit(one_scan, service, data, number) for number in range(60)]
            for number, task in enumerate(waiting):
                answers.append(task.result())
                if number in (10, 25, 40):
                    killed += service.workers()[:1]
                    os.kill(killed[-1], signal.SIGKILL)
        assert len(killed) == 3
        bad = [answer for answer in answers if answer.status_code != 200]
        assert len(bad) <= len(killed)
        for answer in bad:
            assert answer.status_code == 503
            assert "died" in answer.json()["message"]
        assert service.client.get("/healthz").status_code == 200
        assert service.client.post("/v1/scan", content=picture()).status_code == 200


@pytest.mark.parametrize("option", ["--timeout", "--upload-idle", "--keep", "--archive-time"])
@pytest.mark.parametrize(("value", "told"), [("inf", "is no time"), ("nan", "is no time"), ("0", "range")])
def test_times_that_no_clock_takes_are_wrong_use(option: str, value: str, told: str) -> None:
    """They were taken, and every upload or archive then failed."""
    ran = CliRunner().invoke(group, ["serve", option, value])
    assert ran.exit_code == 2
    assert told in ran.output


def test_nobody_is_told_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """FastAPI speaks OpenTelemetry where an environment asks for it."""
    trace = pytest.importorskip("opentelemetry.trace", reason="this FastAPI has no telemetry")
    monkeypatch.setattr(trace, "get_tracer_provider", object)
    app = make_app(ServeSettings(ScanSettings(("metadata",))))
    found = getattr(app, "_native_telemetry", None)
    assert found is None or not found.enabled()
    usual = getattr(FastAPI(), "_native_telemetry", None)
    assert usual is None or usual.enabled()  # so that this can fail


def test_a_stop_finishes_what_was_taken_and_leaves_nothing(tmp_path: Path, weights: Path) -> None:
    with serving("--workers", "1", "--weights", str(weights), log=tmp_path / "log") as service:
        workers = service.workers()
        data = picture(size=(1800, 1400))
        with ThreadPoolExecutor(9) as pool:
            waiting = [pool.submit(one_scan, service, data) for _ in range(8)]
            while n_taken(service) < 8:
                time.sleep(0.01)
            service.process.send_signal(signal.SIGTERM)
            assert [task.result().status_code for task in waiting] == [200] * 8
        assert service.process.wait(30) == 0
        time.sleep(0.5)
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_a_client_that_goes_away_frees_its_place(tmp_path: Path, weights: Path) -> None:
    options = ("--workers", "1", "--weights", str(weights), "--queue", "40")
    with serving(*options, log=tmp_path / "log") as service:
        data = picture(size=(1900, 1900))

        def leave(_: int) -> None:
            with contextlib.suppress(httpx.TimeoutException):
                httpx.post(f"{service.url}/v1/scan", content=data, timeout=0.5, trust_env=False)

        # Without --data there are no jobs.
        assert service.client.post("/v1/jobs", content=picture()).status_code == 404
        assert service.client.get("/v1/limits").json()["has_jobs"] is False
        with ThreadPoolExecutor(15) as pool:
            list(pool.map(leave, range(15)))
        end = time.monotonic() + 20
        while "mai_images_taken 0.0" not in service.client.get("/metrics").text:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert service.client.post("/v1/scan", content=picture()).status_code == 200


def test_a_stop_ends_streams_of_events(tmp_path: Path, weights: Path) -> None:
    options = ("--workers", "1", "--weights", str(weights), "--data", str(tmp_path / "data"))
    with serving(*options, log=tmp_path / "log") as service:
        data = picture(size=(1200, 900))
        files = [("file", (f"{n}.jpg", data)) for n in range(60)]
        job = service.client.post("/v1/jobs", files=files).json()["id"]
        with service.client.stream("GET", f"/v1/jobs/{job}/events") as stream:
            lines = stream.iter_lines()
            next(lines)
            start = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            list(lines)
        assert service.process.wait(30) == 0
        assert time.monotonic() - start < 20


def test_a_taken_port_is_a_sentence(service: Running) -> None:

    port = service.url.rsplit(":", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "mai", "serve", "--port", port, "--workers", "1"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot listen" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_uploads_that_a_killed_service_left_are_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mai.serve import app

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    gone = tmp_path / f"{app.PREFIX}{process.pid}-x"
    alive, other = tmp_path / f"{app.PREFIX}{os.getpid()}-y", tmp_path / f"{app.PREFIX}notes"
    for folder in (gone, alive, other):
        (folder / "0").mkdir(parents=True)
    app._sweep(tmp_path)
    assert not gone.exists()
    assert alive.exists()
    assert other.exists()
