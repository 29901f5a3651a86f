"""Room on the disk for uploads: each takes its own as it comes, so that many at once do not fill the disk.

What a client says of a body's size, or does not say, takes nothing from others: only bytes that came do. One client's
bodies may take a share of what there is for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import disk_usage
from threading import Lock

from starlette.requests import Request

from mai.serve.limits import size
from mai.serve.refusal import Refusal

KEPT_BYTES = 64 * 2**20
"""Bytes that bodies leave free."""

STEP_BYTES = 256 * 2**10
"""Room is taken in steps as large as what is there, and as this at most: asking the disk before every piece would cost
more, larger steps would lie idle."""

RETRY_S = 10.0
"""Seconds after which a body that others left no room for may be tried again."""


class Claim:
    """The room of one body; see Room.hold."""

    def __init__(self, room: Room, folder: Path, kept: int, client: str) -> None:
        self._room, self._folder, self._kept = room, folder, kept
        self.client = client
        self.device = folder.stat().st_dev
        self.n_held = self.n_used = 0

    @property
    def n_ahead(self) -> int:
        """Bytes that are promised and not written."""
        return self.n_held - self.n_used

    def use(self, n_bytes: int) -> None:
        """Take room for bytes that are written next. May be called in any thread.

        Raises:
            Refusal: there is none, or the body is not wanted any more.
        """
        if self.n_used + n_bytes > self.n_held:
            step = min(STEP_BYTES, self.n_used)
            self._room.extend(self, self._folder, max(step, n_bytes - self.n_ahead), self._kept)
        self.n_used += n_bytes

    def settle(self) -> None:
        """All is there: give back what was taken ahead."""
        self.n_held = self.n_used


class Room:
    """What bodies have, and what was promised to those that are not all there. Threads may share it.

    Args:
        share: of what there is for all that the bodies of one client may take, 0..1.
    """

    def __init__(self, share: float = 1.0) -> None:
        self._share = share
        self._claims: set[Claim] = set()
        self._lock = Lock()

    @contextlib.contextmanager
    def hold(
        self, folder: Path, n_bytes: int = 0, kept: int = KEPT_BYTES, client: str = ""
    ) -> Iterator[Claim]:
        """Give a body room as it comes, all of it back at the end.

        Args:
            folder: where it goes; of this body alone.
            n_bytes: what it says of its size. Nothing is held for that, but a body that could not be stored is refused
                before it is sent.
            kept: bytes that stay free beside it.
            client: whose it is.

        Raises:
            Refusal: there is too little, with what was promised to others; more than the client's share.
        """
        claim = Claim(self, folder, kept, client)
        with self._lock:
            self._check(claim, folder, n_bytes, kept)
            self._claims.add(claim)
        try:
            yield claim
        finally:
            with self._lock:
                self._claims.discard(claim)

    def extend(self, claim: Claim, folder: Path, n_bytes: int, kept: int) -> None:
        """Promise more to a body.

        Raises:
            Refusal: there is too little; more than the client's share; the body's time is over.
        """
        with self._lock:
            if claim not in self._claims:  # a thread that fetches for a client who went away
                raise Refusal("stopping", "The request is over.")
            self._check(claim, folder, n_bytes, kept)
            claim.n_held += n_bytes

    def _check(self, claim: Claim, folder: Path, n_bytes: int, kept: int) -> None:
        others = [other for other in self._claims if other.device == claim.device and other is not claim]
        promised = claim.n_ahead + sum(other.n_ahead for other in others)
        free = disk_usage(folder).free
        lacking = n_bytes + kept + promised - free
        if lacking <= 0:
            self._check_share(claim, others, n_bytes, free - kept)
            return
        held = sum(other.n_held for other in others)
        if held >= lacking:
            raise Refusal(
                "uploads_wait",
                f"The service has {size(held)} of others at the moment, and its disk no room for more beside them. "
                f"Try again in about {RETRY_S:g} s.",
                RETRY_S,
            )
        raise Refusal(
            "disk_full",
            f"The service's disk has too little room: {size(lacking)} more would have to be free. Try again later, or "
            "send less at a time.",
            60.0,
        )

    def _check_share(self, claim: Claim, others: Sequence[Claim], n_bytes: int, free: int) -> None:
        """Refuse what is more than a client's share of the free room and what bodies have of it already."""
        if self._share >= 1:
            return
        most = int(self._share * (free + claim.n_used + sum(other.n_used for other in others)))
        own = sum(other.n_held for other in others if other.client == claim.client)
        if own + claim.n_held + n_bytes <= most:
            return
        told = (
            f"your other uploads and waiting jobs have {size(own)} already. Try again when they are over"
            if own
            else "this one is larger. Send less at a time, or try again later"
        )
        raise Refusal(
            "client_share",
            f"One client may take {size(max(most, 0))} of the service's disk at the moment, and {told}.",
            RETRY_S,
        )


def told_size(request: Request, most: int) -> int:
    """Bytes that a body says it has, at most a limit; 0 if it does not say."""
    told = request.headers.get("content-length", "")
    return min(int(told), most) if told.isdigit() else 0
