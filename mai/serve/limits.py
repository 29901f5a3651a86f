"""What a caller may cost: images a minute, and bodies that are read no further than they may go."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mai.serve.refusal import Refusal

MAX_CALLERS = 10_000
"""Callers remembered by the rate limit; the one seen longest ago is forgotten."""

DRAIN_BYTES = 64 * 2**20
"""Bytes of a refused body that are read and thrown away: a client that is still sending would not see the answer."""

DRAIN_S = 10.0
"""Seconds for the same."""

LINGER_S = 2.0
"""Seconds for which a slow client may still send when it has been answered."""


class Rate:
    """A bucket of images a caller, filled again evenly; a minute's worth may come at once.

    Args:
        a_minute: images; None: no limit.
    """

    def __init__(self, a_minute: int | None) -> None:
        self._a_minute = a_minute
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # images left, when

    def take(self, caller: str, n: int, now: float | None = None) -> None:
        """Count n images.

        Args:
            caller: a key's name, or an address.
            n: images.
            now: seconds of the monotonic clock.

        Raises:
            Refusal: more than the caller may send now.
        """
        if self._a_minute is None:
            return
        now = time.monotonic() if now is None else now
        left, seen = self._buckets.pop(caller, (float(self._a_minute), now))
        left = min(float(self._a_minute), left + (now - seen) * self._a_minute / 60)
        is_enough = left >= min(n, self._a_minute)
        self._buckets[caller] = (left - n if is_enough else left, now)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        if not is_enough:
            wait_s = (min(n, self._a_minute) - left) * 60 / self._a_minute
            raise Refusal(
                "rate_limit",
                f"More than {self._a_minute} images a minute came from you. Try again in {max(1, round(wait_s))} s.",
                wait_s,
            )


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a body must come, so that nobody holds a connection and room with an upload that does not move.

    Attributes:
        timeout_s: seconds until all is there.
        idle_s: seconds that `portion` bytes may take; only those count in which the service waits for them.
        min_rate: bytes a second, over each such stretch.
    """

    timeout_s: float = 120.0
    idle_s: float = 20.0
    min_rate: int = 1024

    @property
    def portion(self) -> int:
        """Bytes that must come every `idle_s`."""
        return max(1, round(self.min_rate * self.idle_s))


async def pieces(request: Request, max_bytes: int, pace: Pace) -> AsyncIterator[bytes]:
    """The body as it comes.

    Args:
        request: whose body.
        max_bytes: most that is read.
        pace: how fast it must come.

    Raises:
        Refusal: it is larger, or too slow.
        ClientDisconnect: the client went away.
    """
    told = request.headers.get("content-length", "")
    if told.isdigit() and int(told) > max_bytes:
        raise body_too_large(max_bytes)
    now = asyncio.get_running_loop().time
    n_bytes = n_portion = 0
    end, waited = now() + pace.timeout_s, 0.0
    while True:
        begin = now()
        try:
            async with asyncio.timeout(min(pace.idle_s - waited, end - begin)):
                message = await request.receive()
        except TimeoutError:
            raise _too_slow(pace, n_bytes, is_over=now() >= end) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        n_bytes, n_portion, waited = n_bytes + len(piece), n_portion + len(piece), waited + now() - begin
        if n_bytes > max_bytes:
            raise body_too_large(max_bytes)
        if piece:
            yield piece
        if not message.get("more_body", False):
            return
        if n_portion >= pace.portion:
            n_portion, waited = 0, 0.0


def _too_slow(pace: Pace, n_bytes: int, is_over: bool) -> Refusal:
    if is_over:
        told = f"The request's body took longer than {pace.timeout_s:g} s to arrive"
    else:
        told = (
            f"The request's body came too slowly: fewer than {size(pace.portion)} in {pace.idle_s:g} s, and "
            f"{size(n_bytes)} in all"
        )
    return Refusal("upload_too_slow", f"{told}. Try again on a faster line.")


def body_too_large(max_bytes: int) -> Refusal:
    """The refusal of a body."""
    return Refusal(
        "body_too_large",
        f"The request is larger than the {size(max_bytes)} that this service takes. Send fewer or smaller files.",
    )


async def drain(request: Request, most_s: float = DRAIN_S) -> None:
    """Read on and throw away, within limits.

    Nothing where all was read, or where the client waits to be asked for its body (Guard notes how far it is).
    """
    told = request.scope.get("mai_body", "")
    if told == "read" or (not told and "100-continue" in request.headers.get("expect", "").lower()):
        return
    n_bytes = 0
    try:
        async with asyncio.timeout(most_s):
            while n_bytes < DRAIN_BYTES:
                message = await request.receive()
                n_bytes += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except (TimeoutError, ClientDisconnect, RuntimeError):
        return


class Parting(Response):
    """An answer to who is still sending, slowly: it goes out at once, and then there is a moment to read it.

    A connection that is closed with bytes unread would take the answer with it.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, listen a little longer, and end."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await drain(Request(scope, receive), LINGER_S)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def size(n_bytes: int) -> str:
    """Bytes for people."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.4g} {name}"
    return f"{n_bytes} bytes"
