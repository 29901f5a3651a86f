"""Files that have an address are fetched while those before them are judged."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from mai.errors import ImageError
from mai.images import remote
from mai.images.find import Found

N_AT_ONCE = 8
"""Files on their way to one worker: two errands, which hides some 200 ms of a server's time a file."""


class Ahead:
    """Fetches in threads, which are started with the first address.

    Args:
        max_bytes: larger files are refused.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, item: Any) -> Any:
        """The item itself, or, for a Found with an address, a promise of it with its bytes."""
        if not isinstance(item, Found) or item.url is None or item.error or item.data is not None:
            return item
        if self._pool is None:
            self._pool = ThreadPoolExecutor(N_AT_ONCE, thread_name_prefix="mai-fetch")
        return self._pool.submit(self._fetch, item)

    def end(self, item: Any) -> Any:
        """What `begin` gave, with its bytes or the reason why there are none."""
        return item.result() if isinstance(item, Future) else item

    def _fetch(self, found: Found) -> Found:
        assert found.url is not None
        try:
            return replace(found, data=remote.fetch(found.url, self._max_bytes))
        except ImageError as error:
            return replace(found, error=error)
        except MemoryError:
            return replace(found, error=ImageError("too_large", "There was not enough memory to fetch it."))
