"""One row of a benchmark in a worker process: decoded once, each picture made of it once for all detectors."""

from __future__ import annotations

import os
import sys
import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mai.bench import floors, scorers
from mai.bench.perturb import parse
from mai.data.facts import FileFacts, read_facts
from mai.data.labelled import Row
from mai.errors import DataError, ImageError

if TYPE_CHECKING:
    from mai.types import Pixels

CHUNK = 8
"""Rows that a worker takes at a time, and that are at most done again after a kill."""

ALIGNED_PX = 448
"""Side of an aligned whole file, in pixels: within the 448..576 px that people have in their hands."""

VIEW_PX = {"crop": 160, "whole": 224}
"""Side of aligned rows that are views already: what the default network takes of each kind."""


@dataclass(slots=True)
class Task:
    """Rows for a worker, and what of them is not in the cache yet: (row, detectors by cell)."""

    rows: list[tuple[int, Row, dict[tuple[str, str], list[int]]]]
    detectors: tuple[str, ...]
    seed: int
    with_facts: bool


@dataclass(slots=True)
class Done:
    """What a worker made of one row."""

    index: int
    sha: str = ""
    problem: str | None = None
    values: list[tuple[int, str, str, float, float]] = field(default_factory=list)
    facts: dict[str, tuple[FileFacts, tuple[float, ...]]] = field(default_factory=dict)


def made(
    row: Row, pixels: Pixels, data: bytes, protocol: str, perturbation: str, seed: int
) -> tuple[Pixels, bytes]:
    """A row's picture under a protocol and a perturbation, and the encoded bytes that the protocol ended in."""
    if protocol == "aligned":
        from mai.data.augment import aligned, draw_name

        rng = np.random.default_rng([0, zlib.crc32(f"{draw_name(row.image)}:{row.view or ''}".encode())])
        side = VIEW_PX.get(row.view or "", ALIGNED_PX)
        pixels, data = aligned(pixels, rng, side)
    if perturbation != "none":
        pixels = parse(perturbation)(pixels, row.image, seed)
    return pixels, data


_LOADED: dict[str, scorers.Scorer] = {}


def _scorer(spec: str) -> scorers.Scorer:
    if spec not in _LOADED:
        _LOADED[spec] = scorers.load(spec)
    return _LOADED[spec]


def work(task: Task) -> list[Done]:
    """Measure the missing cells of some rows; runs in a worker process."""
    return [_one(i, row, missing, task) for i, row, missing in task.rows]


def read_row(row: Row) -> tuple[Pixels, bytes, str]:
    """Pixels, encoded bytes and sha256 of one row.

    Raises:
        ImageError: it cannot be decoded.
    """
    from mai.images.decode import decode, read
    from mai.images.find import Found

    data = row.data
    image = decode(read(Found(row.file, None if data is not None else Path(row.file), data, named=True)))
    assert image.pixels is not None  # decode's promise
    assert image.data is not None  # read's promise
    assert image.info.sha256 is not None  # it hashes what it reads
    return image.pixels, image.data, image.info.sha256


def _one(index: int, row: Row, missing: dict[tuple[str, str], list[int]], task: Task) -> Done:
    done = Done(index)
    try:
        pixels, data, done.sha = read_row(row)
        if task.with_facts:
            for protocol in {protocol for protocol, _ in missing}:
                seen, encoded = made(row, pixels, data, protocol, "none", task.seed)
                done.facts[protocol] = (_facts(encoded), floors.sharpness(seen))
        for (protocol, perturbation), detectors in missing.items():
            if not detectors:
                continue
            seen, _ = made(row, pixels, data, protocol, perturbation, task.seed)
            for number in detectors:
                started = time.process_time()
                value = _scorer(task.detectors[number]).raw(seen, row.view)
                done.values.append((number, protocol, perturbation, value, time.process_time() - started))
    except (ImageError, DataError) as error:
        done.problem = str(error)
    return done


def _facts(encoded: bytes) -> FileFacts:
    from mai.images.decode import from_bytes

    return read_facts(from_bytes(encoded))


def one_thread() -> None:
    """A worker's start: one thread a process, so that workers do not wait for one another."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    cv2 = sys.modules.get("cv2")
    if cv2 is not None:
        cv2.setNumThreads(0)
