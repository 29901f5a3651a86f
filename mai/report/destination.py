"""Where a report goes: a stream, or a file that appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from mai.errors import UsageError


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file (UTF-8, LF) that takes its name only when all is written; an unfinished one is removed.

    Args:
        path: the file; one that stands there is replaced, and keeps its permissions. What is no regular file (a
            device, a named pipe) is written to as it goes, never replaced.

    Raises:
        UsageError: the file cannot be made there.
    """
    is_stream = path.exists() and not path.is_file()
    path = path if is_stream else path.resolve()  # through a link, which stays one
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        if is_stream:
            handle, part = os.open(path, os.O_WRONLY), None
        else:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
            part = Path(name)
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{path} cannot be written: {reason}. Give another --output.") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream
            stream.flush()
            if part:
                os.fsync(stream.fileno())
        if part:
            part.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            part.replace(path)
    except BaseException:
        if part:
            part.unlink(missing_ok=True)
        raise


def _umask() -> int:
    current = os.umask(0o022)  # there is no way to read it without setting it
    os.umask(current)
    return current
