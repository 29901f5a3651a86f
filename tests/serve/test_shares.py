"""What one client may hold: the others find places, and its own come back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from running_service import Running, picture, serving
from starlette.requests import Request

from mai.errors import UsageError
from mai.serve import keys
from mai.serve.refusal import Refusal
from mai.serve.settings import ServeSettings
from mai.serve.shares import Share, client_of

FINDS_WORKERS = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds workers in /proc")


@contextmanager
def standing_still(service: Running) -> Iterator[None]:
    """Workers that do nothing, so that what was sent waits."""
    stopped = service.workers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def wait_until(is_so: Callable[[], bool], most_s: float = 120) -> None:
    end = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def check_refusal(answer: httpx.Response, told: str, retry_s: str) -> None:
    assert (answer.status_code, answer.json()["error"]) == (429, "client_share"), answer.text
    assert told in answer.json()["message"]
    assert answer.headers["retry-after"] == retry_s


def test_places_are_counted_by_client_and_given_back() -> None:
    share = Share(7, 0.5, "images", 5)
    with share.hold("a", 2):
        with share.hold("a"), share.hold("b", 3), pytest.raises(Refusal, match="3 of your images"):
            share.hold("a").__enter__()
        with pytest.raises(Refusal, match="2 of your images"):
            share.hold("a", 2).__enter__()
    with pytest.raises(Refusal, match="0 of your images"):
        share.hold("a", 4).__enter__()
    with pytest.raises(ValueError, match="broken"), share.hold("a", 3):
        raise ValueError("broken")
    with share.hold("a", 3):
        pass
    with Share(7, 0.1, "images", 5, least=4).hold("a", 4):  # one whole request
        pass
    with Share(7, 1, "images", 5).hold("a", 9):  # who counts for all says no
        pass


@pytest.mark.parametrize(
    ("caller", "client"),
    [
        ("key:desk", "key:desk"), ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("-", "-"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"), ("::1", "::/64"),
    ],
)  # fmt: skip
def test_a_client_is_a_key_or_a_network(caller: str, client: str) -> None:
    assert client_of(Request({"type": "http", "mai_caller": caller})) == client


def test_where_all_clients_have_one_address_there_is_no_share() -> None:
    file = Path("keys")
    assert ServeSettings().client_share == 1
    assert ServeSettings(share=0.2).client_share == 0.2
    assert ServeSettings(keys=file).client_share == 0.5
    assert ServeSettings(proxy="127.0.0.1").client_share == 0.5
    assert ServeSettings(host="0.0.0.0", is_open=True).client_share == 0.5
    for value in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="--client-share"):
            ServeSettings(share=value)


@FINDS_WORKERS
def test_one_key_does_not_take_all_places_for_jobs(tmp_path: Path, weights: Path) -> None:
    """Two of a hundred: as many jobs as wait or are being sent; one that is over or deleted makes room."""
    file = tmp_path / "keys"
    one, two = ({"X-API-Key": keys.make(file, name)} for name in ("one", "two"))
    options = (
        "--workers",
        "1",
        "--weights",
        str(weights),
        "--data",
        str(tmp_path / "data"),
        "--timeout",
        "600",
    )
    with serving(*options, "--keys", str(file), "--client-share", "0.02", log=tmp_path / "log") as service:
        assert service.client.get("/v1/limits").json()["client_share"] == 0.02
        jpeg = picture()

        def send(headers: dict[str, str]) -> httpx.Response:
            return service.client.post("/v1/jobs", content=jpeg, headers=headers)

        with standing_still(service):
            first, second = (send(one) for _ in range(2))
            assert (first.status_code, second.status_code) == (202, 202), first.text
            check_refusal(
                send(one), "2 of your jobs are being taken or waiting already, and 2 is the most", "60"
            )
            others = [send(two) for _ in range(2)]
            assert [answer.status_code for answer in others] == [202, 202]
            gone = f"/v1/jobs/{second.json()['id']}"
            assert service.client.delete(gone, headers=one).status_code == 204
            again = send(one)
            assert again.status_code == 202
            check_refusal(send(one), "2 of your jobs", "60")
            bad = service.client.post("/v1/jobs", content=b"", headers=two | {"Content-Type": "image/jpeg"})
            assert bad.status_code == 429
        for job in (first, again):
            path = f"/v1/jobs/{job.json()['id']}"
            wait_until(lambda path=path: service.client.get(path, headers=one).json()["state"] == "finished")
        for _ in range(3):  # one that failed holds no place
            bad = service.client.post("/v1/jobs", content=b"", headers=one)
            assert (bad.status_code, bad.json()["error"]) == (422, "no_image")
        assert send(one).status_code == 202


@FINDS_WORKERS
def test_one_address_does_not_take_the_whole_queue(tmp_path: Path, weights: Path) -> None:
    """Behind a proxy that is believed, a client is what it names."""
    options = (
        "--workers",
        "1",
        "--weights",
        str(weights),
        "--queue",
        "4",
        "--max-files",
        "2",
        "--timeout",
        "600",
    )
    with serving(*options, "--proxy", "127.0.0.1", log=tmp_path / "log") as service:

        def send(address: str) -> httpx.Response:
            headers = {"X-Forwarded-For": address}
            return httpx.post(
                f"{service.url}/v1/scan", content=picture(), headers=headers, timeout=240, trust_env=False
            )

        def n_taken() -> int:
            (line,) = [
                line
                for line in service.client.get("/metrics").text.splitlines()
                if line.startswith("mai_images_taken ")
            ]
            return round(float(line.split()[1]))

        with ThreadPoolExecutor(4) as pool:
            with standing_still(service):
                taken = [pool.submit(send, "192.0.2.1") for _ in range(2)]
                wait_until(lambda: n_taken() == 2)
                check_refusal(send("192.0.2.1"), "2 of your images are being taken", "5")
                taken += [pool.submit(send, f"2001:db8::{n}") for n in (1, 2)]
                wait_until(lambda: n_taken() == 4)
                full = send("192.0.2.9")
                assert (full.status_code, full.json()["error"]) == (429, "queue_full")
            assert [task.result().status_code for task in taken] == [200] * 4
        assert send("192.0.2.1").status_code == 200
