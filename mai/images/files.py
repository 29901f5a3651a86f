"""Opening what a path names without waiting for it, and what the system says when that fails."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

from mai.errors import ImageError


def read_file(path: Path, max_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        ImageError: there is none, it may not be read, or it is larger than `max_bytes`. A FIFO, device,
            socket or folder is told by its mode and never waited for.
    """
    try:
        _check_regular(path.stat().st_mode)
        # O_NONBLOCK: between the two looks a FIFO may have taken the file's place.
        flags = (
            os.O_RDONLY
            | getattr(os, "O_NONBLOCK", 0)
            | getattr(os, "O_CLOEXEC", 0)
            | getattr(os, "O_BINARY", 0)
        )
        with open(os.open(path, flags), "rb", buffering=0) as stream:  # noqa: PTH123
            facts = os.fstat(stream.fileno())
            _check_regular(facts.st_mode)
            if facts.st_size > max_bytes:
                raise too_large(facts.st_size, max_bytes)
            data = _read_all(stream, facts.st_size, max_bytes)
    except (OSError, ValueError) as error:
        raise path_error(error) from error
    return data


def _read_all(stream: io.FileIO, expected: int, max_bytes: int) -> bytes:
    """All bytes, though the file may be growing, or of a kind (/proc) that states no size."""
    pieces: list[bytes] = []
    n_bytes = 0
    while piece := stream.read(max(expected - n_bytes, 0) + 2**16):
        pieces.append(piece)
        n_bytes += len(piece)
        if n_bytes > max_bytes:
            raise too_large(n_bytes, max_bytes)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_regular(mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kinds_of_file = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    what = kinds_of_file.get(stat.S_IFMT(mode), "something else")
    raise ImageError("not_a_file", f"This is {what}, not a file with a picture.")


def too_large(n_bytes: int, max_bytes: int) -> ImageError:
    """The error of a picture whose encoded bytes pass the limit."""
    return ImageError("too_large", f"The file has {n_bytes:,} bytes; the limit is {max_bytes:,}.")


def path_error(error: OSError | ValueError) -> ImageError:
    """What the system says about a path, as a status and a sentence."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return ImageError("not_found", "There is no such file. Check the path.")
    if isinstance(error, PermissionError):
        return ImageError("not_readable", "The file may not be read: no permission.")
    if isinstance(error, IsADirectoryError):
        return ImageError("not_a_file", "This is a folder, not a file.")
    if isinstance(error, OSError) and error.strerror:
        return ImageError("not_readable", f"The file cannot be read: {error.strerror}.")
    return ImageError("not_found", "This cannot be the path of a file.")
