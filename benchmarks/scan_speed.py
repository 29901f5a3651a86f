"""What `mai scan` costs beside decoding alone, in one run.

    python benchmarks/scan_speed.py [--files 500] [--workers 2] [--weights FOLDER] [--many 5000]

Makes JPEG files of 1 MP (1152 x 864, quality 90) by enlarging and mixing pictures of ../shared/corpus, or of examples/
where there is no corpus, and prints, with the same number of processes each:

    floor      full decoding and one resize to 224 px with Pillow, nothing else
    scan       the whole command `mai scan`, start-up of Python and its workers included
    ratio      scan / floor, wall and CPU seconds; wanted: at most 2.0
    memory     most resident memory of one process of the scan, at --files and at --many files (links to the same)
    cold       one picture from a cold start; `mai --help`

CPU seconds stand beside wall time, as a machine may have other things to do; load is printed for the same reason.
Linux only: it reads /proc.
Without shipped weights (`--weights` unset, none in the package) a network of the shipped shape is exported first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image as Pil

from mai.machine import n_cpus

ROOT = Path(__file__).resolve().parent.parent
SIZE = (1152, 864)


def material() -> list[Path]:
    corpus = ROOT.parent / "shared" / "corpus" / "images"
    if corpus.is_dir():
        return sorted(corpus.glob("*_whole.*"))[::7][:200]
    return sorted((ROOT / "examples").rglob("*.*[gp]"))


def make(job: tuple[int, Path, list[Path]]) -> None:
    """One file: two pictures enlarged to 1 MP and mixed, with the grain that enlarging took away."""
    number, target, sources = job
    rng = np.random.default_rng(number)
    layers = []
    for index in rng.choice(len(sources), 2, replace=len(sources) < 2):
        with Pil.open(sources[int(index)]) as image:
            layers.append(np.asarray(image.convert("RGB").resize(SIZE, Pil.Resampling.BICUBIC), np.float32))
    share = rng.uniform(0.3, 0.7)
    mixed = share * layers[0] + (1 - share) * layers[1] + rng.normal(0, 5, layers[0].shape)
    Pil.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)).save(target / f"{number:05}.jpg", quality=90)


def decode(path: str) -> int:
    with Pil.open(path) as image:
        image.load()
        return image.convert("RGB").resize((224, 224), Pil.Resampling.BICUBIC).size[0]


def floor(paths: list[str], n_workers: int) -> None:
    """What this file runs itself as, `--floor`: in a process of its own, so that it can be measured as the scan is."""
    if n_workers == 1:
        list(map(decode, paths))
        return
    with ProcessPoolExecutor(n_workers) as pool:
        list(pool.map(decode, paths, chunksize=8))


TICKS = os.sysconf("SC_CLK_TCK")


def family(session: int) -> dict[int, tuple[float, float]]:
    """CPU seconds so far and most MB resident of each process of a session (Linux)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != session:
                continue
            status = (path / "status").read_text()
        except (OSError, ValueError):  # it has ended
            continue
        peak = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")), "0")
        found[int(path.name)] = ((int(fields[11]) + int(fields[12])) / TICKS, int(peak) / 1024)
    return found


