"""A worker process of the second pass whose generator is drawn in a moment and takes as long as it is told.

python slow_engine.py FOLDER SECONDS_A_ROW LEASE_S
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mai.jobs.stop import stop_on_signals
from mai.jobs.work import Outcome, work
from mai.pairs import plan as plans
from mai.pairs import settings as kept
from mai.pairs.generate import Generator, Made, Request
from mai.pairs.generate_pass import GenerateTask
from mai.pairs.registry import Entry


class Drawn:
    """Noise from the row's seed, after a pause."""

    revision = "1"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def make(self, requests: Sequence[Request]) -> list[Made]:
        time.sleep(self.seconds * len(requests))
        return [
            Made(np.random.default_rng(r.seed).integers(0, 256, (r.height, r.width, 3), np.uint8))
            for r in requests
        ]


def task(folder: Path, seconds: float) -> GenerateTask:
    def opened(entry: Entry) -> Generator:
        return Generator(entry, Drawn(seconds))

    (folder / "data").mkdir(exist_ok=True)
    return GenerateTask(folder, kept.load(folder), plans.load(folder), opened)


def main() -> Outcome:
    folder, seconds, lease_s = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    with stop_on_signals() as stop:
        outcome = work(folder, task(folder, seconds), stop=stop.is_set, lease_s=lease_s)
    print(outcome)
    return outcome


if __name__ == "__main__":
    main()
