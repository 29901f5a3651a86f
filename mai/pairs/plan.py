"""The rows that are to become pairs: every authentic image looked at once, with its id, and why it is left out.

A row's id is that of the file's bytes, so the same picture has the same id, seed and generator wherever it lies.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mai.data.labelled import Row
from mai.data.near import difference_hash, near_duplicate_groups
from mai.data.processes import pool
from mai.errors import DataError, ImageError, UsageError, require
from mai.jobs.work import Watch
from mai.pairs.filters import is_blank
from mai.pairs.settings import Settings

FILE = "plan.parquet"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Planned:
    """One authentic image.

    Attributes:
        id: 16 hex digits of the sha256 of its bytes; `-2`, `-3` ... for further copies.
        file: path, or the id of a cell in a table.
        source: unit of splitting; the id where the set names none.
        split: as the set says.
        content: as the set says.
        format: of the file, `JPEG`.
        width: in pixels.
        height: in pixels.
        sha256: of its bytes.
        status: `ok`, or why it is left out.
        message: the sentence about a status that is not `ok`.
    """

    id: str
    file: str
    source: str
    split: str | None
    content: str | None
    format: str | None
    width: int
    height: int
    sha256: str
    status: str
    message: str | None


def authentic_rows(where: str) -> list[Row]:
    """Authentic images of a place, in stable order.

    Args:
        where: a labelled set as read_set takes it (its authentic rows are used, one view a picture, the whole one if
            there is one), or a folder of images.

    Raises:
        UsageError: there is nothing.
    """
    from mai.data.sources import read_set

    try:
        rows = [row for row in read_set(where, one_class=True).rows if row.label == 0]
    except DataError:
        if where.startswith("hub:") or not Path(where).is_dir():
            raise
        rows = [Row(file=str(path), label=0) for path in _images(Path(where))]
    best: dict[str, Row] = {}
    for row in rows:
        known = best.get(row.image)
        if known is None or (known.view not in {None, "whole"} and row.view in {None, "whole"}):
            best[row.image] = row
    if not best:
        raise UsageError(f"'{where}' holds no authentic image.")
    return list(best.values())


def _images(folder: Path) -> Iterator[Path]:
    from mai.images.find import find

    for found in find([str(folder)]):
        if found.error is None and found.file is not None:
            yield Path(found.file)


@dataclass(frozen=True, slots=True)
class _Look:
    sha256: str
    format: str | None
    width: int
    height: int
    hash: int | None
    status: str
    message: str | None


def _look(row: Row) -> _Look:
    from mai.images.decode import decode, read
    from mai.images.find import Found

    sha256, kind, width, height = "", None, 0, 0
    try:
        data = row.data
        image = read(Found(row.file, None if data is not None else Path(row.file), data, named=True))
        sha256, kind = image.info.sha256, image.info.format
        width, height = image.info.width, image.info.height
        pixels = decode(image).pixels
        assert pixels is not None  # decode's promise
    except (ImageError, DataError) as error:
        if not sha256:  # an id all the same, from its name
            sha256 = hashlib.sha256(row.file.encode("utf-8", "surrogateescape")).hexdigest()
        return _Look(sha256, kind, width, height, None, "unreadable", str(error))
    if is_blank(pixels):
        return _Look(sha256, kind, width, height, None, "blank", "The image is of one colour.")
    return _Look(sha256, kind, pixels.shape[1], pixels.shape[0], difference_hash(pixels), "ok", None)


def make(settings: Settings, n_workers: int = 1, progress: Progress | None = None) -> list[Planned]:
    """Look at the images and plan the rows.

    Args:
        settings: of the run.
        n_workers: processes that decode.
        progress: called with images looked at and images in all.

    Raises:
        UsageError: there is no authentic image.
    """
    rows = authentic_rows(settings.authentic)
    if settings.limit and settings.limit < len(rows):
        chosen = sorted(random.Random(settings.seed).sample(range(len(rows)), settings.limit))
        rows = [rows[i] for i in chosen]
    looks: list[_Look] = []
    for look in _looks(rows, n_workers):
        looks.append(look)
        if progress:
            progress(len(looks), len(rows))
    groups = near_duplicate_groups([look.hash for look in looks])
    first: dict[int, int] = {}
    seen: dict[str, int] = {}
    planned: list[Planned] = []
    for i, (row, look, group) in enumerate(zip(rows, looks, groups, strict=True)):
        seen[look.sha256] = seen.get(look.sha256, 0) + 1
        copy = seen[look.sha256]
        name = look.sha256[:16] + (f"-{copy}" if copy > 1 else "")
        status, message = look.status, look.message
        if status == "ok":
            other = first.setdefault(group, i)
            if other != i:
                status, message = "near_duplicate", f"It is like {Path(rows[other].file).name}."
            elif copy > 1:
                status, message = "near_duplicate", "The same file is there twice."
        planned.append(
            Planned(
                name, row.file, row.source or name, row.split, row.content, look.format, look.width, look.height,
                look.sha256, status, message,
            )
        )  # fmt: skip
    return planned


def _looks(rows: Sequence[Row], n_workers: int) -> Iterator[_Look]:
    if n_workers <= 1 or len(rows) < 64:
        yield from map(_look, rows)
        return
    with pool(n_workers) as workers:
        yield from workers.map(_look, rows, chunksize=16)


def write(path: Path, planned: Sequence[Planned]) -> None:
    """Store a plan as Parquet."""
    pa = require("pyarrow", "pairs", "Making pairs")
    parquet = require("pyarrow.parquet", "pairs", "Making pairs")
    columns = {name: [getattr(row, name) for row in planned] for name in Planned.__dataclass_fields__}
    kinds = {name: pa.string() for name in columns} | {"width": pa.int32(), "height": pa.int32()}
    columns["file"] = [name.encode("utf-8", "surrogateescape") for name in columns["file"]]
    kinds["file"] = pa.binary()
    parquet.write_table(pa.table({name: pa.array(v, kinds[name]) for name, v in columns.items()}), path)


def n_shards(planned: Sequence[Planned], shard_rows: int) -> int:
    """Shards of a plan."""
    return -(-len(planned) // shard_rows)


@dataclass
class PlanTask:
    """Planning as a job of one shard, so that of many workers one plans and the others wait.

    Attributes:
        folder: of the pairs.
        settings: of the run.
        n_workers: processes that decode.
        progress: called with images looked at and images in all.
    """

    folder: Path
    settings: Settings
    n_workers: int = 1
    progress: Progress | None = None
    name: str = "plan"
    n_shards: int = 1

    def part(self, shard: int) -> Path:
        """See mai.jobs.work.Task."""
        return self.folder / FILE

    def make(self, shard: int, part: Path, partial: Path | None, watch: Watch) -> bool:
        """See mai.jobs.work.Task."""

        def looked(n: int, n_all: int) -> None:
            watch.rows(n_all)
            watch.step()
            if watch.is_stopping:
                raise _StoppedError
            if self.progress:
                self.progress(n, n_all)

        try:
            planned = make(self.settings, self.n_workers, looked)
        except _StoppedError:
            return False
        write(part, planned)
        return True


class _StoppedError(Exception):
    """Planning was interrupted."""


def load(folder: Path) -> list[Planned]:
    """The plan of a folder.

    Raises:
        UsageError: there is none yet.
    """
    parquet = require("pyarrow.parquet", "pairs", "Making pairs")
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"'{folder}' has no plan yet. Run: mai pairs caption")
    rows = parquet.read_table(path, partitioning=None).to_pylist()
    for row in rows:
        row["file"] = row["file"].decode("utf-8", "surrogateescape")
    return [Planned(**row) for row in rows]


class Pictures:
    """Reads the authentic images of a plan again.

    Args:
        where: the place that the plan was made of, asked only for pictures inside tables.
    """

    def __init__(self, where: str) -> None:
        self.where = where

    def read(self, planned: Planned) -> Any:
        """Pixels uint8 RGB (H, W, 3).

        Raises:
            ImageError: it cannot be read, or is another picture than at planning.
        """
        from mai.images.decode import decode, read
        from mai.images.find import Found

        path = Path(planned.file)
        data = None if path.is_file() else self._stored(planned.file)
        image = read(Found(planned.file, path if data is None else None, data, named=True))
        if image.info.sha256 != planned.sha256:
            raise ImageError("not_readable", "The file was changed since it was planned.")
        return decode(image).pixels

    def _stored(self, file: str) -> bytes | None:
        row = _by_file(self.where).get(file)
        return row.data if row else None


@lru_cache(maxsize=1)
def _by_file(where: str) -> dict[str, Row]:
    try:
        return {row.file: row for row in authentic_rows(where) if row.stored is not None}
    except (UsageError, DataError):
        return {}