def run(words: list[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of all processes, most MB resident of one of them.

    Read from /proc 20 times a second: what a process spends after its last reading is missed. The kernel's own count
    of ended children leaves out workers that nobody waited for.
    """
    started = time.perf_counter()
    with tempfile.TemporaryFile() as told:
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=told, start_new_session=True)
        seen: dict[int, tuple[float, float]] = {}
        while process.poll() is None:
            for pid, now in family(
                process.pid
            ).items():  # one that has ended still tells its time, not its memory
                before = seen.get(pid, (0.0, 0.0))
                seen[pid] = (max(before[0], now[0]), max(before[1], now[1]))
            time.sleep(0.05)
        wall = time.perf_counter() - started
        told.seek(0)
        if process.returncode:
            sys.exit(
                f"{' '.join(words)[:200]}: exit code {process.returncode}\n{told.read().decode()[-2000:]}"
            )
    return (
        wall,
        sum(cpu for cpu, _ in seen.values()),
        max((memory for _, memory in seen.values()), default=0.0),
    )


def untrained(folder: Path) -> Path:
    """Weights of the default network's shape that were never trained: as fast, of no use."""
    import hashlib
    import json

    import torch

    from mai import config, weights
    from mai.measure.calibrate import operating_table
    from mai.training import architectures
    from mai.training.onnx_export import export, shipped_form
    from mai.training.recipe import Recipe

    architecture = architectures.load("pixel")
    recipe = config.read(Recipe, architecture.recipes["base"], ["init=scratch"])
    assert architecture.with_patches is not None
    torch.manual_seed(0)
    model = architecture.with_patches(architecture.build(recipe).eval())
    home = folder / "pixel_v0_0"
    home.mkdir()
    export(shipped_form(model), ["logit", "patches"], architecture.plan.sides, home / "model.onnx")
    table = operating_table(np.tile(np.linspace(0.01, 0.99, 200), 2), np.repeat([1, 0], 200), "no data")
    card = {
        "format": weights.FORMAT,
        "name": home.name,
        "architecture": "pixel",
        "sha256": hashlib.sha256((home / "model.onnx").read_bytes()).hexdigest(),
        "preprocessing": config.to_dict(architecture.plan),
        "calibration": {"slope": 1.0, "offset": 0.0},
        "thresholds": table.to_dict(),
        "default": {"fpr": 0.01, "fnr": 0.05},
    }
    (home / "config.json").write_text(json.dumps(card))
    return home


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500)
    parser.add_argument("--many", type=int, default=5000, help="0: leave the memory of many files out")
    parser.add_argument("--workers", type=int, default=min(8, n_cpus()))
    parser.add_argument(
        "--rounds", type=int, default=3, help="floor and scan take turns; the median ratio counts"
    )
    parser.add_argument("--detectors", default="pixel", help="as for `mai scan`; `all`: its default")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--floor", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.floor:
        floor(sorted(str(path) for path in Path(arguments.floor[0]).iterdir()), int(arguments.floor[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(arguments, Path(folder))


def measure(arguments: argparse.Namespace, folder: Path) -> None:
    from mai import weights

    chosen = arguments.weights
    if chosen is None and not any(name.startswith("pixel_v") for name in weights.available()):
        chosen = untrained(folder)
        print("no pixel weights ship: untrained ones of its shape are measured")
    pictures, links = folder / "pictures", folder / "links"
    pictures.mkdir()
    links.mkdir()
    with ProcessPoolExecutor() as pool:
        list(pool.map(make, [(i, pictures, material()) for i in range(arguments.files)], chunksize=8))
    names = sorted(pictures.iterdir())
    size = sum(path.stat().st_size for path in names) / len(names)
    print(f"{len(names)} JPEG files of {SIZE[0]} x {SIZE[1]}, {size / 1e3:.0f} kB each; {arguments.workers} workers on "
          f"{n_cpus()} processors, load {os.getloadavg()[0]:.1f}")  # fmt: skip
    scan = [sys.executable, "-m", "mai", "scan"]
    options = ["--jsonl", "--quiet", "--workers", str(arguments.workers), "--no-cache"]
    help_text = subprocess.run([*scan, "--help"], capture_output=True, text=True, check=True).stdout
    options = [option for option in options if not option.startswith("--") or option in help_text]
    if arguments.detectors != "all":
        options += ["--detectors", arguments.detectors]
    if chosen:
        options += ["--weights", str(chosen)]
    own = [sys.executable, __file__, "--floor", str(pictures), str(arguments.workers)]
    ratios = []
    for _ in range(arguments.rounds):
        low, high = run(own), run([*scan, str(pictures), *options])
        ratios.append((high[0] / low[0], high[1] / low[1]))
        print(f"floor {low[0]:6.2f} s wall, {low[1]:6.2f} s CPU | scan {high[0]:6.2f} s wall, {high[1]:6.2f} s CPU | "
              f"ratio {ratios[-1][0]:.2f} wall, {ratios[-1][1]:.2f} CPU | load {os.getloadavg()[0]:.1f}")  # fmt: skip
    middle = np.median(np.array(ratios), axis=0)
    print(f"ratio scan / floor, median: {middle[0]:.2f} wall, {middle[1]:.2f} CPU (wanted: at most 2.0)")
    few = high[2]
    if arguments.many:
        for i in range(arguments.many):
            (links / f"{i:06}.jpg").symlink_to(names[i % len(names)])
        many = run([*scan, str(links), *options])
        print(f"memory, most of one process: {few:.0f} MB at {len(names)} files, {many[2]:.0f} MB at {arguments.many}, "
              f"ratio {many[2] / few:.2f}; {arguments.many / many[0]:.0f} files/s")  # fmt: skip
    cold = sorted(run([*scan, str(names[0]), *options]) for _ in range(3))[1]
    told = sorted(run([sys.executable, "-m", "mai", "--help"]) for _ in range(5))[2]
    print(f"one picture from cold: {cold[0]:.2f} s wall, {cold[1]:.2f} s CPU (wanted: 1.5 s)")
    print(f"mai --help: {told[0]:.2f} s wall, {told[1]:.2f} s CPU (wanted: 0.3 s)")
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
