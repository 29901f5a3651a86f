"""How many workers, threads and pictures at once are quickest here: measured once, in seconds, and remembered."""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from mai.cache import code_fingerprint, default_file
from mai.counting import counted
from mai.images.find import Found
from mai.machine import n_cpus
from mai.pipeline import Scanner, ScanSettings
from mai.scanning.workers import Crew

WORTH_IT = 2000
"""Files from which on a measurement of a few seconds is worth while."""

MEASURE_S = 1.0
"""Seconds that each way is measured for."""

BETTER = 1.1
"""How much quicker than the usual way another must be to be taken: less may be chance."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a scan uses the machine.

    Attributes:
        n_workers: processes.
        n_threads: of each network.
        batch: pictures that a network sees at once.
        reason: why, for people.
    """

    n_workers: int
    n_threads: int = 1
    batch: int = 1
    reason: str = ""

    def __str__(self) -> str:
        workers, threads = counted(self.n_workers, "worker"), counted(self.n_threads, "thread")
        return f"{workers} of {threads}, {counted(self.batch, 'picture')} at once"


def usual() -> Choice:
    """One process a CPU, one thread each: the quickest on most machines."""
    return Choice(n_cpus(), reason="the usual way; measured when a scan has 2,000 files or more")


def choose(scanner: Scanner, n_files: int | None, path: Path | None = None) -> Choice:
    """What was measured before for the same machine and detectors; else it is measured, if it is worth while.

    Args:
        scanner: whose detectors and weights count.
        n_files: files to come, None: not known.
        path: where measurements are kept; None: in the user's cache folder.
    """
    path = path or default_file().with_name("tuning_v1.json")
    key = _key(scanner)
    known = _read(path)
    if key in known:
        try:
            return Choice(**known[key])
        except TypeError:  # written by another version
            pass
    if n_files is None or n_files < WORTH_IT or n_cpus() == 1 or not scanner.weights:
        return usual()
    choice = _measure(scanner.settings)
    known[key] = asdict(choice)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(known, indent=1), "utf-8")
        part.replace(path)
    except OSError:  # then it is measured again
        pass
    return choice


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _key(scanner: Scanner) -> str:
    import onnxruntime

    weights = [own.config_digest for own in scanner.weights.values()]
    facts = [platform.machine(), platform.processor(), _cpu(), n_cpus(), onnxruntime.__version__, code_fingerprint(),
             list(scanner.detectors), weights, scanner.settings.device]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
        return next(line for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        return ""


def _measure(settings: ScanSettings) -> Choice:
    """Files a second of each way, over the same made-up pictures, start-up left out."""
    n = n_cpus()
    ways = [Choice(n), Choice(max(n // 2, 1), 2), Choice(n, batch=4)]
    if n >= 4:
        ways.append(Choice(n // 2))  # where two CPUs are the halves of one core
    speeds = [_speed(settings, way) for way in ways]
    best = max(range(len(ways)), key=lambda i: speeds[i])
    if speeds[best] < BETTER * speeds[0]:
        best = 0
    told = "; ".join(f"{way}: {speed:.0f}/s" for way, speed in zip(ways, speeds, strict=True))
    return replace(ways[best], reason=f"measured on {datetime.now(UTC):%Y-%m-%d}: {told}")


def _speed(settings: ScanSettings, way: Choice) -> float:
    own = replace(settings, cache=None, n_threads=way.n_threads, batch=way.batch, thumbnails=False)
    crew = Crew(own, way.n_workers)
    records = crew.run(_pictures())
    for _ in islice(records, 2 * way.n_workers):  # the workers are there now
        pass
    start, n_done = monotonic(), 0
    for _ in records:
        n_done += 1
        if monotonic() - start > MEASURE_S:
            break
    records.close()  # type: ignore[attr-defined]
    return n_done / (monotonic() - start)


def _pictures() -> Iterator[Found]:
    """JPEG files of 1 MP with noise over a gradient, which decode as photographs do; without end."""
    from PIL import Image

    rng = np.random.default_rng(0)
    made = []
    for _ in range(4):
        base = np.linspace(40, 200, 1152)[None, :, None] + rng.normal(0, 12, (864, 1152, 3))
        stream = io.BytesIO()
        Image.fromarray(np.clip(base, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=90)
        made.append(stream.getvalue())
    number = 0
    while True:
        yield Found(f"{number}", data=made[number % len(made)], named=True)
        number += 1
