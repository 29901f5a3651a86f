"""What one client may hold of what the service has for all, so that nobody is locked out by one.

A client is a key, or an address where there are no keys.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Iterator

from starlette.requests import Request

from mai.serve.refusal import Refusal

IPV6_PREFIX = 64
"""Bits of an IPv6 address that name a network; within it one machine may call itself as it likes (RFC 4291, 2.5.4)."""


class Share:
    """Places of one kind, counted by client.

    Args:
        n_all: places for all.
        share: of them that one client may have; 1: all, and none is refused here.
        what: they are for, in the plural: `jobs`.
        retry_s: seconds after which a client that has all of its places may try again.
        least: places that a client may have however small its share is.
    """

    def __init__(self, n_all: int, share: float, what: str, retry_s: float, least: int = 1) -> None:
        self._most = None if share >= 1 else max(least, int(n_all * share))
        self._what, self._retry_s = what, retry_s
        self._held: Counter[str] = Counter()

    @contextlib.contextmanager
    def hold(self, client: str, n: int = 1) -> Iterator[None]:
        """Hold places of a client.

        Raises:
            Refusal: it would have more than its share.
        """
        if self._most is not None and self._held[client] + n > self._most:
            raise Refusal(
                "client_share",
                f"{self._held[client]} of your {self._what} are being taken or waiting already, and {self._most} is "
                f"the most that one client may have at a time. Try again in about {self._retry_s:g} s.",
                self._retry_s,
            )
        self._held[client] += n
        try:
            yield
        finally:
            self._held[client] -= n
            if not self._held[client]:
                del self._held[client]


def client_of(request: Request) -> str:
    """Whose share a request takes: its key's, its address's, its network's in IPv6."""
    caller = str(request.scope["mai_caller"])
    try:
        address = ipaddress.ip_address(caller)
    except ValueError:  # a key, or no address at all
        return caller
    if isinstance(address, ipaddress.IPv4Address):
        return caller
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_PREFIX), strict=False))
