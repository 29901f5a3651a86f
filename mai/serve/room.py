"""Room on the disk for bodies that are on their way: each has its own, so that many at once do not fill the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from shutil import disk_usage

from starlette.requests import Request

from mai.serve.limits import size
from mai.serve.refusal import Refusal

KEPT_BYTES = 64 * 2**20
"""Bytes that bodies leave free."""


class Room:
    """What was promised to bodies that are not all there. For one event loop, where looking and taking is one step."""

    def __init__(self) -> None:
        self._claims: dict[Path, tuple[int, int]] = {}

    @contextlib.contextmanager
    def hold(self, folder: Path, n_bytes: int, kept: int = KEPT_BYTES) -> Iterator[None]:
        """Hold room for a body while it is written.

        Args:
            folder: where it goes; of this body alone.
            n_bytes: most that it may be.
            kept: bytes that stay free beside it.

        Raises:
            Refusal: there is too little, with what was promised to others.
        """
        device = folder.stat().st_dev
        promised = sum(
            max(0, n - _written(other)) for other, (n, place) in self._claims.items() if place == device
        )
        free = disk_usage(folder).free - promised
        if free < n_bytes + kept:
            raise Refusal(
                "disk_full",
                f"The service's disk has too little room for {size(n_bytes)} more, with {size(promised)} that others "
                "are sending. Try again later.",
                60.0,
            )
        self._claims[folder] = (n_bytes, device)
        try:
            yield
        finally:
            del self._claims[folder]


def claim(request: Request, most: int) -> int:
    """Bytes that a body will have at most: those that it says, else the limit."""
    told = request.headers.get("content-length", "")
    return min(int(told), most) if told.isdigit() else most


def _written(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_size for entry in entries)
    except OSError:
        return 0
