"""Connections that ask for nothing: uvicorn gives a request's headers all the time in the world."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEADERS_S = 15.0
"""Seconds that a request's headers may take, from the connection's begin or their first byte on."""


class Impatient(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # uvicorn's, with httptools where it is
    """Closes a connection whose request's headers do not come to an end (slow loris). Bodies have their own pace."""

    headers_s = HEADERS_S

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._before: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The first request may come now."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """Nothing is waited for any more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Bytes between two requests are the next one's headers; they also end the time of an idle connection."""
        super().data_received(data)
        is_timed = self._timer is not None and self._before is self.cycle
        if self._is_between and not is_timed:  # the time of an earlier request's headers is not this one's
            self._wait()

    @property
    def _is_between(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._before = self.cycle
        self._timer = self.loop.call_later(self.headers_s, self._look)

    def _look(self) -> None:
        self._timer, before = None, self._before
        self._before = None  # or what was answered would be kept until the next request
        if self.cycle is before and self._is_between and not self.transport.is_closing():
            self.transport.close()
