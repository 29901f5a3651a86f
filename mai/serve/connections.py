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
        if self._timer is None and self._is_between:
            self._wait()

    @property
    def _is_between(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)

    def _wait(self) -> None:
        self._timer = self.loop.call_later(self.headers_s, self._look, self.cycle)

    def _look(self, before: Any) -> None:
        self._timer = None
        if self.cycle is before and self._is_between and not self.transport.is_closing():
            self.transport.close()
