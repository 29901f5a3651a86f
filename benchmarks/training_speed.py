"""How many images a second MAI's training loop makes, against a plain loop, in one run.

    python benchmarks/training_speed.py [--batches 30] [--rounds 3] [--workers N] [--full-size]

Both train the same network (`resnet`) with the same augmentation, batch size, loss and optimizer on the same pictures.

    plain   one process; every sample is opened and decoded with Pillow and augmented in the main process, then a step
            in fp32 and the default layout
    MAI     `mai train`'s own loop: views decoded once into a memory-mapped store, batches made by worker processes,
            precision and layout measured and chosen, an allocator that keeps its memory, threads that sleep while they
            wait, and a network step made for the CPU

The pictures are those of ../shared/corpus if it is beside the checkout, else drawn and saved as 1024 x 768 JPEG here.
The corpus's are 240 px small, which favours the plain loop; `--full-size` enlarges them to 1 MP JPEG files first, as
people's folders hold them.
Each loop runs in a process of its own, as a person starts it, in turns; the ratio is that of the medians. Wall-clock
figures on a machine that others use too mean little alone: load and CPU seconds a picture stand beside them. The store
is made before the clock starts; how long that took is printed, and so is after how many samples it has paid for itself.
"""

from __future__ import annotations

import argparse
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Pil

from mai import config
from mai.data.augment import augment
from mai.data.labelled import LabelledSet, Row
from mai.data.sources import read_set
from mai.data.store import open_store
from mai.machine import n_cpus, sleep_while_waiting
from mai.training import architectures
from mai.training.batches import AugmentedViews, batches
from mai.training.device import Speed, choose, keep_memory, may_bf16
from mai.training.optimizer import make_optimizer
from mai.training.recipe import Recipe
from mai.training.sampler import BalancedSampler

ROOT = Path(__file__).resolve().parent.parent
N_PICTURES = 400


def pictures(folder: Path, full_size: bool) -> LabelledSet:
    """Some hundred labelled pictures, corpus or drawn."""
    corpus = ROOT.parent / "shared" / "corpus"
    if corpus.is_dir():
        labelled = read_set(str(corpus))
        rows = [row for row in labelled.rows if row.split == "train" and row.view == "whole"]
        rows = rows[:: max(1, len(rows) // N_PICTURES)][:N_PICTURES]
        if not full_size:
            return LabelledSet(tuple(rows), "corpus", labelled.root)
        enlarged = [enlarge(row, folder / f"{i}.jpg") for i, row in enumerate(rows)]
        return LabelledSet(tuple(enlarged), "corpus, enlarged to 1 MP", str(folder))
    rng = np.random.default_rng(0)
    rows = []
    for i in range(N_PICTURES):
        coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
        picture = Pil.fromarray(coarse).resize((1024, 768), Pil.Resampling.BICUBIC)
        picture.save(folder / f"{i}.jpg", quality=90)
        rows.append(Row(str(folder / f"{i}.jpg"), i % 2, "train"))
    return LabelledSet(tuple(rows), "drawn pictures", str(folder))


def enlarge(row: Row, path: Path) -> Row:
    """The picture at about 1 MP, its shape kept, with the grain that enlarging took away, as JPEG of quality 90."""
    with Pil.open(row.file) as image:
        scale = (1_000_000 / (image.width * image.height)) ** 0.5
        size = (round(image.width * scale), round(image.height * scale))
        pixels = np.asarray(image.convert("RGB").resize(size, Pil.Resampling.BICUBIC), np.float32)
    grain = np.random.default_rng(0).normal(0, 5, pixels.shape)
    Pil.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8)).save(path, quality=90)
    return replace(row, file=str(path))


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, views: torch.Tensor, labels: torch.Tensor,
         bf16: bool) -> None:  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(views)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def plain(recipe: Recipe, labelled: LabelledSet, n_batches: int) -> Iterator[int]:
    """A loop as one writes it first; yields pictures done."""
    torch.manual_seed(0)
    model = architectures.load(recipe.architecture).build(recipe).train()
    optimizer = make_optimizer(model, recipe)
    rng = np.random.default_rng(0)
    by_label = [[row for row in labelled.rows if row.label == label] for label in (0, 1)]
    size, n = recipe.data.size_px, recipe.run.batch_size
    for _ in range(n_batches):
        views, labels = np.empty((n, size, size, 3), np.uint8), np.empty(n, np.float32)
        for i in range(n):
            row = by_label[i % 2][int(rng.integers(len(by_label[i % 2])))]
            with Pil.open(row.file) as image:
                pixels = np.asarray(image.convert("RGB"))
            views[i], labels[i] = augment(pixels, rng, size, recipe.augment), row.label
        step(model, optimizer, torch.from_numpy(views), torch.from_numpy(labels), False)
        yield n


