"""Looking at each file of a set once: can it be decoded, its facts, its hashes, what the training chain leaves."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from mai.data.facts import FileFacts, read_facts
from mai.data.labelled import Row, pair_of
from mai.data.near import difference_hash
from mai.data.processes import pool as pool_of
from mai.errors import DataError, ImageError, MissingExtraError, require

if TYPE_CHECKING:
    from numpy.random import Generator

    from mai.types import Pixels

CHAIN_PX = 200
"""Side of the square that the default chain makes, in pixels: what the shipped resnet takes."""

Progress = Callable[[int, int], None]


class Chain(Protocol):
    """What happens to pixels before a network sees them, ending in an encoded picture."""

    def __call__(self, pixels: Pixels, rng: Generator) -> tuple[Pixels, bytes]:
        """What the network sees, and the bytes it was decoded from."""
        ...


@dataclass(frozen=True, slots=True)
class Examined:
    """What one look found.

    Attributes:
        row: the file.
        facts: as stored; None if the header cannot be read.
        seen: facts of what the chain made of it; None without a chain or pixels.
        sha256: hex digest of the file; None if it cannot be read.
        hash: difference hash; None without pixels.
        status: of the image, `ok` or what went wrong.
        problem: the sentence about a status that is not `ok`.
    """

    row: Row
    facts: FileFacts | None = None
    seen: FileFacts | None = None
    sha256: str | None = None
    hash: int | None = None
    status: str = "ok"
    problem: str | None = None


def default_chain(size_px: int = CHAIN_PX) -> Chain:
    """The aligned protocol of mai.data.augment: drawn window, size, codec and quality.

    Raises:
        MissingExtraError: OpenCV is not installed.
    """
    require("cv2", "train", "The training chain of the audit")
    from mai.data.augment import aligned

    return partial(aligned, size_px=size_px)


def examine(row: Row, chain: Chain | None) -> Examined:
    """Look at one file. Draws of the chain come from the file's bytes, so two audits agree; a pair's, from its name."""
    from mai.data.augment import draw_name
    from mai.images.decode import decode, read
    from mai.images.find import Found

    facts: FileFacts | None = None
    sha256: str | None = None
    try:
        data = row.data
        image = read(Found(row.file, None if data is not None else Path(row.file), data, named=True))
        facts, sha256 = read_facts(image), image.info.sha256
        pixels = decode(image).pixels
        assert pixels is not None  # decode's promise
        pair = pair_of(row.image)
        seed = (
            int(sha256[:16], 16)
            if pair is None
            else zlib.crc32(draw_name(row.image).encode("utf-8", "replace"))
        )
        seen = _seen(chain, pixels, seed) if chain else None
    except ImageError as error:
        return Examined(row, facts, sha256=sha256, status=error.status, problem=str(error))
    except DataError as error:
        return Examined(row, status="not_readable", problem=str(error))
    return Examined(row, facts, seen, sha256, difference_hash(pixels))


def _seen(chain: Chain, pixels: Pixels, seed: int) -> FileFacts:
    from mai.images.decode import from_bytes

    return read_facts(from_bytes(chain(pixels, np.random.default_rng(seed))[1]))


def examine_all(
    rows: Sequence[Row], chain: Chain | None, chained: set[int], n_workers: int, progress: Progress | None
) -> list[Examined]:
    """Look at all files, in order.

    Args:
        rows: the files.
        chain: see Chain; None leaves it out.
        chained: indices of the rows that go through the chain.
        n_workers: processes; 1 works in this one.
        progress: called with files done and files in all.

    Raises:
        DataError: a decoder brought its whole process down.
    """
    tasks = ((row, chain if i in chained else None) for i, row in enumerate(rows))
    found: list[Examined] = []
    for examined in _map(tasks, n_workers if len(rows) >= 64 else 1):
        found.append(examined)
        if progress:
            progress(len(found), len(rows))
    return found


def _map(tasks: Iterator[tuple[Row, Chain | None]], n_workers: int) -> Iterator[Examined]:
    if n_workers <= 1:
        yield from map(_examine, tasks)
        return
    try:
        with pool_of(n_workers, _one_thread) as pool:
            yield from pool.map(_examine, tasks, chunksize=32)
    except BrokenProcessPool as error:
        raise DataError(
            "A process that decoded pictures died (out of memory?). Use fewer --workers."
        ) from error


def _examine(task: tuple[Row, Chain | None]) -> Examined:
    return examine(*task)


def _one_thread() -> None:
    """A process a core is enough; OpenCV would start as many threads in each."""
    try:
        require("cv2", "train", "").setNumThreads(1)
    except MissingExtraError:
        return
