"""Files that have an address in place of a path: `s3://`, `gs://`, `https://` and what else fsspec knows.

fsspec comes with the extra `scale`. Nothing is asked of the network unless an address was named, on the command line
or in a list that was named there.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from time import sleep
from typing import Any, BinaryIO, cast

from mai.errors import ImageError, MissingExtraError, require
from mai.images.files import too_large

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)

_TRIES = 3
_PAUSE_S = 0.5
"""Before the second try; doubled before the third."""

_BLOCK = 4 * 2**20
"""Bytes asked for at once of a shard."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a remote folder.

    Attributes:
        url: its address.
        size: in bytes, None where the server does not say.
    """

    url: str
    size: int | None


def scheme(text: str) -> str | None:
    """`s3`, `https` ... of an address, None for a path."""
    match = _ADDRESS.match(text)
    return match.group(1).lower() if match else None


def is_web(url: str) -> bool:
    """True for http and https, where an address is one file and `?` no pattern."""
    return scheme(url) in {"http", "https"}


def plain(url: str) -> str:
    """An address without what follows its path: `?width=3`, `#top`."""
    return re.split(r"[?#]", url, maxsplit=1)[0] if is_web(url) else url


def fetch(url: str, max_bytes: int) -> bytes:
    """The bytes of one file.

    Raises:
        ImageError: it is not there, may not be read, is larger than `max_bytes`, or the server does not answer.
    """
    system, path = _system(url)

    def whole() -> bytes:
        if is_web(url):  # a range would do, but servers that know none send all of it
            with system.open(path, "rb", block_size=0) as stream:
                pieces, n_bytes = [], 0
                while n_bytes <= max_bytes and (piece := stream.read(min(2**20, max_bytes + 1 - n_bytes))):
                    pieces.append(piece)
                    n_bytes += len(piece)
                return b"".join(pieces)
        try:
            return cast(bytes, system.cat_file(path, start=0, end=max_bytes + 1))
        except Exception:
            if system.info(path).get("size") == 0:  # of nothing there is no range
                return b""
            raise

    data = cast(bytes, _tried(url, whole))
    if len(data) > max_bytes:
        size = _size(system, path)
        raise too_large(max(size or 0, len(data)), max_bytes)
    return data


def head(url: str, n_bytes: int) -> bytes:
    """First bytes of a file, none of what cannot be read."""
    system, path = _system(url)
    try:
        return cast(bytes, system.cat_file(path, start=0, end=n_bytes))
    except Exception:
        return b""


def is_folder(url: str) -> bool:
    """True if the address is that of a folder or prefix.

    Raises:
        ImageError: nothing is there, or the server does not say.
    """
    if is_web(url):
        return False
    if url.endswith("/"):
        return True
    system, path = _system(url)
    return bool(_tried(url, lambda: system.info(path))["type"] == "directory")


def open_stream(url: str, seek: bool = False) -> BinaryIO:
    """A file, to be read from its start to its end.

    Args:
        url: its address.
        seek: it will be read at any place. Of a server that gives no parts the file is copied to disk first.

    Raises:
        ImageError: see fetch.
    """
    system, path = _system(url)
    if not is_web(url):
        stream = _tried(url, lambda: system.open(path, "rb", block_size=_BLOCK, cache_type="readahead"))
        return io.BufferedReader(stream, 2**20)
    if seek:
        stream = _tried(url, lambda: system.open(path, "rb", block_size=_BLOCK))
        try:
            stream.seek(max((stream.size or 0) - 1, 0))
            stream.read(1)
            stream.seek(0)
            return io.BufferedReader(stream, 2**20)
        except (ValueError, OSError):  # no parts of files there
            stream.close()
    stream = _tried(url, lambda: system.open(path, "rb", block_size=0))
    if not seek:
        return io.BufferedReader(stream, 2**20)
    copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115  # whoever opens the stream closes it
    with stream:
        shutil.copyfileobj(stream, copy, 2**20)
    copy.seek(0)
    return copy


def walk(url: str) -> Iterator[Listed]:
    """All files below a folder or prefix, page by page: no list of all of them is held.

    S3 gives them by the bytes of their names; elsewhere a folder's entries are sorted, one folder at a time.

    Raises:
        ImageError: the folder is not there, may not be listed, or the server does not answer.
    """
    system, path = _system(url)
    if hasattr(system, "call_s3"):
        yield from _s3_pages(system, url, path)
        return
    stack = [iter(_entries(system, url, path))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
        elif entry["type"] == "directory":
            stack.append(iter(_entries(system, url, entry["name"])))
        else:
            yield Listed(system.unstrip_protocol(entry["name"]), entry.get("size"))


def matching(url: str) -> Iterator[Listed]:
    """The files whose address matches a pattern with `*`, `?`, `[...]` and `**`, listed from its last plain folder on.

    Raises:
        ImageError: see walk.
    """
    require("fsspec", "scale", "Reading addresses")
    from fsspec.utils import glob_translate

    start = min(url.index(sign) for sign in "*?[" if sign in url)
    pattern = re.compile(glob_translate(url))
    for entry in walk(url[: url.rindex("/", 0, start) + 1]):
        if pattern.match(entry.url):
            yield entry


def _entries(system: Any, url: str, path: str) -> list[dict[str, Any]]:
    entries = _tried(url, lambda: system.ls(path, detail=True))
    inner = [e for e in entries if e["name"].rstrip("/") != path.rstrip("/")]  # some name the folder itself
    return sorted(inner, key=lambda e: str(e["name"]).encode("utf-8", "surrogateescape"))


def _s3_pages(system: Any, url: str, path: str) -> Iterator[Listed]:
    bucket, _, prefix = path.partition("/")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    asked: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    n_found = 0
    while True:
        page = _tried(url, lambda: system.call_s3("list_objects_v2", **asked))
        for entry in page.get("Contents", ()):
            n_found += 1
            if not entry["Key"].endswith("/"):  # a marker of a folder
                yield Listed(f"{scheme(url)}://{bucket}/{entry['Key']}", entry["Size"])
        if not page.get("IsTruncated"):
            break
        asked["ContinuationToken"] = page["NextContinuationToken"]
    if not n_found:
        raise ImageError("not_found", "There is nothing at this address. Check it.")


def _system(url: str) -> tuple[Any, str]:
    """The file system of an address, and what it calls the file.

    Raises:
        ImageError: fsspec knows no such scheme, or a package is missing.
    """
    try:
        system = _systems(scheme(url) or "file")
    except MissingExtraError as error:
        raise ImageError("unsupported", error.plain) from error
    except ValueError as error:
        raise ImageError(
            "unsupported", f"Addresses that begin with {scheme(url)}:// are not known."
        ) from error
    except ImportError as error:
        told = MissingExtraError(str(error.name or error), "scale", f"Reading {scheme(url)}://")
        raise ImageError("unsupported", told.plain) from error
    return system, system._strip_protocol(url)


@lru_cache(maxsize=8)
def _systems(name: str) -> Any:
    fsspec = require("fsspec", "scale", f"Reading {name}://")
    return fsspec.filesystem(name, use_listings_cache=False)


def _size(system: Any, path: str) -> int | None:
    try:
        return cast("int | None", system.info(path).get("size"))
    except Exception:
        return None


def _tried(url: str, ask: Any) -> Any:
    """The answer of a server, asked again if that failed in a way that may pass.

    Raises:
        ImageError: it failed for good.
    """
    for again in range(_TRIES):
        try:
            return ask()
        except FileNotFoundError as error:
            if not _is_silence(url, error):
                raise ImageError("not_found", "There is nothing at this address. Check it.") from error
            failure: BaseException = error.__cause__ or error
        except PermissionError as error:
            raise ImageError(
                "not_readable", "The server does not allow it: check the credentials."
            ) from error
        except Exception as error:  # each kind of server has errors of its own
            failure = error
        if again < _TRIES - 1 and type(failure).__name__ not in _FINAL:
            sleep(_PAUSE_S * 2**again)
        else:
            break
    text = (str(failure).strip().splitlines() or [""])[0][:200].rstrip(".")
    raise ImageError(
        "not_readable", f"{_host(url)} did not give it: {type(failure).__name__}: {text}."
    ) from failure


def _is_silence(url: str, error: FileNotFoundError) -> bool:
    """True where fsspec says 'not found' of a web server that did not answer, or answered something else than that."""
    cause = error.__cause__
    if not is_web(url) or cause is None or isinstance(cause, FileNotFoundError):
        return False
    return getattr(cause, "status", 0) not in {404, 410}


_FINAL = frozenset({"NoCredentialsError", "PartialCredentialsError", "InvalidURL", "NonHttpUrlClientError"})
"""Errors that asking again does not mend."""


def _host(url: str) -> str:
    """The scheme and host or bucket of an address, without a password."""
    name, _, rest = url.partition("://")
    return f"{name}://{rest.split('/', 1)[0].rpartition('@')[2]}"
