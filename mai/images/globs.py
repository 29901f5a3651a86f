"""Paths that match a pattern, as a shell finds them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path


def is_pattern(text: str) -> bool:
    """True if a text has a sign of a pattern."""
    return any(sign in text for sign in "*?[")


def matches(pattern: str, hidden: bool) -> Iterator[str]:
    """Paths that match a pattern with `*`, `?`, `[...]` and `**`, sorted within each folder.

    Args:
        pattern: see above.
        hidden: also names that begin with a dot, where the pattern does not say so itself.
    """
    anchor = Path(pattern).anchor
    parts = Path(pattern).parts[1:] if anchor else Path(pattern).parts
    yield from _expand(anchor, parts, hidden, set())


def _expand(base: str, parts: tuple[str, ...], hidden: bool, seen: set[tuple[int, int]]) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        if rest:
            yield from _expand(base, rest, hidden, seen)
        for name in _names(base, hidden):
            inner = os.path.join(base, name)  # noqa: PTH118  # Path would drop a leading './'
            if not os.path.isdir(inner):  # noqa: PTH112
                if not rest:
                    yield inner
            elif is_new(inner, seen):
                yield from _expand(inner, parts, hidden, seen)
    elif is_pattern(part):
        for name in _names(base, hidden, part):
            yield from _expand(os.path.join(base, name), rest, hidden, seen)  # noqa: PTH118
    elif os.path.lexists(inner := os.path.join(base, part)):  # noqa: PTH118
        yield from _expand(inner, rest, hidden, seen)


def _names(folder: str, hidden: bool, pattern: str = "*") -> list[str]:
    """Sorted names in a folder that match; none if it cannot be read, as in a shell."""
    try:
        names = [entry.name for entry in os.scandir(folder or ".")]
    except OSError:
        return []
    keep_hidden = hidden or pattern.startswith(".")
    names = [name for name in names if keep_hidden or not name.startswith(".")]
    return sorted((name for name in names if fnmatch.fnmatchcase(name, pattern)), key=os.fsencode)


def is_new(folder: str, seen: set[tuple[int, int]]) -> bool:
    """True the first time a folder is reached; this is also what ends a loop of links.

    Raises:
        OSError: the folder is gone or may not be asked.
    """
    facts = Path(folder).stat()
    key = (facts.st_dev, facts.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True
