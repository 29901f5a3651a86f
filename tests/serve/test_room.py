"""Bodies that come at the same time do not fill the disk together."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from running_service import picture, serving

from mai.pipeline import ScanSettings
from mai.serve import fetch, job_routes, keys, room
from mai.serve.app import make_app
from mai.serve.connections import HEADERS_S, Impatient
from mai.serve.limits import Pace
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


class HeldLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until it is told to go on, so that no load of the machine moves it."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and return when all that was due, and all that had come by then, was done."""
        self._turn(lambda: setattr(self, "now", self.now + seconds))
        for _ in range(10):  # a timer wakes a task, which answers: each is a turn of the loop
            self._turn(lambda: None)

    def _turn(self, do: Callable[[], None]) -> None:
        is_done = threading.Event()

        def done() -> None:
            do()
            is_done.set()

        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.call_soon_threadsafe(done)
            is_done.wait(60)


@contextmanager
def listening(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    loop: HeldLoop | None = None,
    apps: list[Any] | None = None,
    **settings: Any,
) -> Iterator[tuple[str, int]]:
    """A service in this process, so that its disk can be ours, and its clock: where it listens.

    The application is added to `apps`.
    """
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    told = ServeSettings(
        ScanSettings(("metadata",)), n_workers=1, data=tmp_path / "data", keep_s=60.0, **settings
    )
    app = make_app(told)
    if apps is not None:
        apps.append(app)
    server = uvicorn.Server(uvicorn.Config(app, http=Impatient, port=0, log_level="warning"))

    def run() -> None:
        with asyncio.Runner(loop_factory=None if loop is None else lambda: loop) as runner:
            runner.run(server.serve())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.05)
        (found,) = server.servers[0].sockets
        yield found.getsockname()
    finally:
        server.should_exit = True
        end = time.monotonic() + 60
        while thread.is_alive() and time.monotonic() < end:
            if loop is not None:
                loop.pass_time(0.1)
            thread.join(0.05)


def used(tmp_path: Path) -> int:
    return sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


