"""Numbers in sentences."""

from __future__ import annotations


def counted(n: int, one: str, many: str = "") -> str:
    """A number with its noun: `1 epoch`, `2,000 epochs`, `1 batch`.

    Args:
        n: how many.
        one: the noun for one.
        many: for all other numbers; empty: with an s.
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"
