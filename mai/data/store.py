"""The views of a labelled set, decoded once, side by side in one memory-mapped file.

Training reads every picture many times; decoding it once and small (a whole view with a short side of 256 px, one
native window of 256 px) makes an epoch cost only augmentation and network. Rows that are views already (column
`view`: crop, whole) are kept as they are. The file is made once for a set (by its fingerprint), written to a
temporary name and renamed, and shared by all worker processes through the page cache. Its name holds the rows in their
order with each file's size and time of change, so another order, or a file changed in place, makes another store.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mai.data.processes import pool as pool_of
from mai.errors import DataError, ImageError
from mai.images.views import shrink_short_side, square_at
from mai.machine import n_cpus

if TYPE_CHECKING:
    from mai.data.sources import LabelledSet, Row
    from mai.types import Pixels

VIEW_PX = 256
KINDS = ("whole", "crop")
FOR_EVALUATION = "web"
"""View that is only measured on; any name but this and KINDS is a whole file, as one without a view."""
VERSION = 2


@dataclass(frozen=True, slots=True)
class View:
    """One stored view.

    Attributes:
        row: index in the set's rows.
        kind: `whole` or `crop` (native resolution).
        offset: first byte in the file.
        height: rows.
        width: columns.
    """

    row: int
    kind: str
    offset: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Store:
    """All views of a set.

    Attributes:
        rows: the set's rows.
        views: stored views.
        pixels: the bytes of all views, uint8 (N,), memory-mapped.
        broken: file -> sentence, pictures that could not be read and are left out.
    """

    rows: tuple[Row, ...]
    views: tuple[View, ...]
    pixels: NDArray[np.uint8]
    broken: dict[str, str]

    def read(self, view: View) -> Pixels:
        """One view, uint8 RGB (H, W, 3), without copying."""
        n = view.height * view.width * 3
        return self.pixels[view.offset : view.offset + n].reshape(view.height, view.width, 3)


def cache_folder() -> Path:
    """Where stores live: MAI_CACHE, else the user's cache folder."""
    base = os.environ.get("MAI_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mai"


def decode_row(row: Row, least_px: int | None = None) -> Pixels:
    """Decode one row to uint8 RGB (H, W, 3).

    Args:
        row: which.
        least_px: short side at which a JPEG file may be decoded, see ViewPlan.least_px; None: at its own.

    Raises:
        ImageError: the file cannot be decoded.
    """
    from mai.images.decode import Limits, decode, decode_reduced, read, reduction
    from mai.images.find import Found

    limits = Limits()
    data = row.data  # read once: it may lie in a table
    found = Found(path=row.file, file=None if data is not None else Path(row.file), data=data, named=True)
    image = read(found, limits)
    if least_px and (n := reduction(image, least_px)) > 1:
        return decode_reduced(image, limits, n).reduced[n]
    pixels = decode(image, limits).pixels
    assert pixels is not None  # decode's promise
    return pixels


def views_of(row: Row, pixels: Pixels) -> list[tuple[str, Pixels]]:
    """The views of a row that are stored: their kind and uint8 RGB (H, W, 3).

    Args:
        row: says whether it is a view already.
        pixels: uint8 RGB (H, W, 3), decoded.
    """
    if row.view in KINDS:
        return [(row.view, pixels)]
    whole = shrink_short_side(pixels, VIEW_PX) if min(pixels.shape[:2]) > VIEW_PX else pixels
    return [("whole", whole), ("crop", square_at(pixels, VIEW_PX, 0.5, 0.5))]


def _job(task: tuple[int, Row]) -> tuple[int, list[tuple[str, Pixels]], str | None]:
    index, row = task
    try:
        return index, views_of(row, decode_row(row)), None
    except ImageError as error:
        return index, [], str(error)


def _decode_all(
    rows: tuple[Row, ...], n_workers: int
) -> Iterator[tuple[int, list[tuple[str, Pixels]], str | None]]:
    tasks = [(i, row) for i, row in enumerate(rows) if row.view != FOR_EVALUATION]
    if n_workers <= 1 or len(tasks) < 64:
        yield from map(_job, tasks)
        return
    with pool_of(n_workers) as pool:
        yield from pool.map(_job, tasks, chunksize=16)


def open_store(labelled: LabelledSet, n_workers: int = 0, quiet: bool = False) -> Store:
    """The store of a set, made first if it is not there.

    Rows of the view `web` are for evaluation and are not stored.

    Raises:
        DataError: no picture of the set can be read.
    """
    folder = cache_folder() / "stores"
    stem = folder / f"{labelled.fingerprint[:12]}-{_state_of_files(labelled.rows)}-v{VERSION}-{VIEW_PX}px"
    data_file, index_file = stem.with_suffix(".pixels"), stem.with_suffix(".json")
    if not index_file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _make(labelled, data_file, index_file, n_workers or n_cpus(), quiet)
    index = json.loads(index_file.read_text("utf-8"))
    views = tuple(View(*values) for values in index["views"])
    if not views:
        raise DataError(
            f"No picture of {labelled.name} can be read: {next(iter(index['broken'].values()), 'no rows')}"
        )
    pixels = np.memmap(data_file, np.uint8, mode="r")
    return Store(labelled.rows, views, pixels, index["broken"])


def _state_of_files(rows: tuple[Row, ...]) -> str:
    """A hash of the rows in their order, with size and time of change of each file."""
    state = hashlib.sha256()
    for row in rows:
        found = (0, 0)
        if Path(row.file).is_file():
            facts = Path(row.file).stat()
            found = (facts.st_size, facts.st_mtime_ns)
        state.update(f"{row.file}\0{row.label}\0{row.view}\0{found}\n".encode("utf-8", "surrogateescape"))
    return state.hexdigest()[:16]


def _make(labelled: LabelledSet, data_file: Path, index_file: Path, n_workers: int, quiet: bool) -> None:
    views: list[tuple[int, str, int, int, int]] = []
    broken: dict[str, str] = {}
    offset, n = 0, len(labelled.rows)
    temporary = data_file.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        for index, made, problem in _decode_all(labelled.rows, n_workers):
            if problem is not None:
                broken[labelled.rows[index].file] = problem
                file_name = labelled.rows[index].file
                told = file_name if file_name.isprintable() else ascii(file_name)
                print(f"left out: {told}: {problem}", file=sys.stderr)
            for kind, pixels in made:
                file.write(np.ascontiguousarray(pixels).tobytes())
                views.append((index, kind, offset, pixels.shape[0], pixels.shape[1]))
                offset += pixels.size
            if not quiet and index % 500 == 0:
                print(f"\rdecoding {labelled.name}: {index:,} of {n:,}", end="", file=sys.stderr, flush=True)
        file.flush()
        os.fsync(file.fileno())
    if not quiet:
        print(f"\rdecoded {labelled.name}: {n:,} files, {offset / 1e9:.2f} GB of views", file=sys.stderr)
    temporary.replace(data_file)
    temporary.write_text(json.dumps({"views": views, "broken": broken}), "utf-8")
    temporary.replace(index_file)
