"""Pictures from addresses that clients name (`--allow-urls`), without lending them our place in the network.

A name is resolved once, every address that it has must be public, and the connection goes to the address that was
checked: a name that answers differently the second time (DNS re-binding) is never asked a second time. No redirect is
followed, no proxy of the environment is used, nothing but ports 80 and 443 is spoken to.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Timer
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from starlette.requests import Request

from mai import __version__
from mai.serve.limits import pieces, size
from mai.serve.refusal import Refusal
from mai.serve.room import Claim
from mai.serve.uploads import Bounds, Upload, shown

PORTS = {"http": 80, "https": 443}

FETCH_S = 20.0
"""Seconds that one picture may take to arrive."""

MAX_URL_CHARS = 2000
MAX_ASK_BYTES = 2**20
"""Most bytes of a request that names addresses."""

PIECE_BYTES = 2**16

Resolve = Callable[..., Sequence[tuple[Any, ...]]]
"""As socket.getaddrinfo."""

_MAPPED = tuple(
    ipaddress.ip_network(network)
    for network in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
)
"""IPv6 addresses that carry an IPv4 one (NAT64, 6to4, Teredo, IPv4-compatible): RFC 6052, 3056, 4380, 4291."""


async def urls_of(request: Request, bounds: Bounds) -> list[str]:
    """The addresses that a request names: {"urls": [...]}.

    Raises:
        Refusal: it is no such JSON; there are too many.
    """
    body = b"".join([piece async for piece in pieces(request, MAX_ASK_BYTES, bounds.pace)])
    try:
        told = json.loads(body)
        urls = told["urls"]
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refusal("bad_request", 'JSON is taken as {"urls": ["https://...", ...]}.') from None
    if len(urls) > bounds.max_files:
        raise Refusal("too_many_files", f"{len(urls)} addresses were given; {bounds.max_files} is the most.")
    return urls


async def fetch_all(urls: list[str], folder: Path, bounds: Bounds, room: Claim) -> list[Upload]:
    """Fetch pictures into a folder, one after another; together they may be as large as a body.

    Raises:
        Refusal: one of them is refused, or cannot be had; there is no room for it.
    """
    found: list[Upload] = []
    left = bounds.max_bytes
    for number, url in enumerate(urls):
        most = min(bounds.max_file_bytes, left)
        found.append(await asyncio.to_thread(fetch, url, folder / str(number), most, room))
        left -= found[-1].n_bytes
    return found


def fetch(url: str, file: Path, max_bytes: int, room: Claim, resolve: Resolve = socket.getaddrinfo) -> Upload:
    """Fetch one picture.

    Args:
        url: http or https.
        file: where its bytes go.
        max_bytes: most of them.
        room: of the request on the disk.
        resolve: names to addresses; called once.

    Raises:
        Refusal: the address is none that is fetched from; the other side does not give the picture; there is no room.
    """
    parts = checked(url)
    address = public_address(parts, resolve)
    is_over = Event()
    connection = _connection(parts, address, is_over)
    target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{parts.query}" if parts.query else "")
    headers = {"User-Agent": f"mai/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"}
    n_bytes = 0
    # Time limits of sockets begin anew with every byte: a server that gives its headers byte by byte never meets one.
    watch = Timer(FETCH_S, _break_off, (connection, is_over))
    watch.daemon = True
    watch.start()
    try:
        connection.request("GET", target, headers=headers)
        answer = connection.getresponse()
        if 300 <= answer.status < 400:
            raise Refusal(
                "url_refused",
                f"{shown(url)} leads to another address, which is not followed. Give the last one.",
            )
        if answer.status != 200:
            raise Refusal("url_failed", f"{shown(url)} answered with status {answer.status}.")
        with file.open("xb") as stream:
            while piece := answer.read1(PIECE_BYTES):
                n_bytes += len(piece)
                if n_bytes > max_bytes:
                    raise Refusal(
                        "body_too_large",
                        f"{shown(url)} is larger than the {size(max_bytes)} that are left of the limit.",
                    )
                room.use(len(piece))
                stream.write(piece)
        if is_over.is_set():  # what was broken off may look like the end
            raise TimeoutError
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        if is_over.is_set() or isinstance(error, TimeoutError):
            raise Refusal("url_failed", f"{shown(url)} took longer than {FETCH_S:g} s.") from None
        raise Refusal("url_failed", f"{shown(url)} cannot be fetched: {type(error).__name__}.") from error
    finally:
        watch.cancel()
        connection.close()
        if (own := getattr(connection, "own", None)) is not None:
            own.close()
    return Upload(shown(url), file, n_bytes)


def _break_off(connection: http.client.HTTPConnection, is_over: Event) -> None:
    """End a connection whose time is up, whatever its thread waits for."""
    is_over.set()
    with contextlib.suppress(OSError, AttributeError):  # it has none yet, or none any more
        connection.own.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]


def checked(url: str) -> SplitResult:
    """The parts of an address that may be fetched from.

    Raises:
        Refusal: it may not.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refusal("url_refused", "This is no address of the web.") from None
    is_clean = url.isprintable() and " " not in url and "\\" not in url and len(url) <= MAX_URL_CHARS
    if parts.scheme not in PORTS or not parts.hostname or not is_clean:
        raise Refusal("url_refused", f"Only http and https addresses are fetched, not '{shown(url)[:100]}'.")
    if parts.username is not None or parts.password is not None:
        raise Refusal("url_refused", "An address with a name and password in it is not fetched.")
    if port is not None and port != PORTS[parts.scheme]:
        raise Refusal("url_refused", f"Only ports 80 (http) and 443 (https) are spoken to, not {port}.")
    return parts


def public_address(parts: SplitResult, resolve: Resolve) -> str:
    """The address to connect to. Of a name with several, all must be public.

    Raises:
        Refusal: the name has none, or one that is not public.
    """
    host = parts.hostname or ""
    try:
        name = host.encode("idna").decode("ascii") if not host.isascii() else host
        found = resolve(name, PORTS[parts.scheme], type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Refusal("url_failed", f"The name '{host[:100]}' is not known.") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise Refusal(
            "url_refused",
            f"'{host[:100]}' is not a public address. Addresses of this machine and of inner networks are not fetched.",
        )
    return addresses[0]


def is_public(address: str) -> bool:
    """True for an address of the open internet; False for loopback, private, link-local, multicast, reserved."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:  # a scope id: link-local
        return False
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if any(found in network for network in _MAPPED):
            return False
        if found.is_site_local:  # fec0::/10, which Python calls global
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


def _connection(parts: SplitResult, address: str, is_over: Event) -> http.client.HTTPConnection:
    """A connection that goes to the checked address, whatever its name says by then; none once `is_over`."""
    host = (parts.hostname or "").encode("idna").decode("ascii")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            host, PORTS["https"], timeout=FETCH_S, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, PORTS["http"], timeout=FETCH_S)

    def connect(target: tuple[str, int], *rest: Any, **options: Any) -> socket.socket:
        made = socket.create_connection((address, target[1]), *rest, **options)
        connection.own = made.dup()  # type: ignore[attr-defined]  # for _break_off: TLS takes the other over
        if is_over.is_set():
            made.close()
            raise TimeoutError
        return made

    # http.client asks this for its socket, and does TLS over it for the name (SNI and certificate).
    connection._create_connection = connect  # type: ignore[attr-defined]
    return connection