def asks(address: tuple[str, int], path: str, *headers: str, body: bytes = b"") -> socket.socket:
    """A request that has begun."""
    found = socket.create_connection(address, 60)
    head = [f"POST {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}", *headers]
    found.sendall("\r\n".join([*head, "", ""]).encode() + body)
    return found


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def answer_of(asked: socket.socket) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers, body; the connection is then closed by the service, or this raises."""
    data = b""
    with asked, contextlib.suppress(ConnectionResetError):  # closed, with something on its way to it
        while piece := asked.recv(65536):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, json.loads(body)


def wait_until(is_so: Callable[[], bool], most_s: float = 30) -> None:
    end = time.monotonic() + most_s
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


CHUNKED = "Transfer-Encoding: chunked"


def test_room_is_taken_as_bytes_come_and_given_back(tmp_path: Path, disk: dict[str, int]) -> None:
    disk["free"] = 100 * MIB
    held = room.Room()
    folders = [tmp_path / str(n) for n in range(3)]
    for folder in folders:
        folder.mkdir()
    with (
        held.hold(folders[0], 36 * MIB) as one,
        held.hold(folders[1], 36 * MIB) as two,
    ):  # what is said holds nothing
        one.use(1)
        assert one.n_held == 1
        one.use(20 * MIB)
        (folders[0] / "0").write_bytes(bytes(20 * MIB + 1))  # what is written is not counted twice
        with pytest.raises(Refusal, match=r"has 20.* of others") as busy, held.hold(folders[2], 30 * MIB):
            pass
        assert (busy.value.status, busy.value.retry_s) == (429, room.RETRY_S)
        two.use(10 * MIB)
        (folders[1] / "0").write_bytes(bytes(10 * MIB))
        with pytest.raises(Refusal, match="of others at the moment"):
            two.use(10 * MIB)
        assert two.n_used == 10 * MIB
    for folder in folders[:2]:
        (folder / "0").unlink()
    with held.hold(folders[2], 36 * MIB) as three:
        three.use(36 * MIB)
    with pytest.raises(Refusal, match="request is over"):  # a thread that goes on for nobody
        three.use(MIB)
    with (
        pytest.raises(Refusal, match="1 MiB more would have to be free") as full,
        held.hold(folders[0], 37 * MIB),
    ):
        pass
    assert full.value.status == 507


def test_ten_idle_uploads_leave_room_for_a_scan(
    tmp_path: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bodies of no told length, and of the largest that may be told, held for what they sent: one byte each."""
    with listening(tmp_path, monkeypatch, max_job_bytes=4 * MIB) as address:
        disk["free"] = used(tmp_path) + room.KEPT_BYTES + 6 * MIB
        length = f"Content-Length: {4 * MIB}"
        idle = [asks(address, "/v1/jobs", CHUNKED, body=chunk(b"x")) for _ in range(5)]
        idle += [asks(address, "/v1/jobs", length, body=b"x") for _ in range(5)]
        uploads = tmp_path / "data" / "uploads"
        wait_until(lambda: sum(file.stat().st_size for file in uploads.glob("*/0")) == 10)
        url = f"http://{address[0]}:{address[1]}/v1/scan"
        answer = httpx.post(url, content=picture(), timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        # All that they hold is given back when they go away, and their folders are gone.
        for one in idle:
            one.close()
        wait_until(lambda: not list(uploads.iterdir()))
        whole = httpx.post(
            url.replace("scan", "jobs"), content=bytes(4 * MIB - 1), timeout=60, trust_env=False
        )
        assert whole.status_code == 202, whole.text
        metrics = httpx.get(url.replace("v1/scan", "metrics"), timeout=60, trust_env=False).text
        assert 'mai_requests_total{method="POST",route="/v1/jobs",status="499"} 10.0' in metrics


def test_an_upload_that_finds_no_more_room_in_the_middle_is_told(
    tmp_path: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening(tmp_path, monkeypatch) as address:
        disk["free"] = used(tmp_path) + room.KEPT_BYTES + 4 * MIB
        first = asks(address, "/v1/scan", CHUNKED, "Connection: close", body=chunk(bytes(3 * MIB)))
        wait_until(lambda: used(tmp_path / "tmp") == 3 * MIB)
        second = asks(address, "/v1/scan", CHUNKED, "Connection: close", body=chunk(bytes(MIB // 2)))
        wait_until(lambda: used(tmp_path / "tmp") == 3 * MIB + MIB // 2)
        second.sendall(chunk(bytes(MIB)) + b"0\r\n\r\n")
        first.sendall(chunk(picture()) + b"0\r\n\r\n")  # is not disturbed
        status, headers, told = answer_of(second)
        assert (status, told["error"], headers["retry-after"]) == (429, "uploads_wait", "10")
        assert "has 3" in told["message"]
        assert answer_of(first)[0] == 422
        wait_until(lambda: not used(tmp_path / "tmp"))


def test_one_client_has_its_share_of_the_room(
    tmp_path: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half of 8 MiB is one key's: also of what its waiting jobs have. The other's is not touched."""
    file = tmp_path / "keys"
    one, two = (f"X-API-Key: {keys.make(file, name)}" for name in ("one", "two"))
    with listening(tmp_path, monkeypatch, keys=file, max_job_bytes=4 * MIB) as address:
        disk["free"] = used(tmp_path) + room.KEPT_BYTES + 8 * MIB
        fills = asks(address, "/v1/scan", CHUNKED, one, body=chunk(bytes(3 * MIB)))
        wait_until(lambda: bodies(tmp_path) == [3 * MIB])
        for framing, body in ((f"Content-Length: {2 * MIB}", b""), (CHUNKED, chunk(bytes(2 * MIB)))):
            more = asks(address, "/v1/scan", framing, one, "Connection: close", body=body)
            status, headers, told = answer_of(more)
            assert (status, told["error"], headers["retry-after"]) == (429, "client_share", "10")
            assert "may take 4 MiB" in told["message"]
            assert "uploads and waiting jobs have 3" in told["message"]
        other = asks(
            address, "/v1/scan", CHUNKED, two, "Connection: close", body=chunk(bytes(4 * MIB - MIB // 2))
        )
        other.sendall(b"0\r\n\r\n")
        assert answer_of(other)[0] == 422  # it was taken, and is no picture
        fills.close()
        wait_until(lambda: not bodies(tmp_path))
        alone = asks(address, "/v1/scan", f"Content-Length: {5 * MIB}", one, "Connection: close")
        status, _, told = answer_of(alone)
        assert (status, told["error"]) == (429, "client_share")
        assert "this one is larger. Send less at a time" in told["message"]
        again = asks(
            address, "/v1/scan", CHUNKED, one, "Connection: close", body=chunk(bytes(4 * MIB - MIB // 2))
        )
        again.sendall(b"0\r\n\r\n")
        assert answer_of(again)[0] == 422


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="stops a worker")
def test_a_waiting_job_counts_in_its_clients_room(
    tmp_path: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    one, two = ({"X-API-Key": keys.make(file, name)} for name in ("one", "two"))
    apps: list[Any] = []
    told = {"keys": file, "max_job_bytes": 4 * MIB, "timeout_s": 600.0}
    with listening(tmp_path, monkeypatch, apps=apps, **told) as address:
        url = f"http://{address[0]}:{address[1]}/v1/jobs"
        desk = apps[0].state.service.desk
        wait_until(lambda: desk.n_ready == 1, 300)
        disk["free"] = used(tmp_path) + (4 + 8) * MIB

        def send(headers: dict[str, str], n_bytes: int) -> httpx.Response:
            body = picture() + bytes(n_bytes)
            return httpx.post(url, content=body, headers=headers, timeout=60, trust_env=False)

        os.kill(desk.pids[0], signal.SIGSTOP)
        try:
            first = send(one, 3 * MIB)
            assert first.status_code == 202, first.text
            second = send(one, 2 * MIB)
            assert (second.status_code, second.json()["error"]) == (429, "client_share"), second.text
            assert "waiting jobs have 3" in second.json()["message"]
            assert send(two, 2 * MIB).status_code == 202
        finally:
            os.kill(desk.pids[0], signal.SIGCONT)
        job = f"{url}/{first.json()['id']}"

        def is_over() -> bool:
            asked: dict[str, Any] = httpx.get(job, headers=one, timeout=60, trust_env=False).json()
            return asked["state"] == "finished"

        wait_until(is_over, 120)
        wait_until(lambda: not bodies(tmp_path), 120)
        assert send(one, 3 * MIB).status_code == 202


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="stops a worker")
def test_no_more_jobs_wait_than_may_however_many_are_sent_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places are taken by jobs that are all there; who comes too late is refused, and leaves nothing."""
    monkeypatch.setattr(job_routes, "MAX_OPEN", 3)
    apps: list[Any] = []
    with listening(tmp_path, monkeypatch, apps=apps, timeout_s=600.0) as address:
        desk = apps[0].state.service.desk
        wait_until(lambda: desk.n_ready == 1, 300)
        os.kill(desk.pids[0], signal.SIGSTOP)
        try:
            sent = [
                asks(address, "/v1/jobs", CHUNKED, "Connection: close", body=chunk(picture()))
                for _ in range(5)
            ]
            wait_until(lambda: len(bodies(tmp_path)) == 5)
            found = []
            for one in sent:
                one.sendall(b"0\r\n\r\n")
                found.append(answer_of(one))
            assert [status for status, _, _ in found] == [202] * 3 + [429] * 2
            assert {(told["error"], headers["retry-after"]) for _, headers, told in found[3:]} == {
                ("queue_full", "60")
            }
            assert len(bodies(tmp_path)) == 3
            assert answer_of(asks(address, "/v1/jobs", "Content-Length: 9", "Connection: close"))[0] == 429
        finally:
            os.kill(desk.pids[0], signal.SIGCONT)


class Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(picture() + bytes(2 * MIB))

    def log_message(self, *words: Any) -> None:
        pass


def test_what_is_fetched_takes_room_like_an_upload(
    tmp_path: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    monkeypatch.setitem(fetch.PORTS, "http", site.server_address[1])
    monkeypatch.setattr(fetch, "is_public", lambda address: True)
    told = {"urls": [f"http://127.0.0.1:{site.server_address[1]}/a.jpg"]}
    with listening(tmp_path, monkeypatch, has_urls=True) as address:
        url = f"http://{address[0]}:{address[1]}/v1/scan"
        disk["free"] = used(tmp_path) + room.KEPT_BYTES + 4 * MIB
        other = asks(address, "/v1/scan", CHUNKED, body=chunk(bytes(3 * MIB)))
        wait_until(lambda: used(tmp_path / "tmp") == 3 * MIB)
        answer = httpx.post(url, json=told, timeout=60, trust_env=False)
        assert (answer.status_code, answer.json()["error"]) == (429, "uploads_wait"), answer.text
        other.close()
        wait_until(lambda: not used(tmp_path / "tmp"))
        answer = httpx.post(url, json=told, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
    site.shutdown()


def bodies(tmp_path: Path) -> list[int]:
    """Bytes of each body that is on its way."""
    return [file.stat().st_size for file in (*tmp_path.glob("tmp/*/*/0"), *tmp_path.glob("data/uploads/*/0"))]


def read_alive(asked: socket.socket) -> None:
    """Take the answer of /healthz, which may come in parts."""
    data = b""
    while b"alive" not in data:
        piece = asked.recv(65536)
        assert piece, data
        data += piece


def has_ended(asked: socket.socket, data: bytearray) -> bool:
    """Add what has come; True if the other side closed."""
    while select.select([asked], [], [], 0)[0]:
        try:
            piece = asked.recv(65536)
        except ConnectionResetError:  # closed, with something on its way to it
            return True
        if not piece:
            return True
        data += piece
    return False


@pytest.mark.parametrize("path", ["/v1/scan", "/v1/jobs"])
@pytest.mark.parametrize("framing", [CHUNKED, "Content-Length: 100000"])
def test_uploads_that_do_not_move_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, framing: str
) -> None:
    """One that stops, and one that drips a byte now and then; one that is slow and fast enough is served."""
    pace, loop = Pace(timeout_s=600.0, idle_s=20.0, min_rate=30), HeldLoop()
    with listening(tmp_path, monkeypatch, loop, pace=pace) as address:
        still, drips = (asks(address, path, framing) for _ in range(2))
        wait_until(lambda: len(bodies(tmp_path)) == 2)
        told, ended, begin = {still: bytearray(), drips: bytearray()}, set[socket.socket](), loop.now
        while len(ended) < 2:
            with contextlib.suppress(OSError):
                drips.sendall(chunk(b"x") if framing == CHUNKED else b"x")
            loop.pass_time(1.0)
            ended |= {one for one in told if one not in ended and has_ended(one, told[one])}
            assert loop.now - begin > 19 or not any(told.values())
            assert loop.now - begin < 30  # not waited for again with its rest
        for one, data in told.items():
            head, _, body = bytes(data).partition(b"\r\n\r\n")
            answer = json.loads(body)
            assert head.startswith(b"HTTP/1.1 408 ")
            assert b"\r\nconnection: close" in head.lower()
            assert answer["error"] == "upload_too_slow"
            assert "fewer than 600 bytes in 20 s" in answer["message"]
            assert ("and 0 bytes in all" in answer["message"]) == (one is still)
            one.close()
        wait_until(lambda: not bodies(tmp_path))
        data = picture(size=(120, 80))
        slow, begin = asks(address, path, f"Content-Length: {len(data)}", "Connection: close"), loop.now
        for end in range(700, len(data), 700):
            slow.sendall(data[end - 700 : end])
            wait_until(lambda end=end: bodies(tmp_path) == [end])
            loop.pass_time(19.0)
        assert loop.now - begin > 2 * pace.idle_s
        slow.sendall(data[end:])
        assert answer_of(slow)[0] == (200 if path == "/v1/scan" else 202)


def test_connections_that_ask_for_nothing_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent ones, and those whose headers drip or stop: as the first request, and behind one that was answered."""
    loop = HeldLoop()
    with listening(tmp_path, monkeypatch, loop) as address:
        head = f"GET /healthz HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n".encode()
        silent, slow, second, stops = (socket.create_connection(address, 60) for _ in range(4))
        for one in (second, stops):
            one.sendall(head + b"\r\n")
            read_alive(one)
        for one in (slow, second, stops):
            one.sendall(head + b"X-Drip: ")
        begin, ended = loop.now, dict[socket.socket, float]()
        while len(ended) < 4:
            loop.pass_time(1.0)
            for one in (slow, second):
                with contextlib.suppress(OSError):
                    one.sendall(b"x")
            for one in (silent, slow, second, stops):
                if one not in ended and has_ended(one, bytearray()):
                    ended[one] = loop.now - begin
            assert loop.now - begin <= HEADERS_S + 2
        assert min(ended.values()) >= HEADERS_S - 1
        for one in ended:
            one.close()
        patient = socket.create_connection(address, 60)
        loop.pass_time(HEADERS_S - 1)
        patient.sendall(head + b"\r\n")
        read_alive(patient)
        loop.pass_time(3.0)  # longer than the headers' time, which is over when they are there
        patient.sendall(head + b"Connection: close\r\n\r\n")
        read_alive(patient)
        patient.close()


def test_parallel_jobs_share_the_room(
    tmp_path: Path, disk: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight uploads of 3 MiB at once where there is room for two: none fills the disk, at least one is taken."""
    with listening(tmp_path, monkeypatch, max_job_bytes=4 * MIB) as address:
        url = f"http://{address[0]}:{address[1]}/v1/jobs"
        disk["free"] = used(tmp_path) + (4 + 3 + 3) * MIB + MIB  # kept, two bodies, and what SQLite writes
        gate = threading.Barrier(8, timeout=120)
        jpeg = picture()
        least = disk["free"]

        def body() -> Iterator[bytes]:
            nonlocal least
            yield jpeg
            gate.wait()  # all have begun
            for _ in range(3 * 8):
                yield bytes(MIB // 8)
                least = min(least, disk["free"] - used(tmp_path))

        def send(_: int) -> int:
            answer = httpx.post(url, content=body(), timeout=120, trust_env=False)
            if answer.status_code != 202:
                assert answer.json()["error"] == "uploads_wait"
            return answer.status_code

        with ThreadPoolExecutor(8) as pool:
            codes = sorted(pool.map(send, range(8)))
        assert set(codes) == {202, 429}
        assert least >= 4 * MIB
        assert httpx.post(url, content=jpeg, timeout=60, trust_env=False).status_code == 202  # given back


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_idle_connections_do_not_use_up_the_files_that_may_be_open(tmp_path: Path, weights: Path) -> None:
    """Systems let a process have 1,024 open files, and more if it asks."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1000:
        pytest.skip(f"no more than {hard} open files are allowed here")
    with contextlib.ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))  # of the service, which inherits it
        try:
            started = serving("--workers", "1", "--weights", str(weights), log=tmp_path / "log")
            service = stack.enter_context(started)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        host, port = service.url.removeprefix("http://").split(":")
        idle = [asks((host, int(port)), "/v1/scan", CHUNKED, body=chunk(b"x")) for _ in range(150)]
        answer = httpx.post(f"{service.url}/v1/scan", content=picture(), timeout=60, trust_env=False)
        assert answer.status_code == 200
        for one in idle:
            one.close()


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
