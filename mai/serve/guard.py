"""What every request passes first: names, origins, keys; and what every answer carries: headers against misuse."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mai.serve.keys import Keys
from mai.serve.limits import drain
from mai.serve.refusal import Refusal
from mai.serve.settings import LOOPBACK, ServeSettings

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy of the page and of every answer that does not set one of its own."""

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), interest-cohort=()"),
)

GUARDED = ("/v1/", "/metrics")
"""Paths that ask for a key where there are keys; the page itself, its files and the health checks do not."""

OPEN = ("/v1/limits",)
"""What the page must know before it has a key."""


class Guard:
    """The outermost layer of the application.

    Args:
        app: what is guarded.
        settings: of the service.
        keys: who may come in; None: everybody.
        count: takes method, route, status, seconds of every request.
        is_verbose: a line a request on stderr.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServeSettings,
        keys: Keys | None,
        count: Callable[[str, str, int, float], None],
        is_verbose: bool = False,
    ) -> None:
        self._app, self._keys, self._count, self._is_verbose = app, keys, count, is_verbose
        self._hosts = _hosts(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        status = 500

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = _with_headers(message.get("headers", []), scope["path"])
                if scope.get("mai_body") != "read" and has_body:
                    # The rest would be waited for, and each byte of it put off the end of the idle connection.
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        async def receive_noted() -> Message:
            message = await receive()
            scope["mai_body"] = "begun" if message.get("more_body", False) else "read"
            return message

        request = Request(scope, receive_noted)
        has_body = "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
        try:
            scope["mai_caller"] = self._caller(request)
            await self._app(scope, receive_noted, send_guarded)
        except Refusal as refusal:
            await drain(request)
            await refusal.response()(scope, receive, send_guarded)
        finally:
            seconds = time.perf_counter() - start
            route = getattr(scope.get("route"), "path", "none")
            self._count(scope["method"], route, status, seconds)
            if self._is_verbose:
                who = scope.get("mai_caller", "-")
                told = f"{scope['method']} {scope['path']} {status} {seconds * 1000:.0f} ms {who}"
                print(ascii(told)[1:-1], file=sys.stderr, flush=True)

    def _caller(self, request: Request) -> str:
        """Who asks: a key's name, or an address.

        Raises:
            Refusal: not under this name, not from that page, not without a key.
        """
        host = request.headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            raise Refusal(
                "not_allowed",
                f"The service is not reached under the name '{_name(host)[:100]}'. Start it with --allow-host NAME to "
                "allow one.",
            )
        origin = request.headers.get("origin")
        if origin is not None and _site(origin) != host:
            raise Refusal("not_allowed", "Pages of other sites may not use this service.")
        # What the router goes by. Not `request.url`, in which older Starlettes let the Host header name the path.
        path: str = request.scope["path"]
        address = request.client.host if request.client else "-"
        if self._keys is None or not path.startswith(GUARDED) or path in OPEN:
            return address
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        given = key.strip() if kind.lower() == "bearer" else request.headers.get("x-api-key", "")
        owner = self._keys.owner(given)
        if owner is None:
            told = "This key is not known." if given else "This service asks for a key."
            raise Refusal("no_key", f"{told} Send it as `Authorization: Bearer KEY`.")
        return f"key:{owner}"


def _hosts(settings: ServeSettings) -> frozenset[str] | None:
    """Names under which requests are served; None: any. On loopback a foreign name is DNS re-binding."""
    if not settings.is_local and not settings.hosts:
        return None
    return frozenset({*LOOPBACK, settings.host, *(name.lower() for name in settings.hosts)})


def _site(origin: str) -> str | None:
    """Name and port of an Origin header, None if it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


@lru_cache(64)
def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.strip("[]")))
    name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() else host
    return name.strip("[]").lower()


_OURS = (*HEADERS, (b"content-security-policy", PAGE_POLICY.encode()))
_OURS_UNKEPT = (*_OURS, (b"cache-control", b"no-store"))


def _with_headers(headers: list[tuple[bytes, bytes]], path: str) -> list[tuple[bytes, bytes]]:
    """The answer's headers and ours; those that the answer set itself stay."""
    told = {name.lower() for name, _ in headers}
    ours = _OURS if path.startswith("/static/") else _OURS_UNKEPT
    return [*headers, *(pair for pair in ours if pair[0] not in told)]
