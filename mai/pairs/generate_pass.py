"""The second pass over the shards: a synthetic image for each caption, and the two as a pair."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mai.errors import ImageError
from mai.jobs.work import Watch
from mai.pairs import plan as plans
from mai.pairs import settings as kept
from mai.pairs import store
from mai.pairs.filters import is_blank
from mai.pairs.generate import Generator, Made, Request, described
from mai.pairs.match import MAX_UPSCALE, Target, fit, fit_synthetic, png, region, target
from mai.pairs.registry import Entry, seed_of
from mai.pairs.store import Row

if TYPE_CHECKING:
    from mai.pairs.plan import Planned

N_AHEAD = 2
"""Batches that are read while one is made."""


@dataclass(slots=True)
class _Job:
    """A row on its way to a pair."""

    planned: Planned
    caption: Row
    entry: Entry
    target: Target
    request: Request | None = None
    problem: tuple[str, str] | None = None


@dataclass
class GenerateTask:
    """The second pass.

    Attributes:
        folder: of the pairs.
        settings: of the run.
        planned: all rows.
        open: makes a generator of an entry.
        batch: pictures at once; which rows share a batch depends on the plan alone.
    """

    folder: Path
    settings: kept.Settings
    planned: Sequence[Planned]
    open: Callable[[Entry], Generator]
    batch: int = 1
    name: str = "generate"
    _generators: dict[str, Generator] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._mix = self.settings.mix
        self._pictures = plans.Pictures(self.settings.authentic)

    @property
    def n_shards(self) -> int:
        """See Task."""
        return plans.n_shards(self.planned, self.settings.shard_rows)

    def part(self, shard: int) -> Path:
        """See Task."""
        return store.pair_part(self.folder, shard, self.n_shards)

    def make(self, shard: int, part: Path, partial: Path | None, watch: Watch) -> bool:
        """See Task."""
        size = self.settings.shard_rows
        planned = self.planned[shard * size : (shard + 1) * size]
        watch.rows(len(planned))
        captions = {
            row["id"]: row for row in store.read_rows(store.caption_part(self.folder, shard, self.n_shards))
        }
        done: dict[str, Row | Future[Row]] = dict(store.taken_over(partial))
        watch.step(len(done))
        jobs = [job for row in planned if (job := self._job(row, captions.get(row.id), done, watch))]
        batches = [[job for job in batch if job.planned.id not in done] for batch in self._batches(jobs)]
        batches = [batch for batch in batches if batch]
        # One thread reads the next pictures, one encodes the last; both leave the interpreter free for the generator.
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as encoder:
            ahead = [reader.submit(self._read, batch) for batch in batches[:N_AHEAD]]
            for i, batch in enumerate(batches):
                if watch.is_stopping:
                    break
                ahead[i].result()
                if i + N_AHEAD < len(batches):
                    ahead.append(reader.submit(self._read, batches[i + N_AHEAD]))
                self._make(batch, done, encoder)
                watch.step(len(batch))
            rows = [
                row if isinstance(row, dict) else row.result()
                for one in planned
                if (row := done.get(one.id)) is not None
            ]
        if rows:
            store.write_rows(part, rows, store.pair_schema())
        return len(rows) == len(planned)

    def _job(
        self, row: Planned, caption: Row | None, done: dict[str, Row | Future[Row]], watch: Watch
    ) -> _Job | None:
        """The job of a row; one that cannot become a pair is done at once."""
        caption = caption or {"status": "caption_failed", "message": "It has no caption.", "caption": None}
        unit = row.source if self._mix.held_out else row.id
        entry = self._mix.of(unit)
        status, message = caption["status"], caption["message"]
        if entry.kind == "autoencoder" and status.startswith("caption_"):
            status, message = "ok", None  # a round trip needs no prompt
        where = target(max(1, row.width), max(1, row.height), entry)
        if status == "ok" and where.upscale > MAX_UPSCALE and not self.settings.keep_small:
            status = "too_small"
            message = f"{row.width}x{row.height} would become {where.width}x{where.height}."
        job = _Job(row, caption, entry, where)
        if status != "ok" and row.id not in done:
            done[row.id] = self._row(job, status, message)
            watch.step()
        return job if status == "ok" else None

    def _batches(self, jobs: Sequence[_Job]) -> list[list[_Job]]:
        """Jobs of one generator and size together, in the order of the plan."""
        groups: dict[tuple[str, int, int], list[_Job]] = {}
        for job in jobs:
            groups.setdefault((job.entry.name, job.target.width, job.target.height), []).append(job)
        return [
            group[start : start + self.batch]
            for group in groups.values()
            for start in range(0, len(group), self.batch)
        ]

    def _read(self, batch: Sequence[_Job]) -> None:
        for job in batch:
            row, where = job.planned, job.target
            try:
                authentic = fit(self._pictures.read(row), where)
            except ImageError as error:
                job.problem = "unreadable", str(error)
                continue
            seed = seed_of(row.id, self.settings.seed)
            mask = region(where.width, where.height, seed) if self.settings.edit == "region" else None
            caption = str(job.caption.get("caption") or "")
            job.request = Request(row.id, caption, seed, where.width, where.height, authentic, mask)

    def _make(
        self, batch: Sequence[_Job], done: dict[str, Row | Future[Row]], encoder: ThreadPoolExecutor
    ) -> None:
        ready = [job for job in batch if job.request is not None]
        for job in batch:
            if job.problem is not None:
                done[job.planned.id] = self._row(job, *job.problem)
        if not ready:
            return
        generator = self._generator(ready[0].entry)
        began = time.monotonic()
        made = generator.make([job.request for job in ready if job.request])
        each = (time.monotonic() - began) / len(ready)
        for job, one in zip(ready, made, strict=True):
            done[job.planned.id] = encoder.submit(self._finished, job, one, generator, each)

    def _generator(self, entry: Entry) -> Generator:
        """The generator of an entry; only one is kept in memory."""
        if entry.name not in self._generators:
            self._generators.clear()
            self._generators[entry.name] = self.open(entry)
        return self._generators[entry.name]

    def _finished(self, job: _Job, made: Made, generator: Generator, seconds: float) -> Row:
        request = job.request
        assert request is not None  # only rows with one are made
        status, message, pixels = made.status, made.message, made.pixels
        if pixels is not None:
            pixels = fit_synthetic(pixels, job.target)
            if is_blank(pixels) and not is_blank(request.authentic):
                status, message, pixels = "black", "The generator returned a blank picture.", None
        row = self._row(job, status, message)
        row |= {"generator": described(generator, request), "cost": made.cost, "seconds": seconds}
        if pixels is not None:
            name = job.planned.id
            row |= {
                "kind": "AI-edited" if self.settings.edit != "none" else "AI-generated",
                "authentic": store.picture(png(request.authentic), f"{name}.authentic.png"),
                "synthetic": store.picture(png(pixels), f"{name}.synthetic.png"),
                "mask": None if request.mask is None else store.picture(png(request.mask), f"{name}.mask.png"),
            }  # fmt: skip
        return row

    def _row(self, job: _Job, status: str, message: str | None) -> Row:
        planned, where = job.planned, job.target
        left, top, right, bottom = where.crop
        is_held_out = job.entry.name in self._mix.held_out
        return {
            "id": planned.id,
            "status": status,
            "message": message,
            "kind": None,
            "authentic": None,
            "synthetic": None,
            "mask": None,
            "caption": job.caption.get("caption"),
            "captioner": job.caption.get("captioner"),
            "generator": None,
            "source": planned.source,
            "split": "test" if is_held_out else planned.split,
            "content": planned.content,
            "original": {
                "file": _shown(planned.file, self.settings.authentic), "sha256": planned.sha256,
                "format": planned.format, "width": planned.width, "height": planned.height,
            },
            "crop": {"left": left, "top": top, "right": right, "bottom": bottom},
            "cost": 0.0,
            "seconds": 0.0,
        }  # fmt: skip


def _shown(file: str, authentic: str) -> str:
    """A path below the folder that was given: where it lay on one machine is nobody's business."""
    path, root = Path(file), Path(authentic).absolute()
    root = root if root.is_dir() else root.parent
    shown = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    return shown.encode("utf-8", "backslashreplace").decode()
