"""What a large scan costs beside the looking itself, in CPU seconds, each against another in the same run.

    python benchmarks/scale.py memory [--detectors metadata] [--few 1000] [--many 100000]
    python benchmarks/scale.py rows [--rows 1000000]      rows through a detector that does nothing
    python benchmarks/scale.py overhead [--files 400]     the whole command against decoding and the network alone
    python benchmarks/scale.py cached [--files 5000]      a second scan of the same files
    python benchmarks/scale.py workers [--files 400]      two processes against one

Pictures: ../shared/corpus where it is, else examples/. Start-up (Python, detectors, workers) is measured with a scan of
one file and taken away. CPU seconds and memory come from /proc (Linux), see scan_speed.py: what other programs on the
machine do enters wall time only.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scan_speed import ROOT, run

SCAN = [sys.executable, "-m", "mai", "scan", "--jsonl", "--quiet"]


def pictures(n: int) -> list[Path]:
    corpus = ROOT.parent / "shared" / "corpus" / "images"
    found = sorted(corpus.iterdir()) if corpus.is_dir() else sorted((ROOT / "examples").rglob("*.*[gp]"))
    step = max(1, len(found) // n)
    return found[::step][:n]


def links(folder: Path, n: int, real: list[Path]) -> Path:
    home = folder / f"links{n}"
    home.mkdir()
    for i in range(n):
        source = real[i % len(real)]
        (home / f"{i:07}{source.suffix}").symlink_to(source)
    return home


def start_up(options: list[str], one: Path) -> float:
    """CPU seconds of a scan of one file, the median of three."""
    return statistics.median(run([*SCAN, str(one), *options])[1] for _ in range(3))


def load() -> str:
    return f"load {os.getloadavg()[0]:.1f}"


def memory(arguments: argparse.Namespace, folder: Path) -> None:
    real = pictures(2000)
    options = ["--no-cache", "--detectors", arguments.detectors, "--workers", str(arguments.workers)]
    options += ["--output", str(folder / "out.jsonl")]
    begin = start_up(options, real[0])
    told = []
    for n in (arguments.few, arguments.many):
        home = links(folder, n, real)
        wall, cpu, most = run([*SCAN, str(home), *options])
        told.append((n / (cpu - begin), most))
        print(
            f"{n} links to {len(real)} files, --detectors {arguments.detectors} --workers {arguments.workers}: "
            f"{wall:.1f} s wall, {cpu:.1f} s CPU ({begin:.1f} to start), {told[-1][0]:.0f} rows a CPU second, "
            f"most memory of one process {most:.1f} MB, {load()}",
            flush=True,
        )
    print(
        f"ratio: speed {told[1][0] / told[0][0]:.3f}, memory {told[1][1] / told[0][1]:.3f} (wanted: 0.9 to 1.1)"
    )


def rows(arguments: argparse.Namespace, folder: Path) -> None:
    import resource

    from mai.cli._progress import Progress, Tally
    from mai.images.find import Found
    from mai.pipeline import Scanner
    from mai.scanning.journal import Journal
    from mai.scanning.local import scan_local
    from mai.types import Evidence

    class Null:
        name, needs, kind, weights = "null", "bytes", "statement", None

        def look(self, images: list[object]) -> list[Evidence]:
            return [Evidence("null", status="absent", note="Nothing was looked at.")] * len(images)

    from PIL import Image

    tiny = folder / "a.png"
    Image.new("RGB", (8, 8)).save(tiny)
    scanner = Scanner("metadata")
    scanner.detectors = {"null": Null()}  # type: ignore[dict-item]
    output, tally = folder / "out.jsonl", Tally()
    progress = Progress(is_shown=False, is_json=False, sources=())

    def timed(what: str, do: Callable[[], object]) -> None:
        start, wall = time.process_time(), time.perf_counter()
        do()
        cpu = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{what}: {cpu:.1f} s CPU, {time.perf_counter() - wall:.1f} s wall, "
            f"{1e6 * cpu / arguments.rows:.0f} us a row, most memory so far {peak:.0f} MB, {load()}",
            flush=True,
        )

    journal = Journal(output, {}, resume=False)

    def scan() -> None:
        founds = (Found(f"{folder}/{i:07}.png", tiny, named=True) for i in range(arguments.rows))
        for record in scan_local(journal.left(founds), scanner.settings, 1, scanner):
            journal.write(record)
            tally.add(record)
            progress.step(tally)

    timed(f"{arguments.rows} rows through a null detector into the journal", scan)
    journal.close()
    journal = Journal(folder / "none.jsonl", {}, resume=False)
    journal.close()

    def resume() -> None:
        nonlocal journal
        journal = Journal(output, {}, resume=True)
        assert journal.n_before == arguments.rows
        assert not list(journal.left(Found(f"{folder}/{i:07}.png") for i in range(arguments.rows)))

    timed("--resume with all of them done", resume)
    from mai.scanning.sinks import convert

    for form in ("parquet", "sqlite", "duckdb", "csv"):
        timed(f"made into {form}", lambda: convert(journal.records(), form, folder / f"out.{form}"))  # noqa: B023
        print(f"    {(folder / f'out.{form}').stat().st_size / 1e6:.0f} MB")
    print(f"rows.jsonl: {(journal.folder / 'rows.jsonl').stat().st_size / 1e6:.0f} MB")


def overhead(arguments: argparse.Namespace, folder: Path) -> None:
    real = pictures(arguments.files)
    listed = folder / "list.txt"
    listed.write_text("\n".join(map(str, real)))
    options = ["--no-cache", "--detectors", "pixel", "--workers", "1", "--output", str(folder / "out.jsonl")]
    ratios = []
    for _ in range(arguments.rounds):
        bare = run([sys.executable, __file__, "bare", str(listed)])[1]
        none = run([sys.executable, __file__, "bare", os.devnull])[1]
        begin = start_up(options, real[0])
        whole = run([*SCAN, f"@{listed}", *options])[1]
        ratios.append((whole - begin) / (bare - none))
        print(
            f"{len(real)} pictures: bare {bare - none:.2f} s CPU, scan {whole - begin:.2f} s CPU, "
            f"ratio {ratios[-1]:.3f}, {load()}",
            flush=True,
        )
    print(f"ratio, median: {statistics.median(ratios):.3f} (wanted: at most 1.10)")


def bare(listed: str) -> None:
    """Decoding and the network alone, one picture after another."""
    from mai.detectors import base
    from mai.images.decode import decode, read
    from mai.images.find import Found

    detector = base.load("pixel")
    for path in Path(listed).read_text().splitlines():
        detector.look([decode(read(Found(path, Path(path))))])


def cached(arguments: argparse.Namespace, folder: Path) -> None:
    real = pictures(arguments.files)
    listed = folder / "list.txt"
    listed.write_text("\n".join(map(str, real)))
    os.environ["MAI_CACHE"] = str(folder / "cache")
    words = [*SCAN, f"@{listed}", "--workers", str(arguments.workers)]
    first = run([*words, "--output", str(folder / "a.jsonl")])[1]
    begin = start_up(["--workers", str(arguments.workers), "--output", str(folder / "c.jsonl")], real[0])
    second = [run([*words, "--output", str(folder / "b.jsonl")])[1] for _ in range(arguments.rounds)]
    other = run([*words, "--fpr", "0.02", "--output", str(folder / "d.jsonl")])[1]
    size = sum(path.stat().st_size for path in (folder / "cache" / "mai").iterdir())
    mean = statistics.median(second) - begin
    print(
        f"{len(real)} pictures, --workers {arguments.workers}: first {first - begin:.1f} s CPU, again {mean:.2f} s "
        f"({1000 * mean / len(real):.2f} ms a file), with another --fpr {other - begin:.2f} s; {begin:.1f} s to "
        f"start not counted; cache {size / len(real):.0f} bytes a file; {load()}"
    )
    print(f"ratio: {(first - begin) / mean:.1f} (wanted: at least 20)")


def workers(arguments: argparse.Namespace, folder: Path) -> None:
    real = pictures(arguments.files)
    listed = folder / "list.txt"
    listed.write_text("\n".join(map(str, real)))
    options = ["--no-cache", "--output", str(folder / "out.jsonl")]
    walls, cpus = [], []
    for _ in range(arguments.rounds):
        found = []
        for n in (1, 2):
            begin = run([*SCAN, str(real[0]), *options, "--workers", str(n)])
            whole = run([*SCAN, f"@{listed}", *options, "--workers", str(n)])
            found.append((whole[0] - begin[0], whole[1] - begin[1]))
        walls.append(found[0][0] / found[1][0])
        cpus.append(found[1][1] / found[0][1])
        print(
            f"{len(real)} pictures: 1 worker {found[0][0]:.1f} s wall, {found[0][1]:.1f} s CPU; "
            f"2 workers {found[1][0]:.1f} s wall, {found[1][1]:.1f} s CPU; {walls[-1]:.2f} times faster, "
            f"CPU ratio {cpus[-1]:.3f}; {load()}",
            flush=True,
        )
    print(
        f"times faster, median {statistics.median(walls):.2f}, best {max(walls):.2f}; CPU seconds of 2 / 1: "
        f"{statistics.median(cpus):.3f}; both cores full would be {2 / statistics.median(cpus):.2f} times faster"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["memory", "rows", "overhead", "cached", "workers", "bare"])
    parser.add_argument("listed", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("--detectors", default="metadata")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--few", type=int, default=1000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "bare":
        bare(arguments.listed)
        return
    arguments.files = arguments.files or (5000 if arguments.what == "cached" else 400)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    print(f"{' '.join(sys.argv[1:])}, commit {commit.stdout.strip() or 'unknown'}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        globals()[arguments.what](arguments, Path(folder))


if __name__ == "__main__":
    main()