def ours(
    recipe: Recipe, labelled: LabelledSet, n_batches: int, n_workers: int, speed: Speed
) -> Iterator[int]:
    """The parts of mai/training/loop.py in its order, without validation and checkpoints; yields pictures done."""
    keep_memory()
    torch.manual_seed(0)
    model = architectures.load(recipe.architecture).build(recipe).train()
    if speed.channels_last:
        model = model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    store = open_store(labelled, quiet=True)
    sampler = BalancedSampler(store, range(len(labelled.rows)), 0, 0.5, 0.5)
    views = AugmentedViews(store, recipe.data, recipe.augment)
    plan = sampler.epoch(0, n_batches, recipe.run.batch_size)
    for batch, labels in batches(views, plan, n_workers):
        step(model, optimizer, batch, labels, speed.bf16)
        yield len(batch)


def cpu_seconds() -> float:
    """Of this process and its ended children. Workers that still run are counted when they end."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(name: str, loop: Iterator[int]) -> tuple[float, float]:
    """Images a second of wall time after two batches of warm-up, and CPU seconds an image of all processes."""
    before = cpu_seconds()
    n_warm = sum(next(loop) for _ in range(2))
    started = time.perf_counter()
    n = sum(loop)
    wall = time.perf_counter() - started
    cpu = (cpu_seconds() - before) / (n + n_warm)
    print(
        f"{name:6} {n / wall:7.1f} images/s wall, {1000 * cpu:6.1f} ms CPU an image, "
        f"{n} images, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return n / wall, cpu


def run_loop(name: str, folder: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """In a process of its own: one of the loops, with the files that are there already."""
    architecture = architectures.load("resnet")
    shipped = config.read(Recipe, architecture.recipes["base"])
    recipe = replace(shipped, run=replace(shipped.run, batch_size=48))
    labelled: LabelledSet = pickle.loads((folder / "labelled").read_bytes())
    if name == "plain":
        return timed(name, plain(recipe, labelled, arguments.batches + 2))
    speed = choose(lambda: architecture.build(recipe), recipe)
    print(f"MAI chose {speed}")
    return timed(name, ours(recipe, labelled, arguments.batches + 2, arguments.workers, speed))


def start(name: str, folder: Path) -> tuple[float, float]:
    """Run a loop in a process with the surroundings that a person's script, or `mai train`, has."""
    told = folder / "figures"
    command = [sys.executable, __file__, *sys.argv[1:], "--loop", name, "--folder", str(folder)]
    surroundings = dict(os.environ)
    if name == "MAI":
        sleep_while_waiting(surroundings)
    subprocess.run(command, env=surroundings, check=True)
    rate, cpu = map(float, told.read_text().split())
    return rate, cpu


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=30, help="of 48 pictures, of each loop and round")
    parser.add_argument("--rounds", type=int, default=3, help="of both loops in turns")
    parser.add_argument("--workers", type=int, default=min(8, n_cpus()))
    parser.add_argument(
        "--full-size", action="store_true", help="enlarge the corpus's pictures to 1 MP files"
    )
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        figures = run_loop(arguments.loop, arguments.folder, arguments)
        (arguments.folder / "figures").write_text(" ".join(map(str, figures)))
        return
    features = torch.backends.cpu.get_cpu_capability()
    print(f"{n_cpus()} processors ({features}, bf16 {'yes' if may_bf16('cpu') else 'no'}), torch "
          f"{torch.__version__}, {torch.get_num_threads()} threads, {arguments.workers} workers, load "
          f"{os.getloadavg()[0]:.1f}")  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["MAI_CACHE"] = name
        labelled = pictures(folder, arguments.full_size)
        (folder / "labelled").write_bytes(pickle.dumps(labelled))
        print(f"{len(labelled.rows)} pictures: {labelled.name}")
        started = time.perf_counter()
        open_store(labelled, quiet=True)
        store_s = time.perf_counter() - started
        rounds = [(start("plain", folder), start("MAI", folder)) for _ in range(arguments.rounds)]
    slow, fast = ([statistics.median(r[side][i] for r in rounds) for i in (0, 1)] for side in (0, 1))
    saved = 1 / slow[0] - 1 / fast[0]
    pays = f"pays after {store_s / saved:,.0f} samples" if saved > 0 else "does not pay here"
    print(f"store of {len(labelled.rows)} pictures: {store_s:.1f} s, {pays}")
    print(
        f"ratio MAI / plain, medians of {arguments.rounds} rounds: {fast[0] / slow[0]:.2f} wall "
        f"({slow[0]:.0f} and {fast[0]:.0f} images/s), {slow[1] / fast[1]:.2f} CPU "
        "(wanted: 3.0 wall where the processor has bf16)"
    )


if __name__ == "__main__":
    main()
