"""`mai bench run`: labelled pictures x protocols x perturbations x detectors -> figures.

A picture's file is decoded once; each protocol and perturbation is made once for all detectors, in worker processes of
one thread each. Every number goes into a cache (cache.py), so a killed run goes on where it was, and the same run again
only reads. Protocols:

    native    the stored file
    aligned   both classes through the same drawn square window, size, codec and quality (mai/data/augment.py)
    web       rows of view `web`: pictures as people have them, as stored

`none` is measured under every protocol; the other perturbations under one of them (`sweep_on`).
"""

from __future__ import annotations

import datetime
import math
import os
import platform
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai import __version__
from mai.bench import external as externals
from mai.bench import floors, scorers
from mai.bench.cache import Key, ScoreCache
from mai.bench.figures import LEAST_GROUP, Pictures, measure, stability
from mai.bench.perturb import parse
from mai.data.facts import FileFacts, read_facts
from mai.data.labelled import LabelledSet, Row
from mai.data.processes import pool
from mai.errors import DataError, ImageError, UsageError
from mai.machine import n_cpus

if TYPE_CHECKING:
    from mai.types import Pixels

SCHEMA = "mai.bench/1"
CHUNK = 8
"""Rows that a worker takes at a time, and that are at most done again after a kill."""

ALIGNED_PX = 448
"""Side of an aligned whole file, in pixels: within the 448..576 px that people have in their hands."""

VIEW_PX = {"crop": 160, "whole": 224}
"""Side of aligned rows that are views already: what the default network takes of each kind."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        detectors: specs for scorers.load.
        protocols: of native, aligned, web.
        perturbations: beside `none`.
        sweep_on: protocol that they are measured under.
        externals: other programs.
        thresholds: detector's name -> threshold in place of its own.
        n_workers: processes.
        n_draws: of each bootstrap.
        with_floors: also measure the leakage floors.
        seed: of perturbations.
    """

    detectors: tuple[str, ...]
    protocols: tuple[str, ...] = ("native", "aligned")
    perturbations: tuple[str, ...] = ()
    sweep_on: str = "aligned"
    externals: tuple[scorers.External, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)
    n_workers: int = 1
    n_draws: int = 500
    with_floors: bool = True
    seed: int = 0

    def cells(self) -> list[tuple[str, str]]:
        """(protocol, perturbation) pairs, in order."""
        pairs = [(protocol, "none") for protocol in self.protocols]
        return pairs + [(self.sweep_on, name) for name in self.perturbations if name != "none"]


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


