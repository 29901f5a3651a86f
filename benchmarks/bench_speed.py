"""How long `mai bench run` takes over a sweep, and what the second process brings, in one run.

    python benchmarks/bench_speed.py [--pictures 2000] [--ratio-on 400] [--workers 2]

Takes pictures of ../shared/corpus (its whole views, half of each class), twelve perturbations, the native protocol and
the default network, without cache and floors, and prints the wall seconds of

    ratio      the first --ratio-on pictures with one process and with --workers: wanted at least 1.7 times faster
    stated     all of them with --workers

Start-up is counted. Load is printed: wall time on a machine that others use measures the others.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mai.data.sources import read_set

CORPUS = Path(__file__).resolve().parent.parent.parent / "shared" / "corpus"
SWEEP = ("jpeg-90", "jpeg-70", "jpeg-50", "webp-80", "avif-70", "resize-0.5", "resize-0.75", "resize-2",
         "blur-1", "noise-4", "crop-0.05", "screenshot")  # fmt: skip


def write_set(path: Path, n_pictures: int) -> int:
    """A CSV of so many whole views, half of each class, spread over the corpus; how many there are."""
    rows = [row for row in read_set(str(CORPUS)).rows if row.view == "whole"]
    kept = []
    for label in (0, 1):
        of_class = [row for row in rows if row.label == label]
        n = min(len(of_class), n_pictures // 2)
        kept += [of_class[i * len(of_class) // n] for i in range(n)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "source", "image"])
        for row in kept:
            name = "synthetic" if row.label else "authentic"
            writer.writerow([row.file, name, row.source, row.image])
    return len(kept)


def run(data: Path, n_workers: int) -> float:
    """Wall seconds of one `mai bench run`."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as output:
        command = [sys.executable, "-m", "mai", "bench", "run", "--data", str(data), "--bench", "generic",
                   "--protocols", "native", "--sweep", ",".join(SWEEP), "--sweep-on", "native", "--no-cache",
                   "--no-floors", "--quiet", "--draws", "20", "--workers", str(n_workers),
                   "--output", output]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=2000, help="of the stated time; 0: leave it out")
    parser.add_argument("--ratio-on", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    if not CORPUS.is_dir():
        parser.error(f"there is no corpus at {CORPUS}")
    print(f"{len(SWEEP)} perturbations: {', '.join(SWEEP)}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "set.csv"
        n = write_set(data, arguments.ratio_on)
        one, several = run(data, 1), run(data, arguments.workers)
        print(f"{n} pictures: 1 process {one:.1f} s, {arguments.workers} {several:.1f} s: "
              f"{one / several:.2f} times faster (wanted: 1.7)")  # fmt: skip
        if arguments.pictures:
            n = write_set(data, arguments.pictures)
            wall = run(data, arguments.workers)
            print(f"{n} pictures, {arguments.workers} processes: {wall:.0f} s, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
