"""What `mai serve` costs beside `mai scan`, and how it bears load: bounded, on loopback.

    python benchmarks/serve_load.py [--files 120] [--clients 1 8 64] [--workers 2] [--memory 5000] [--only cost,memory]

Makes JPEG files of 1 MP (benchmarks/scan_speed.py) and prints

    cost       server CPU seconds an image (service, workers and all) for 1, 8 and 64 clients, beside those of `mai scan
               --workers N` on the same files in the same run, both without their start; p50, p95 of the answers
    memory     resident MB of the service and its workers after the first tenth and at the end of 5,000 requests, with
               the same pictures made small (480 px), so that it ends
    overload   ten times as many clients as places in the queue: all answered, 200 or 429, none lost
    batches    CPU seconds a picture of the default network, one picture a run against two, four, eight

CPU seconds are read from /proc (Linux), as wall time on a busy machine measures the others.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import httpx
import numpy as np
from PIL import Image as Pil
from scan_speed import family, make, material

from mai.machine import n_cpus

MEMORY_FILES = 40


class Service:
    """`mai serve` in a session of its own, so that all its processes can be found."""

    def __init__(self, *options: str) -> None:
        self.log = tempfile.NamedTemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mai", "serve", "--port", "0", *options],
            stderr=self.log, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        while not (found := re.search(r"http://\S+?:\d+", Path(self.log.name).read_text())):
            time.sleep(0.1)
            if self.process.poll() is not None:
                sys.exit(Path(self.log.name).read_text())
        self.url = found.group()
        n_workers = int(options[options.index("--workers") + 1])
        while True:
            try:
                answer = httpx.get(f"{self.url}/readyz", trust_env=False, timeout=60)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == 200 and answer.json()["workers"] >= n_workers:
                return
            time.sleep(0.2)

    def cpu(self) -> float:
        return sum(seconds for seconds, _ in family(self.process.pid).values())

    def resident(self) -> dict[str, float]:
        """MB resident now: of the service itself, and most of one other process."""
        found = {}
        for pid in family(self.process.pid):
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            size = re.search(r"VmRSS:\s+(\d+)", status)
            found[pid] = int(size[1]) / 1024 if size else 0.0
        others = [size for pid, size in found.items() if pid != self.process.pid]
        return {"service": found.get(self.process.pid, 0.0), "largest worker": max(others, default=0.0)}

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)


def send(service: Service, files: list[bytes], n_clients: int) -> tuple[list[int], list[float]]:
    """Every file once, by so many clients that each keep a connection; statuses and seconds."""
    queue = iter(list(enumerate(files)))
    lock = threading.Lock()
    statuses, seconds = [0] * len(files), [0.0] * len(files)

    def client(_: int) -> None:
        with httpx.Client(base_url=service.url, timeout=600, trust_env=False) as ask:
            while True:
                with lock:
                    item = next(queue, None)
                if item is None:
                    return
                number, data = item
                start = time.perf_counter()
                statuses[number] = ask.post("/v1/scan", content=data).status_code
                seconds[number] = time.perf_counter() - start

    with ThreadPoolExecutor(n_clients) as pool:
        list(pool.map(client, range(n_clients)))
    return statuses, seconds


def small(data: bytes) -> bytes:
    with Pil.open(io.BytesIO(data)) as image:
        image.thumbnail((480, 480))
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=88)
        return stream.getvalue()


def counted(statuses: list[int]) -> dict[int, int]:
    return {status: statuses.count(status) for status in sorted(set(statuses))}


SCAN = """
import os, sys, time
from mai.images.find import find
from mai.pipeline import Scanner
from mai.report.jsonlines import JsonLines
from mai.scanning.local import scan_local

scanner = Scanner()
rows = JsonLines(open(os.devnull, "w"))
for n, record in enumerate(scan_local(find([sys.argv[1]]), scanner.settings, 1, scanner), 1):
    rows.write(record)
    if n == 8:
        start = time.process_time()