class Run:
    """One benchmark: `Run(plan, labelled, cache).result()`."""

    def __init__(self, plan: Plan, labelled: LabelledSet, cache: ScoreCache, quiet: bool = False) -> None:
        self.plan, self.labelled, self.cache, self.quiet = plan, labelled, cache, quiet
        self.scorers: list[scorers.Scorer] = [scorers.load(spec) for spec in plan.detectors]
        names = [s.name for s in self.scorers] + [e.name for e in plan.externals]
        if len(set(names)) != len(names):
            raise UsageError(f"Two detectors have one name: {', '.join(names)}.")
        unknown = sorted(set(plan.thresholds) - set(names))
        if unknown:
            raise UsageError(f"--threshold names no detector of this run: {', '.join(unknown)}.")
        self.rows = {protocol: self._rows_of(protocol) for protocol in {p for p, _ in plan.cells()}}
        self.broken: dict[str, str] = {}
        self.shas: dict[str, str] = {}
        self.facts: dict[str, dict[str, tuple[FileFacts, tuple[float, ...]]]] = {}
        self.n_measured = 0
        self.seconds = 0.0
        self.external_cpu: dict[str, tuple[float, int]] = {}

    def _rows_of(self, protocol: str) -> list[Row]:
        rows = [row for row in self.labelled.rows if (row.view == "web") == (protocol == "web")]
        if not rows:
            raise UsageError(
                f"'{self.labelled.name}' has no rows for the protocol '{protocol}'"
                + (" (none of view web)." if protocol == "web" else ".")
            )
        return rows

    def result(self) -> dict[str, Any]:
        """Measure what is missing and return the report as plain JSON values.

        Raises:
            DataError: no picture can be read, a score is no number, a worker died.
        """
        started = time.perf_counter()
        self._hash_all()
        self._measure_missing()
        for other in self.plan.externals:
            self._run_external(other)
        self.seconds = time.perf_counter() - started
        return self._report()

    def _hash_all(self) -> None:
        """Content hashes, the cache's keys: read once, in this process (a tenth of decoding)."""
        import hashlib

        for rows in self.rows.values():
            for row in rows:
                if row.file not in self.shas and row.file not in self.broken:
                    try:
                        data = row.data
                        content = data if data is not None else Path(row.file).read_bytes()
                        self.shas[row.file] = hashlib.sha256(content).hexdigest()
                    except OSError as error:
                        self.broken[row.file] = f"It cannot be read: {error.strerror}."

    def _measure_missing(self) -> None:
        known = {
            (number, cell): self.cache.read(scorer.key, *cell)
            for number, scorer in enumerate(self.scorers)
            for cell in self.plan.cells()
        }
        by_file: dict[str, tuple[Row, dict[tuple[str, str], list[int]]]] = {}
        for cell in self.plan.cells():
            for row in self.rows[cell[0]]:
                if row.file in self.broken:
                    continue
                place = (self.shas[row.file], row.view or "")
                lacking = [n for n in range(len(self.scorers)) if place not in known[n, cell]]
                entry = by_file.setdefault(row.file, (row, {}))
                if lacking or (self.plan.with_floors and cell[1] == "none"):
                    entry[1][cell] = lacking
        todo = [(i, row, missing) for i, (row, missing) in enumerate(by_file.values()) if missing]
        facts_known = not self.plan.with_floors
        tasks = [
            Task(todo[i : i + CHUNK], self.plan.detectors, self.plan.seed, not facts_known)
            for i in range(0, len(todo), CHUNK)
        ]
        rows = {i: row for i, row, _ in todo}
        said = time.monotonic()
        for number, dones in enumerate(self._map(tasks)):
            fresh: list[tuple[Key, tuple[float, float]]] = []
            for done in dones:
                row = rows[done.index]
                if done.problem is not None:
                    self.broken[row.file] = done.problem
                    continue
                self.facts[row.file] = done.facts
                for detector, protocol, perturbation, value, seconds in done.values:
                    if not math.isfinite(value):
                        raise DataError(
                            f"{self.scorers[detector].name} gave {value} for {row.file} ({protocol}, {perturbation}): "
                            "not a number that can be measured."
                        )
                    key = (done.sha, row.view or "", self.scorers[detector].key, protocol, perturbation)
                    fresh.append((key, (value, seconds)))
            self.cache.write(fresh)
            self.n_measured += len(fresh)
            if not self.quiet and (time.monotonic() - said > 1 or number + 1 == len(tasks)):
                said = time.monotonic()
                print(
                    f"\r{min((number + 1) * CHUNK, len(todo)):,} of {len(todo):,} files",
                    end="",
                    file=sys.stderr,
                )
        if tasks and not self.quiet:
            print(file=sys.stderr)

    def _map(self, tasks: Sequence[Task]) -> Iterator[list[Done]]:
        if self.plan.n_workers <= 1 or len(tasks) < 2:
            yield from map(work, tasks)
            return
        try:
            with pool(self.plan.n_workers, one_thread) as workers:
                yield from workers.map(work, tasks)
        except BrokenProcessPool as error:
            raise DataError(
                "A worker died (out of memory?). What was measured is kept; use fewer --workers."
            ) from error

    def _run_external(self, other: scorers.External) -> None:
        import tempfile

        from PIL import Image

        for protocol, perturbation in self.plan.cells():
            known = self.cache.read(other.key, protocol, perturbation)
            lacking = [
                row for row in self.rows[protocol]
                if row.file not in self.broken and (self.shas[row.file], row.view or "") not in known
            ]  # fmt: skip
            for start in range(0, len(lacking), 200):
                with tempfile.TemporaryDirectory(prefix="mai-bench-") as folder:
                    files: dict[Path, Row] = {}
                    for i, row in enumerate(lacking[start : start + 200]):
                        try:
                            pixels, data, _ = read_row(row)
                        except ImageError as error:
                            self.broken[row.file] = str(error)
                            continue
                        seen, data = made(row, pixels, data, protocol, perturbation, self.plan.seed)
                        as_stored = protocol != "aligned" and perturbation == "none"
                        file = Path(folder) / f"{i:05}{Path(row.file).suffix if as_stored else '.png'}"
                        if as_stored:
                            file.write_bytes(data)
                        else:
                            Image.fromarray(seen).save(file, compress_level=1)
                        files[file] = row
                    scores, cpu_s = externals.run(other, list(files))
                    each = cpu_s / max(len(scores), 1)
                    total = self.external_cpu.get(other.name, (0.0, 0))
                    self.external_cpu[other.name] = (total[0] + cpu_s, total[1] + len(scores))
                    self.cache.write(
                        (
                            (
                                self.shas[files[f].file],
                                files[f].view or "",
                                other.key,
                                protocol,
                                perturbation,
                            ),
                            (v, each),
                        )
                        for f, v in scores.items()
                    )
                    self.n_measured += len(scores)

    def _scores(self, scorer: Any, cell: tuple[str, str]) -> tuple[Pictures, NDArray[np.float64], float]:
        """Pictures that have all their files' numbers, their scores, CPU seconds an image."""
        known = self.cache.read(scorer.key, *cell)
        raws: dict[str, dict[str, list[float]]] = {}
        rows: dict[str, Row] = {}
        lacking: set[str] = set()
        seconds = []
        for row in self.rows[cell[0]]:
            found = known.get((self.shas.get(row.file, ""), row.view or ""))
            if found is None or row.file in self.broken:
                lacking.add(row.image)
                continue
            rows.setdefault(row.image, row)
            raws.setdefault(row.image, {}).setdefault(row.view or "", []).append(found[0])
            seconds.append(found[1])
        names = [name for name in raws if name not in lacking or raws[name]]
        if not names:
            raise DataError(f"{scorer.name} has no score under {cell[0]}, {cell[1]}: {self._why_broken()}")
        facts = [rows[name] for name in names]
        has_sources = all(row.source for row in facts)
        who = Pictures(
            names,
            np.array([bool(row.label) for row in facts]),
            [row.source or row.image if has_sources else row.image for row in facts],
            [row.generator or "" for row in facts],
            has_sources,
        )
        return who, np.array([scorer.combine(raws[name]) for name in names]), float(np.mean(seconds))

    def _why_broken(self) -> str:
        return next(iter(self.broken.values()), "the detector answered for none")

    def _report(self) -> dict[str, Any]:
        detectors: dict[str, Any] = {}
        floors_of: dict[str, Any] = {}
        scores_of: dict[str, Any] = {}
        maps: dict[str, Any] = {}
        everyone: list[scorers.Scorer | scorers.External] = [*self.scorers, *self.plan.externals]
        for scorer in everyone:
            threshold = self.plan.thresholds.get(scorer.name, scorer.threshold)
            authentic = scorer.authentic if scorer.name not in self.plan.thresholds else None
            cells: list[dict[str, Any]] = []
            base: dict[str, tuple[Pictures, NDArray[np.float64]]] = {}
            by_generator: dict[tuple[str, str], dict[str, float]] = {}
            for protocol, perturbation in self.plan.cells():
                who, scores, seconds = self._scores(scorer, (protocol, perturbation))
                if perturbation == "none":
                    base[protocol] = (who, scores)
                n_draws = self.plan.n_draws if perturbation == "none" else min(200, self.plan.n_draws)
                cell = {
                    "protocol": protocol,
                    "perturbation": perturbation,
                    **measure(scores, who, threshold, authentic, n_draws),
                    "cpu_seconds_per_file": round(seconds, 5),
                }
                if perturbation == "none":
                    if self.plan.with_floors:
                        if protocol not in floors_of:
                            floors_of[protocol] = self._floors(protocol, who)
                        own = {**floors_of[protocol], "sources": floors.source_floor(scores, who)}
                        cell["floors"] = own
                        cell["within_floors"] = floors.within(cell.get("auroc"), own)
                        cell["within_floor"] = any(cell["within_floors"].values())
                    scores_of.setdefault(protocol, {})[scorer.name] = {
                        "images": [self.labelled.relative(n) for n in who.names],
                        "labels": who.labels.astype(int).tolist(),
                        "sources": who.units,
                        "scores": [round(float(s), 6) for s in scores],
                    }
                elif protocol in base:
                    cell["stability"] = self._stability(base[protocol], (who, scores), threshold, authentic)
                by_generator[perturbation, protocol] = {
                    g["name"]: g["called_synthetic"][0]
                    for g in cell["groups"]
                    if g["kind"] == "generator" and g["n"] >= LEAST_GROUP
                }
                if perturbation != "none":
                    cell.pop("groups")
                cells.append(cell)
            detectors[scorer.name] = {"key": scorer.key, "cells": cells}
            if self.plan.perturbations:
                maps[scorer.name] = self._generator_map(by_generator)
        return {
            "schema": SCHEMA,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "mai": __version__,
            "machine": f"{platform.machine()}, {n_cpus()} processors, Python {platform.python_version()}",
            "data": {
                "name": self.labelled.name,
                "fingerprint": self.labelled.fingerprint,
                "n_files": sum(len(rows) for rows in self.rows.values()),
                "broken": {self.labelled.relative(f): why for f, why in sorted(self.broken.items())},
            },
            "plan": {
                "protocols": list(self.plan.protocols),
                "perturbations": list(self.plan.perturbations),
                "sweep_on": self.plan.sweep_on,
                "seed": self.plan.seed,
                "n_draws": self.plan.n_draws,
            },
            "seconds": round(self.seconds, 2),
            "n_measured": self.n_measured,
            "memory_mb": _peak_mb(),
            "detectors": detectors,
            "scores": scores_of,
            "generator_map": maps,
        }

    def _generator_map(self, recall: dict[tuple[str, str], dict[str, float]]) -> dict[str, Any]:
        on = self.plan.sweep_on
        names = [name for name in ("none", *self.plan.perturbations) if (name, on) in recall]
        generators = sorted({g for name in names for g in recall[name, on]})
        return {
            "perturbations": names,
            "generators": generators,
            "recall": [[recall[name, on].get(g) for name in names] for g in generators],
        }

    @staticmethod
    def _stability(
        one: tuple[Pictures, NDArray[np.float64]],
        two: tuple[Pictures, NDArray[np.float64]],
        threshold: float,
        authentic: float | None,
    ) -> dict[str, Any]:
        place = {name: i for i, name in enumerate(one[0].names)}
        common = [i for i, name in enumerate(two[0].names) if name in place]
        before = one[1][[place[two[0].names[i]] for i in common]]
        return stability(before, two[1][common], threshold, authentic)

    def _floors(self, protocol: str, who: Pictures) -> dict[str, Any]:
        first: dict[str, tuple[FileFacts, tuple[float, ...]]] = {}
        for row in self.rows[protocol]:
            found = self.facts.get(row.file, {}).get(protocol)
            if found is not None and (row.image not in first or row.view == "whole"):
                first[row.image] = found
        chosen = [i for i, name in enumerate(who.names) if name in first]
        some = Pictures(
            [who.names[i] for i in chosen],
            who.labels[chosen],
            [who.units[i] for i in chosen],
            [who.generators[i] for i in chosen],
            who.has_sources,
        )
        if not chosen or some.labels.all() or not some.labels.any():
            return {}
        facts, sharp = zip(*(first[name] for name in some.names), strict=True)
        return floors.file_floors(list(facts), list(sharp), some)


def _peak_mb() -> float:
    import resource

    return round(
        max(resource.getrusage(w).ru_maxrss for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024,
        1,
    )


def check(labelled: LabelledSet, plan: Plan) -> Iterable[str]:
    """Sentences about what a set cannot show; each is also in the report by what is missing there."""
    counts = labelled.counts()
    for name in ("synthetic", "authentic"):
        if not counts[name]:
            yield f"'{labelled.name}' has no {name} picture: recall or specificity only, no accuracy, no AUROC."
    if not all(row.source for row in labelled.rows):
        yield f"'{labelled.name}' names no source for some pictures: intervals are over pictures and too narrow."
    if len(plan.protocols) and "aligned" not in plan.protocols:
        yield "Without the aligned protocol, formats and sizes may tell the classes apart: see the floors."
