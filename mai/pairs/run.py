"""The two passes as workers run them, here or elsewhere: captions (caption_pass.py), pictures (generate_pass.py)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mai.errors import UsageError
from mai.jobs.leases import LEASE_S
from mai.jobs.work import Outcome, missing, sweep, work
from mai.pairs import plan as plans
from mai.pairs import settings as kept
from mai.pairs.caption_pass import CaptionTask
from mai.pairs.generate import Generator, Runtime, open_generator
from mai.pairs.generate_pass import GenerateTask
from mai.pairs.registry import Entry

if TYPE_CHECKING:
    from mai.pairs.caption import Captioner


@dataclass(frozen=True)
class Pass:
    """What a worker needs to know; it travels to other processes and machines.

    Attributes:
        folder: of the pairs.
        name: `caption` or `generate`.
        runtime: where generators run.
        lease_s: silence after which another takes a shard over.
        threads: of torch in this worker; 0 leaves it.
    """

    folder: Path
    name: str
    runtime: Runtime = field(default_factory=Runtime)
    lease_s: float = LEASE_S
    threads: int = 0


def task_of(given: Pass) -> CaptionTask | GenerateTask:
    """The task of a pass over a folder that was begun.

    Raises:
        UsageError: it was not begun, or the first pass is not done.
    """
    settings = kept.load(given.folder)
    planned = plans.load(given.folder)
    if given.name == "caption":

        def captioner() -> Captioner:
            from mai.pairs.caption import open_captioner
            from mai.pairs.generate import device_of

            return open_captioner(settings.captioner, settings.caption_length, device_of(given.runtime))

        task = CaptionTask(given.folder, settings, planned, captioner, max(1, given.runtime.batch))
        (given.folder / "captions").mkdir(exist_ok=True)
        return task

    def opened(entry: Entry) -> Generator:
        return open_generator(entry, settings.edit, settings.strength, given.runtime)

    (given.folder / "data").mkdir(exist_ok=True)
    return GenerateTask(given.folder, settings, planned, opened, max(1, given.runtime.batch))


def run(given: Pass, stop: Callable[[], bool], tell: Callable[[int], None]) -> Outcome:
    """One worker's part of a pass, until all is done. See mai.jobs.engines.Run."""
    if given.threads:
        import torch

        torch.set_num_threads(given.threads)
    task = task_of(given)
    if not missing(task):
        sweep(given.folder, task, given.lease_s)
        return Outcome(0, 0, 0, False)
    if given.name == "generate":
        first = CaptionTask(given.folder, task.settings, task.planned, _none)
        if left := missing(first):
            raise UsageError(
                f"{len(left)} of {first.n_shards} parts have no captions yet. Run first: mai pairs caption"
            )
    return work(given.folder, task, stop=stop, tell=tell, lease_s=given.lease_s)


def _none() -> Captioner:
    raise AssertionError("asked for its parts only")
