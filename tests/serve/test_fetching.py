"""Addresses that clients name: nothing inside is ever reached, whatever a name says, and whenever it says it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from running_service import picture

from mai.serve import fetch as fetching
from mai.serve.fetch import checked, fetch, fetch_all, is_public, public_address
from mai.serve.refusal import Refusal
from mai.serve.room import Room
from mai.serve.uploads import Bounds, Folders, Upload

INNER = [
    *(
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.169.254",
    ),
    *("100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
    *(
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd12::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
    ),
    *("64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "::7f00:1", "2001:db8::1", "fec0::1"),
]


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(address)


def says(*addresses: str) -> Any:
    """A resolver that gives these addresses, all at once, and counts how often it is asked."""

    def resolve(name: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        resolve.asked.append(name)  # type: ignore[attr-defined]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    resolve.asked = []  # type: ignore[attr-defined]
    return resolve


@pytest.mark.parametrize(
    "url",
    [
        *(
            "file:///etc/passwd",
            "ftp://example.org/a",
            "gopher://example.org",
            "data:image/png,x",
            "//example.org/a",
            "x",
        ),
        *(
            "http://user:pass@example.org/a",
            "http://example.org:22/",
            "https://example.org:80/",
            "http://example.org:x/",
        ),
        *(
            "http://",
            "http:///a",
            "http://exa mple.org/",
            "http://example.org/\r\nHost: inner",
            "http://example.org\\@inner/",
        ),
        "http://example.org/" + "a" * 3000,
    ],
)
def test_addresses_that_are_none_are_refused(url: str, tmp_path: Path) -> None:
    resolve = says("93.184.216.34")
    with pytest.raises(Refusal) as refused:
        fetched(url, tmp_path / "x", 1000, resolve)
    assert refused.value.code == "url_refused"
    assert not resolve.asked


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "017700000001",
        "127.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
    ],
)
def test_every_spelling_of_this_machine_is_refused(host: str, tmp_path: Path) -> None:
    """With the system's own resolver, which knows the old spellings of numbers."""
    with pytest.raises(Refusal) as refused:
        fetched(f"http://{host}/a.jpg", tmp_path / "x", 1000)
    assert refused.value.code in ("url_refused", "url_failed")
    assert "inner networks" in refused.value.message or "not known" in refused.value.message


def test_a_name_with_one_inner_address_among_public_ones_is_refused() -> None:
    with pytest.raises(Refusal):
        public_address(checked("http://mixed.example/"), says("93.184.216.34", "10.0.0.1"))


def fetched(url: str, file: Path, max_bytes: int, *resolve: Any) -> Upload:
    with Room().hold(file.parent) as room:
        return fetch(url, file, max_bytes, room, *resolve)


class Site(BaseHTTPRequestHandler):
    """A web server on loopback that stands for a public one."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"]))  # type: ignore[attr-defined]
        body = picture()
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/latest/meta-data/")
            self.end_headers()
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/large":
            body = bytes(200_000)
        self.send_header("Content-Type", "image/jpeg")
        self.end_headers()
        if self.path == "/slow":
            self.wfile.write(body[:100])
            self.wfile.flush()
            self.server.end.wait(10)  # type: ignore[attr-defined]
            return
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The site on the port that is spoken to, with this machine taken for a public address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    server.seen, server.end = [], threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setitem(fetching.PORTS, "http", server.server_address[1])
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    yield server
    server.end.set()  # type: ignore[attr-defined]
    server.shutdown()


def test_a_picture_is_fetched_from_the_address_that_was_checked(site: Any, tmp_path: Path) -> None:
    resolve = says("127.0.0.1")
    found = fetched("http://photos.example/a.jpg?x=1", tmp_path / "x", 10**6, resolve)
    assert found.file.read_bytes()[:2] == b"\xff\xd8"
    assert found.n_bytes == found.file.stat().st_size
    ((path, host),) = site.seen
    assert path == "/a.jpg?x=1"
    assert host.split(":")[0] == "photos.example"


def test_a_name_is_resolved_once_so_that_it_cannot_change_its_mind(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS re-binding: the second answer would be an inner address. Nobody asks for it, the system included."""
    resolve = says("127.0.0.1")

    def never(host: str, *rest: Any, **options: Any) -> Any:
        assert host == "127.0.0.1", "a name was resolved a second time"
        return real(host, *rest, **options)

    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", never)
    fetched("http://rebinding.example/a.jpg", tmp_path / "x", 10**6, resolve)
    assert resolve.asked == ["rebinding.example"]


def test_redirects_are_not_followed(site: Any, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="not followed") as refused:
        fetched("http://photos.example/moved", tmp_path / "x", 10**6, says("127.0.0.1"))
    assert refused.value.code == "url_refused"
    assert len(site.seen) == 1


def test_what_is_too_large_too_slow_or_gone(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FETCH_S", 0.5)
    for path, code in (("/large", "body_too_large"), ("/slow", "url_failed"), ("/gone", "url_failed")):
        with pytest.raises(Refusal) as refused:
            fetched(f"http://photos.example{path}", tmp_path / path[1:], 100_000, says("127.0.0.1"))
        assert refused.value.code == code


def test_pictures_together_are_no_larger_than_a_body(site: Any, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{fetching.PORTS['http']}/large"  # 200,000 bytes
    with Room().hold(tmp_path) as room:
        found = asyncio.run(fetch_all([url], tmp_path, Bounds(300_000, 250_000, 9), room))
        assert [upload.n_bytes for upload in found] == [200_000]
        assert room.n_used == 200_000
        found[0].file.unlink()
        with pytest.raises(Refusal, match=r"97.66 KiB that are left"):
            asyncio.run(fetch_all([url, url], tmp_path, Bounds(300_000, 250_000, 9), room))


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
def test_a_server_that_gives_byte_by_byte_holds_nobody_up(
    start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes within the socket's time limit; the whole never ends."""
    end = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(4096)
            connection.sendall(start)
            for _ in range(150):
                connection.sendall(b"0")
                if end.wait(0.1):
                    break

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setitem(fetching.PORTS, "http", listener.getsockname()[1])
        monkeypatch.setattr(fetching, "is_public", lambda address: True)
        monkeypatch.setattr(fetching, "FETCH_S", 1.0)
        threading.Thread(target=drip, args=(listener,), daemon=True).start()
        began = time.monotonic()
        with pytest.raises(Refusal, match="took longer") as refused:
            fetched("http://slow.example/a.jpg", tmp_path / "x", 10**6, says("127.0.0.1"))
        assert time.monotonic() - began < 10
        end.set()
    assert refused.value.code == "url_failed"


def test_proxies_of_the_environment_are_not_used(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    fetched("http://photos.example/a.jpg", tmp_path / "x", 10**6, says("127.0.0.1"))
    assert site.seen[0][0] == "/a.jpg"


def test_a_thread_that_writes_late_does_not_hide_what_ended_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch goes on in its thread when its request is cancelled, and may make its file behind the clearing."""
    listdir = os.listdir

    def late(folder: Path) -> list[str]:
        names = listdir(folder)
        (folder / "late").write_bytes(b"x")
        return names

    folders = Folders(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(asyncio.CancelledError), folders.one():
        patch.setattr(os, "listdir", late)
        raise asyncio.CancelledError
    with folders.one() as folder:
        assert not list(folder.iterdir())  # not the one with the late file
