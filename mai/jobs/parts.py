"""Files that appear whole or not at all: written beside, made durable, then given their name.

A name is given once. Where two workers finish the same shard, the first keeps the name, the second's work is dropped.
"""

from __future__ import annotations

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mai.errors import MaiError

FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
"""What the system says when there is no room: disk full, file too large, quota."""


def temporary(folder: Path) -> Path:
    """A name in `folder` that nobody else has."""
    return folder / f".{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp"


def durable(path: Path) -> None:
    """Have the system put a file's bytes on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _durable_folder(folder: Path) -> None:
    if os.name == "posix":  # Windows cannot open a folder
        durable(folder)


def give_name(part: Path, final: Path) -> bool:
    """Make `part` durable and give it its final name, unless another has it.

    Returns:
        False if `final` was there; `part` is removed then.
    """
    durable(part)
    try:
        os.link(part, final)
    except FileExistsError:
        part.unlink()
        return False
    except OSError as error:
        if error.errno in FULL:
            raise
        if final.exists():  # no hard links here (some network and FAT file systems)
            part.unlink()
            return False
        part.replace(final)
    else:
        part.unlink()
    _durable_folder(final.parent)
    return True


def write_json(path: Path, value: Any) -> bool:
    """Write a small file whole; False if one of that name was there."""
    part = temporary(path.parent)
    part.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return give_name(part, path)


@contextmanager
def room_needed(folder: Path) -> Iterator[None]:
    """Say of a full disk what a person can do about it.

    Raises:
        MaiError: there is no room left.
    """
    try:
        yield
    except OSError as error:
        if (
            error.errno not in FULL
            and "No space left" not in str(error)
            and "File too large" not in str(error)
        ):
            raise
        raise MaiError(
            f"There is no room left in {folder} ({os.strerror(error.errno) if error.errno else error}). "
            "What is finished is kept: make room, then run the same command again."
        ) from error
