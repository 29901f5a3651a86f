"""What the engine of `mai pairs` adds to the bare calls of a generator: reading, matching, encoding, storing, leases.

python benchmarks/pairs_overhead.py [--rows 200] [--side 64] [--seconds 0.02] [--photo-px 512]

In one run: the pass over the rows, then the generator's calls alone over the same requests. The generator waits for
`--seconds`, as for a GPU, and draws a picture from the row's seed. Start-up is not counted. Wall seconds, and processor
seconds, as the wall clock of a busy machine measures the others: in all threads, and on the thread that calls the
generator, which alone it has to wait for (pictures are read and encoded beside it).
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from mai.jobs.work import work
from mai.pairs import plan as plans
from mai.pairs import registry
from mai.pairs.caption import MeasuredWords
from mai.pairs.caption_pass import CaptionTask
from mai.pairs.generate import Generator, Made, Request
from mai.pairs.generate_pass import GenerateTask
from mai.pairs.registry import Entry
from mai.pairs.settings import Settings, stored_mix
from mai.pairs.start import begin, begin_generating, make_plan


def drawn(seed: int, width: int, height: int) -> np.ndarray:
    """A picture of soft shapes and grain: PNG makes of it what it makes of a photograph."""
    rng = np.random.default_rng(seed)
    soft = PILImage.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize((width, height))
    grain = np.tile(rng.integers(-4, 5, (64, 64, 1), np.int16), (-(-height // 64), -(-width // 64), 1))
    return np.clip(np.asarray(soft, np.int16) + grain[:height, :width], 0, 255).astype(np.uint8)


class Timed:
    """A drawn picture after a pause; remembers what it was asked for and how long its calls took."""

    revision = "1"

    def __init__(self, seconds: float) -> None:
        self.seconds, self.spent, self.cpu = seconds, 0.0, 0.0
        self.requests: list[Request] = []

    def make(self, requests: Sequence[Request]) -> list[Made]:
        began, cpu = time.monotonic(), time.thread_time()
        time.sleep(self.seconds * len(requests))
        made = [Made(drawn(r.seed, r.width, r.height)) for r in requests]
        self.requests += requests
        self.spent += time.monotonic() - began
        self.cpu += time.thread_time() - cpu
        return made


def photos(folder: Path, n: int, side: int) -> Path:
    """JPEG photographs of noise made smooth, as large as asked."""
    folder.mkdir()
    for i in range(n):
        small = np.random.default_rng(i).integers(0, 256, (24, 32, 3), np.uint8)
        PILImage.fromarray(small).resize((side * 4 // 3, side)).save(folder / f"{i:05d}.jpg", quality=90)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--photo-px", type=int, default=512)
    given = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="mai-overhead-"))
    entry = Entry("drawn", "tiny", sizes=(f"{given.side}x{given.side}",), multiple=1)
    folder = place / "ds"
    settings = begin(
        folder,
        Settings(authentic=str(photos(place / "photos", given.rows, given.photo_px)), captioner="words"),
    )
    make_plan(folder, settings, 1)
    (folder / "captions").mkdir()
    planned = plans.load(folder)
    work(folder, CaptionTask(folder, settings, planned, MeasuredWords))
    settings = begin_generating(folder, Settings(generators=stored_mix(registry.Mix((entry,), (1.0,)))))
    (folder / "data").mkdir()
    inside = Timed(given.seconds)
    task = GenerateTask(folder, settings, planned, lambda e: Generator(e, inside))
    began, cpu, own = time.monotonic(), time.process_time(), time.thread_time()
    work(folder, task)
    wall, cpu, own = time.monotonic() - began, time.process_time() - cpu, time.thread_time() - own
    bare = Timed(given.seconds)
    for request in inside.requests:
        bare.make([request])
    n = len(inside.requests)
    print(json.dumps({
        "rows": n, "side_px": given.side, "photo_px": given.photo_px, "seconds_a_row": given.seconds,
        "bare_wall_s": round(bare.spent, 3), "bare_cpu_s": round(bare.cpu, 3),
        "engine_wall_s": round(wall, 3), "engine_cpu_s": round(cpu, 3),
        "added_cpu_on_the_generators_thread_ms_a_row": round((own - inside.cpu) / n * 1000, 2),
        "added_wall_ms_a_row": round((wall - bare.spent) / n * 1000, 2),
        "added_cpu_ms_a_row": round((cpu - bare.cpu) / n * 1000, 2),
        "added_wall_share": round((wall - bare.spent) / bare.spent, 4),
    }, indent=1))  # fmt: skip
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