print((time.process_time() - start) / (n - 8))
"""
"""What `mai scan --workers 1 --jsonl --no-cache` does, its CPU seconds a file behind the first eight: its start, which
costs as much as a hundred files, would drown the rest."""


def scan_cpu(folder: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", SCAN, str(folder)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def cost(arguments: argparse.Namespace, folder: Path, files: list[bytes]) -> None:
    service = Service("--workers", str(arguments.workers), "--queue", "128")
    try:
        send(service, files[:8], 2)  # each worker has looked at something
        for round_ in range(arguments.rounds):
            scan = scan_cpu(folder / "pictures")
            print(f"round {round_ + 1}: mai scan {scan * 1000:.1f} ms CPU an image, n {len(files)}")
            for n_clients in arguments.clients:
                before = service.cpu()
                statuses, seconds = send(service, files, n_clients)
                used = (service.cpu() - before) / len(files)
                p50, p95 = np.percentile(seconds, [50, 95])
                print(f"  {n_clients:3} clients: {used * 1000:.1f} ms CPU an image, {used / scan:.3f} times mai scan; "
                      f"p50 {p50:.2f} s, p95 {p95:.2f} s; statuses {counted(statuses)}; "
                      f"load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
    finally:
        service.stop()


def memory(arguments: argparse.Namespace, files: list[bytes]) -> None:
    service = Service("--workers", str(arguments.workers), "--queue", "128")
    try:
        n = arguments.memory
        some = [small(data) for data in files[:MEMORY_FILES]]
        marks = [n // 10, *range(n // 4, n + 1, n // 4)]
        done = 0
        for mark in marks:
            send(service, [some[i % len(some)] for i in range(done, mark)], 8)
            done = mark
            told = ", ".join(f"{name} {size:.0f} MB" for name, size in service.resident().items())
            print(f"memory after {done} requests: {told}", flush=True)
    finally:
        service.stop()


def overload(arguments: argparse.Namespace, files: list[bytes]) -> None:
    places = 8
    service = Service("--workers", str(arguments.workers), "--queue", str(places), "--max-files", str(places))
    try:
        asked = [files[i % len(files)] for i in range(20 * places)]
        statuses, _ = send(service, asked, 10 * places)
        metrics = httpx.get(f"{service.url}/metrics", trust_env=False).text
        left = re.search(r"^mai_images_taken (\S+)", metrics, re.MULTILINE)
        print(f"overload: {10 * places} clients, {places} places, {len(asked)} requests: {counted(statuses)}; "
              f"left in the queue {left[1] if left else '?'}", flush=True)  # fmt: skip
    finally:
        service.stop()


def batches(files: list[bytes]) -> None:
    """The network alone: the same pictures, so many a run."""
    from mai.images import decode
    from mai.pipeline import load_detector

    detector = load_detector("pixel")
    images = [decode.decode(decode.from_bytes(data)) for data in files[:24]]
    detector.look(images[:2])
    for size in (1, 2, 4, 8, 1):
        start = time.process_time()
        for at in range(0, len(images), size):
            detector.look(images[at : at + size])
        used = (time.process_time() - start) / len(images)
        print(f"batches of {size}: {used * 1000:.1f} ms CPU a picture, n {len(images)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=120)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--workers", type=int, default=min(2, n_cpus()))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--memory", type=int, default=5000)
    parser.add_argument("--only", default="cost,overload,batches,memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        with ProcessPoolExecutor(1) as pool:
            list(pool.map(make, [(i, folder / "pictures", material()) for i in range(arguments.files)]))
        files = [path.read_bytes() for path in sorted((folder / "pictures").iterdir())]
        print(f"{len(files)} JPEG files of 1 MP, {sum(map(len, files)) / len(files) / 1e3:.0f} kB each; "
              f"{arguments.workers} workers, load {os.getloadavg()[0]:.1f}", flush=True)  # fmt: skip
        for part in arguments.only.split(","):
            if part == "cost":
                cost(arguments, folder, files)
            elif part == "memory":
                memory(arguments, files)
            elif part == "overload":
                overload(arguments, files)
            elif part == "batches":
                batches(files)


if __name__ == "__main__":
    main()
