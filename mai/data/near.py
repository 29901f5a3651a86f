"""Near duplicates: 64-bit difference hashes, and the groups of hashes that differ in a few bits.

Source: N. Krawetz, Kind of like that, 2013 (the difference hash, dHash).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from mai.types import Pixels

MAX_BITS = 4
"""Hashes that differ in at most so many of 64 bits are near duplicates."""

_LEAST_ONES = 6
"""A hash with fewer ones or fewer zeros is that of a blank or a plain gradient, and says nothing."""

_BLOCK = 2048
_ONES = np.array([bin(i).count("1") for i in range(2**16)], np.uint8)


def difference_hash(pixels: Pixels) -> int:
    """64 bits: in a 9x8 picture in grey, is each pixel darker than its right neighbour.

    Args:
        pixels: uint8 RGB (H, W, 3) 0..255.
    """
    grey = Image.fromarray(pixels).resize((9, 8), Image.Resampling.BOX).convert("L")
    small = np.asarray(grey, np.int16)
    bits = (small[:, 1:] > small[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def says_something(value: int) -> bool:
    """False for the hash of a blank picture or a plain gradient, which is near to that of any other."""
    return _LEAST_ONES <= value.bit_count() <= 64 - _LEAST_ONES


def near_duplicate_groups(hashes: Sequence[int | None], max_bits: int = MAX_BITS) -> list[int]:
    """The number of the group that each picture is in: chains of hashes at most `max_bits` apart.

    None, and hashes of blank pictures, are alone in their group. Two hashes that differ in at most k of 64 bits
    agree in at least one of k + 1 pieces, so only pictures that share a piece are compared.

    Args:
        hashes: of `difference_hash`.
        max_bits: 0..15.

    Returns:
        One number a hash; equal numbers are one group, numbered by first member.
    """
    groups = Groups(len(hashes))
    first: dict[int, int] = {}
    for i, value in enumerate(hashes):
        if value is not None and says_something(value):
            groups.join(first.setdefault(value, i), i)
    members = np.fromiter(first.values(), np.int64, len(first))
    values = np.fromiter(first.keys(), np.uint64, len(first))
    for left, right in _near_pairs(values, max_bits):
        groups.join(int(members[left]), int(members[right]))
    return groups.numbers()


def _near_pairs(values: NDArray[np.uint64], max_bits: int) -> Iterator[tuple[int, int]]:
    edges = np.linspace(0, 64, max_bits + 2).astype(int)
    for low, high in pairwise(edges):
        pieces = (values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(pieces, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(pieces[order]) != 0, True])
        for start, stop in pairwise(starts):
            if stop - start > 1:
                yield from _near_in(values, order[start:stop], max_bits)


def _near_in(
    values: NDArray[np.uint64], index: NDArray[np.int64], max_bits: int
) -> Iterator[tuple[int, int]]:
    for start in range(0, len(index), _BLOCK):
        rows = index[start : start + _BLOCK]
        for begin in range(start, len(index), _BLOCK):
            columns = index[begin : begin + _BLOCK]
            differ = values[rows][:, None] ^ values[columns][None, :]
            n_bits = _ONES[differ.view(np.uint16)].reshape(*differ.shape, 4).sum(-1)
            for i, j in np.argwhere(n_bits <= max_bits):
                if rows[i] < columns[j]:
                    yield int(rows[i]), int(columns[j])
                elif begin > start:
                    yield int(columns[j]), int(rows[i])


class Groups:
    """Union-find over 0..n-1."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, i: int) -> int:
        """The smallest member of i's group."""
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Make one group of the groups of i and j."""
        a, b = sorted((self.find(i), self.find(j)))
        self._parent[b] = a

    def join_equal(self, keys: Iterable[str | None]) -> None:
        """Join all that have the same key; None is no key."""
        first: dict[str, int] = {}
        for i, key in enumerate(keys):
            if key is not None:
                self.join(first.setdefault(key, i), i)

    def numbers(self) -> list[int]:
        """The number of each member's group, counted by first member."""
        seen: dict[int, int] = {}
        return [seen.setdefault(self.find(i), len(seen)) for i in range(len(self._parent))]
