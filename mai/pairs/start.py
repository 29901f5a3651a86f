"""Starting and going on with a set of pairs: what the commands and the Python API call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mai.errors import UsageError
from mai.jobs.engines import Run, run_here, run_processes, run_ray
from mai.jobs.leases import LEASE_S
from mai.jobs.stop import stop_on_signals
from mai.jobs.work import Outcome, missing, sweep, work
from mai.pairs import check, store
from mai.pairs import plan as plans
from mai.pairs import settings as kept
from mai.pairs.generate import Runtime
from mai.pairs.run import Pass, run, task_of
from mai.pairs.settings import Settings


@dataclass(frozen=True, slots=True)
class Engine:
    """Who works.

    Attributes:
        name: `local` or `ray`.
        n_workers: processes or actors.
        gpus_each: GPUs of each Ray actor.
    """

    name: str = "local"
    n_workers: int = 1
    gpus_each: float = 0.0


def begin(folder: Path, settings: Settings) -> Settings:
    """Start the first pass in a folder, or go on with it. What cannot be started leaves nothing behind.

    Raises:
        UsageError: the folder holds something else, or was started otherwise; see check.first_pass.
        DataError, MissingExtraError: see there.
    """
    wanted = replace(settings, authentic=_absolute(settings.authentic), captioner=_named(settings.captioner))
    if not kept.is_begun(folder, kept.FIRST_PASS):
        check.first_pass(wanted)
    return kept.begin(folder, wanted, kept.FIRST_PASS)


def _absolute(where: str) -> str:
    return where if where.startswith("hub:") else str(Path(where).absolute())


def _named(captioner: str) -> str:
    """A captioner's file by its absolute name, so that workers elsewhere find it."""
    kind, colon, rest = captioner.partition(":")
    is_file = bool(rest) and Path(rest).exists()
    return f"{kind}{colon}{Path(rest).absolute()}" if is_file else captioner


def make_plan(
    folder: Path,
    settings: Settings,
    n_workers: int,
    progress: plans.Progress | None = None,
    lease_s: float = LEASE_S,
) -> bool:
    """Look at the authentic images, unless that is done; True when there is a plan, False if stopped.

    Raises:
        UsageError: there is no authentic image.
    """
    task = plans.PlanTask(folder, settings, n_workers, progress)
    with stop_on_signals() as stop:
        work(folder, task, stop=stop.is_set, lease_s=lease_s)
    return not missing(task)


def begin_generating(folder: Path, settings: Settings, runtime: Runtime | None = None) -> Settings:
    """Start the second pass in a folder, or go on with it. What cannot be started leaves nothing behind.

    Args:
        folder: of the pairs.
        settings: its values of the second pass count.
        runtime: where generators will run; None: where is not known yet.

    Raises:
        UsageError: it was started otherwise; see check.second_pass.
        MissingExtraError: see there.
    """
    there = kept.load(folder)
    if not kept.is_begun(folder, kept.SECOND_PASS):
        check.second_pass(settings, runtime)
    values = {name: getattr(settings, name) for name in kept.SECOND_PASS}
    begun = kept.begin(folder, replace(there, **values), kept.SECOND_PASS)
    card = folder / "README.md"
    if not card.exists():
        card.write_text(store.card(begun), "utf-8")
    return begun


def run_pass(given: Pass, engine: Engine, tell: Callable[[int], None], tick: Callable[[], None]) -> Outcome:
    """Run a pass with an engine.

    Args:
        given: the pass.
        engine: who works.
        tell: called with rows done, where the work is in this process.
        tick: called now and then, where it is in others.

    Raises:
        UsageError: an unknown engine.
        MaiError: the disk is full, weights are missing, or all workers died.
    """
    task = task_of(given)
    if not missing(task):
        sweep(given.folder, task, given.lease_s)
        return Outcome(0, 0, 0, False)
    worker: Run[Pass] = run
    if engine.name == "ray":
        return run_ray(worker, given, max(1, engine.n_workers), engine.gpus_each, tick)
    if engine.name != "local":
        raise UsageError(f"An engine is local or ray, not '{engine.name}'.")
    if engine.n_workers > 1:
        return run_processes(worker, given, engine.n_workers, tick)
    return run_here(worker, given, tell)
