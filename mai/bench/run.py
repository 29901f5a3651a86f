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

import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from mai.bench import external as externals
from mai.bench import scorers
from mai.bench.assemble import Assembly
from mai.bench.cache import Key, ScoreCache
from mai.bench.plan import Plan
from mai.bench.work import CHUNK, Done, Task, made, one_thread, read_row, work
from mai.data.facts import FileFacts
from mai.data.labelled import LabelledSet, Row
from mai.data.processes import pool
from mai.errors import DataError, ImageError, UsageError


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
        return Assembly(self).report()

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
        if self.plan.with_floors:
            for protocol in self.rows:
                self._recall_facts(protocol)
        by_file: dict[str, tuple[Row, dict[tuple[str, str], list[int]]]] = {}
        for cell in self.plan.cells():
            for row in self.rows[cell[0]]:
                if row.file in self.broken:
                    continue
                place = (self.shas[row.file], row.view or "")
                lacking = [n for n in range(len(self.scorers)) if place not in known[n, cell]]
                entry = by_file.setdefault(row.file, (row, {}))
                lacks_facts = self.plan.with_floors and cell[0] not in self.facts.get(row.file, {})
                if lacking or (lacks_facts and cell[1] == "none"):
                    entry[1][cell] = lacking
        todo = [(i, row, missing) for i, (row, missing) in enumerate(by_file.values()) if missing]
        tasks = [
            Task(todo[i : i + CHUNK], self.plan.detectors, self.plan.seed, self.plan.with_floors)
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
                self.facts.setdefault(row.file, {}).update(done.facts)
                self.cache.write_facts(done.sha, row.view or "", done.facts)
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

    def _recall_facts(self, protocol: str) -> None:
        known = self.cache.read_facts(protocol)
        for row in self.rows[protocol]:
            found = known.get((self.shas.get(row.file, ""), row.view or ""))
            if found is not None:
                self.facts.setdefault(row.file, {})[protocol] = found

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
