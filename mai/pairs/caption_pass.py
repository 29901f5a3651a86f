"""The first pass over the shards: a caption for each authentic image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mai.errors import ImageError
from mai.jobs.work import Watch
from mai.pairs import plan as plans
from mai.pairs import settings as kept
from mai.pairs import store
from mai.pairs.filters import caption_problem
from mai.pairs.store import Row

if TYPE_CHECKING:
    from mai.pairs.caption import Captioner
    from mai.pairs.plan import Planned
    from mai.types import Pixels


@dataclass
class CaptionTask:
    """The first pass.

    Attributes:
        folder: of the pairs.
        settings: of the run.
        planned: all rows.
        captioner: at work; opened at the first row that needs it.
        batch: pictures at once.
    """

    folder: Path
    settings: kept.Settings
    planned: Sequence[Planned]
    open_captioner: Callable[[], Captioner]
    batch: int = 1
    name: str = "caption"
    _captioner: Captioner | None = None

    @property
    def n_shards(self) -> int:
        """See Task."""
        return plans.n_shards(self.planned, self.settings.shard_rows)

    def part(self, shard: int) -> Path:
        """See Task."""
        return store.caption_part(self.folder, shard, self.n_shards)

    def make(self, shard: int, part: Path, partial: Path | None, watch: Watch) -> bool:
        """See Task."""
        size = self.settings.shard_rows
        rows = self.planned[shard * size : (shard + 1) * size]
        watch.rows(len(rows))
        done = store.taken_over(partial)
        pictures = plans.Pictures(self.settings.authentic)
        for start in range(0, len(rows), self.batch):
            todo = [row for row in rows[start : start + self.batch] if row.id not in done]
            if todo and watch.is_stopping:
                break
            done |= {row["id"]: row for row in self._captioned(todo, pictures)}
            watch.step(len(rows[start : start + self.batch]))
        is_whole = len(done) == len(rows)
        if done:
            store.write_rows(part, [done[row.id] for row in rows if row.id in done], store.caption_schema())
        return is_whole

    def _captioned(self, rows: Sequence[Planned], pictures: plans.Pictures) -> Iterator[Row]:
        from mai.pairs.caption import caption_all

        readable: list[Planned] = []
        pixels: list[Pixels] = []
        for row in rows:
            if row.status != "ok":
                yield self._row(row, row.status, row.message)
                continue
            try:
                pixels.append(pictures.read(row))
                readable.append(row)
            except ImageError as error:
                yield self._row(row, "unreadable", str(error))
        if not readable:
            return
        if self._captioner is None:
            self._captioner = self.open_captioner()
        began = time.monotonic()
        answers = caption_all(self._captioner, readable, pixels)
        each = (time.monotonic() - began) / len(readable)
        for row, (text, failure) in zip(readable, answers, strict=True):
            problem = ("caption_failed", failure) if failure is not None else caption_problem(text)
            status, message = problem or ("ok", None)
            yield self._row(row, status, message, text, each)

    def _row(
        self, row: Planned, status: str, message: str | None, caption: str | None = None, seconds: float = 0.0
    ) -> Row:
        told = None
        if self._captioner is not None and caption is not None:
            told = {
                "name": self.settings.captioner,
                "revision": self._captioner.revision,
                "note": self._captioner.note or None,
            }
        return {
            "id": row.id, "status": status, "message": message, "caption": caption, "captioner": told,
            "seconds": seconds,
        }  # fmt: skip
