"""One worker here, several processes here, or Ray actors anywhere: all run the same loop over the same folder.

A worker is a function `run(stop, tell)` with a picklable first argument; it returns an Outcome.
"""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mai.errors import MaiError, require
from mai.jobs.stop import stop_on_signals
from mai.jobs.work import Outcome

Spec = TypeVar("Spec")
Run = Callable[[Spec, Callable[[], bool], Callable[[int], None]], Outcome]
"""`run(spec, stop, tell)`: a module-level function, so that other processes can import it."""


def run_here(run: Run[Spec], spec: Spec, tell: Callable[[int], None]) -> Outcome:
    """One worker, in this process; Ctrl-C ends it after the row in hand."""
    with stop_on_signals() as stop:
        return run(spec, stop.is_set, tell)


def run_processes(run: Run[Spec], spec: Spec, n_workers: int, tick: Callable[[], None]) -> Outcome:
    """Several workers on this machine, processes of their own.

    Args:
        run: see Run.
        spec: its first argument.
        n_workers: processes.
        tick: called now and then, to show how far all are.

    Raises:
        MaiError: a worker failed; the message is the worker's. Others go on first.
    """
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    with stop_on_signals() as stop:
        workers = [
            context.Process(target=_child, args=(run, spec, answers), daemon=False) for _ in range(n_workers)
        ]
        for worker in workers:
            worker.start()
        asked = False
        while any(worker.is_alive() for worker in workers):
            if stop.is_set() and not asked:
                asked = True
                for worker in workers:
                    if worker.is_alive():
                        worker.terminate()  # SIGTERM: after the row in hand
            workers[0].join(0.5)
            time.sleep(0.0 if workers[0].is_alive() else 0.2)
            tick()
    outcomes: list[Outcome] = []
    messages: list[str] = []
    while not answers.empty():
        answer = answers.get()
        (outcomes if isinstance(answer, Outcome) else messages).append(answer)
    n_dead = n_workers - len(outcomes) - len(messages)
    if messages:
        raise MaiError(messages[0])
    if not outcomes:
        raise MaiError(f"All {n_dead} workers died (out of memory?). Run it again with fewer --workers.")
    return _sum(outcomes)


def _child(run: Run[Spec], spec: Spec, answers: Any) -> None:
    try:
        with stop_on_signals() as stop:
            answers.put(run(spec, stop.is_set, lambda _: None))
    except MaiError as error:
        answers.put(str(error))


def _sum(outcomes: list[Outcome]) -> Outcome:
    return Outcome(
        sum(o.n_parts for o in outcomes),
        sum(o.n_lost for o in outcomes),
        min(o.n_left for o in outcomes),
        any(o.is_stopped for o in outcomes),
    )


class RayWorker:
    """A worker as a Ray actor: `run` in one of its threads, `stop` in another."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def run(self, run: Run[Any], spec: Any) -> Outcome | str:
        """Work; the sentence of an error of MAI in place of an outcome."""
        try:
            return run(spec, self._stop.is_set, lambda _: None)
        except MaiError as error:
            return str(error)

    def stop(self) -> None:
        """End after the row in hand."""
        self._stop.set()


def run_ray(
    run: Run[Spec], spec: Spec, n_workers: int, gpus_each: float, tick: Callable[[], None]
) -> Outcome:
    """Workers as Ray actors. The output folder must be one that all nodes see.

    Args:
        run: see Run.
        spec: its first argument.
        n_workers: actors.
        gpus_each: GPUs that Ray gives each.
        tick: called now and then.

    Raises:
        MissingExtraError: ray is not installed.
        MaiError: every actor died, or one failed.
    """
    ray = require("ray", "scale", "The engine ray")
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    try:
        actor = ray.remote(RayWorker).options(max_concurrency=2, num_gpus=gpus_each, num_cpus=1)
        actors = [actor.remote() for _ in range(n_workers)]
        pending = [worker.run.remote(run, spec) for worker in actors]
        answers: list[Outcome | str] = []
        with stop_on_signals() as stop:
            asked = False
            while pending:
                done, pending = ray.wait(pending, timeout=0.5)
                if stop.is_set() and not asked:
                    asked = True
                    for worker in actors:
                        worker.stop.remote()
                for one in done:
                    try:
                        answers.append(ray.get(one))
                    except ray.exceptions.RayError:  # the actor died: its shard is taken over by the others
                        continue
                tick()
    finally:
        if ours:
            ray.shutdown()
    outcomes = [answer for answer in answers if isinstance(answer, Outcome)]
    messages = [answer for answer in answers if isinstance(answer, str)]
    if messages:
        raise MaiError(messages[0])
    if not outcomes:
        raise MaiError("All Ray actors died. What is finished is kept: run the same command again.")
    return _sum(outcomes)
