"""Bodies into files: each upload lies under a number of ours in a folder of its own, and goes with the request.

A client's name for a file is shown in the answer and used for nothing else.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from mai.serve.limits import Pace, pieces, size
from mai.serve.refusal import Refusal
from mai.serve.room import Claim

MAX_NAME_CHARS = 1000
"""Longest name that is shown."""

MAX_FREE = 64
"""Empty folders that wait for a request, at most."""

_NUMBERS = itertools.count(1)

MAX_HEADER_BYTES = 8192
"""Most bytes of the headers of one part."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may bring.

    Attributes:
        max_bytes: of the whole body.
        max_file_bytes: of one file.
        max_files: files.
        pace: how fast it must come.
    """

    max_bytes: int
    max_file_bytes: int
    max_files: int
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True, slots=True)
class Upload:
    """One file that came in.

    Attributes:
        name: what the client calls it.
        file: where it lies.
        n_bytes: its size.
    """

    name: str
    file: Path
    n_bytes: int


class Folders:
    """Folders that only this account can read, one a request, used again: to make and remove one costs as much as all
    else that is done with the disk for a picture, and the file system may let everybody wait for it.

    Args:
        parent: where they are.
    """

    def __init__(self, parent: Path) -> None:
        self.parent = parent
        self._free: list[Path] = []

    @contextmanager
    def one(self) -> Iterator[Path]:
        """An empty folder; what lies in it is gone at the end. After an error it is not used again: a thread that was
        not waited for may still write there."""
        folder = self._free.pop() if self._free else self._make()
        is_well = False
        try:
            yield folder
            is_well = len(self._free) < MAX_FREE
        finally:
            for name in os.listdir(folder):  # noqa: PTH208  # files of ours alone, and this is done for every request
                os.unlink(folder / name)  # noqa: PTH108
            if is_well:
                self._free.append(folder)
            else:
                with suppress(OSError):  # such a thread was quicker: it goes with the service's own folder
                    folder.rmdir()

    def _make(self) -> Path:
        folder = self.parent / str(next(_NUMBERS))
        folder.mkdir(mode=0o700)
        return folder


async def receive(request: Request, folder: Path, bounds: Bounds, room: Claim) -> list[Upload]:
    """Write the body's files into a folder.

    Args:
        request: multipart/form-data with files, or the bytes of one file under any other content type.
        folder: where they go.
        bounds: how much.
        room: of the body on the disk.

    Raises:
        Refusal: more than the bounds, too slow, no room; a form that is damaged, or has no file.
        ClientDisconnect: the client went away.
    """
    stream = pieces(request, bounds.max_bytes, bounds.pace)
    kind, options = _options(request.headers.get("content-type", ""))
    try:
        if kind == "multipart/form-data":
            boundary = options.get("boundary", "")
            if not boundary:
                raise Refusal("bad_request", "The form's Content-Type names no boundary.")
            form = _Form(folder, bounds, room)
            return await _read(form, stream, boundary.encode("latin-1", "replace"))
        name = shown(request.query_params.get("name", ""))
        with _Part(folder / "0", name, bounds.max_file_bytes, room) as part:
            async for piece in stream:
                part.write(piece)
    except OSError as error:
        raise Refusal(
            "disk_full", f"The upload could not be stored: {error.strerror or type(error).__name__}."
        ) from error
    if not part.n_bytes:
        raise Refusal("no_image", "The request has no body. Send a picture's bytes, or a form with files.")
    return [part.upload()]


def shown(name: str) -> str:
    """A client's name for a file, as it is shown: of a reasonable length, its end kept."""
    return name.replace("\\", "/").strip()[-MAX_NAME_CHARS:] or "<bytes>"


async def _read(form: _Form, stream: AsyncIterator[bytes], boundary: bytes) -> list[Upload]:
    try:
        parser = MultipartParser(boundary, form.callbacks())
        async for piece in stream:
            parser.write(piece)
        parser.finalize()
    except FormParserError as error:
        raise Refusal("bad_request", f"The form cannot be read: {str(error).rstrip('.')}.") from error
    finally:
        form.close()
    if not form.is_whole:
        raise Refusal("bad_request", "The form breaks off in the middle.")
    if not form.uploads:
        raise Refusal(
            "no_image", "The form has no file. Send pictures as `file` fields of multipart/form-data."
        )
    return form.uploads


class _Part:
    """One file while it is written.

    Raises:
        Refusal: it grows beyond the limit, or the disk has no room for it.
    """

    def __init__(self, file: Path, name: str, max_bytes: int, room: Claim) -> None:
        self.file, self.name, self.n_bytes = file, name, 0
        self._max_bytes, self._room = max_bytes, room
        self._stream: IO[bytes] = file.open("xb", buffering=0)

    def write(self, piece: bytes) -> None:
        self.n_bytes += len(piece)
        if self.n_bytes > self._max_bytes:
            raise Refusal(
                "body_too_large",
                f"The file '{self.name}' is larger than the {size(self._max_bytes)} that a picture may have. "
                "Send a smaller copy.",
            )
        self._room.use(len(piece))
        self._stream.write(piece)

    def upload(self) -> Upload:
        return Upload(self.name, self.file, self.n_bytes)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> _Part:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass
class _Form:
    """What the parser's callbacks gather. Fields that are no file are read over."""

    folder: Path
    bounds: Bounds
    room: Claim
    uploads: list[Upload] = field(default_factory=list)
    is_whole: bool = False
    _field: bytearray = field(default_factory=bytearray)
    _value: bytearray = field(default_factory=bytearray)
    _headers: dict[bytes, bytes] = field(default_factory=dict)
    _part: _Part | None = None

    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._headers_are_there,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def close(self) -> None:
        if self._part is not None:
            self._part.close()

    def _begin(self) -> None:
        self._headers = {}

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check_header()

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._field) + len(self._value) > MAX_HEADER_BYTES:
            raise Refusal("bad_request", "The form has a part with a header that is too long.")

    def _end_header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _headers_are_there(self) -> None:
        told = self._headers.get(b"content-disposition", b"").decode("utf-8", "replace")
        _, options = _options(told)
        if "filename" not in options:
            return
        n = len(self.uploads)
        if n >= self.bounds.max_files:
            raise Refusal(
                "too_many_files",
                f"The request has more than the {self.bounds.max_files} files that this service takes at a time. "
                "Send them in several requests, or as a job (POST /v1/jobs).",
            )
        name = shown(options["filename"])
        self._part = _Part(self.folder / str(n), name, self.bounds.max_file_bytes, self.room)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part is not None:
            self._part.write(data[start:end])

    def _end(self) -> None:
        if self._part is not None:
            self._part.close()
            self.uploads.append(self._part.upload())
            self._part = None

    def _finish(self) -> None:
        self.is_whole = True


def _options(text: str) -> tuple[str, dict[str, str]]:
    """The value of a header and its options, names in lower case."""
    value, options = parse_options_header(text.encode("utf-8", "replace"))
    return value.decode("latin-1"), {
        name.decode("latin-1").lower(): told.decode("utf-8", "replace") for name, told in options.items()
    }
