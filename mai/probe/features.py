"""The features of all augmented training views, computed once and kept in a file.

The file's name holds all that its numbers depend on: rows, backbone, augmentation, seed, sides. It is written chunk by
chunk, so that a killed run goes on where it was. float16: a fifth decimal of a feature says nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mai.config import to_dict
from mai.data.augment import Augmentation
from mai.data.store import Store, cache_folder
from mai.training.batches import AugmentedViews, batches
from mai.training.recipe import DataPlan
from mai.training.sampler import Draw

if TYPE_CHECKING:
    import torch

    from mai.probe.recipe import BackbonePlan


@dataclass(frozen=True, slots=True)
class Samples:
    """Augmented views with their features, and whose they are.

    Attributes:
        features: float16 (N, D).
        labels: (N,) 1 synthetic, 0 authentic.
        kinds: (N,) `whole` or `crop`.
        draw: (N,) number of the augmented sample of its view.
        picture: (N,) index in `images`.
        images: (P,) names of the pictures.
        sources: (P,) the unit of balancing and of what is left out.
    """

    features: NDArray[np.float16]
    labels: NDArray[np.int64]
    kinds: NDArray[np.str_]
    draw: NDArray[np.int64]
    picture: NDArray[np.int64]
    images: list[str]
    sources: list[str]

    def only(self, images: Collection[str]) -> Samples:
        """The samples of some pictures."""
        chosen = [i for i, image in enumerate(self.images) if image in images]
        place = np.full(len(self.images), -1)
        place[chosen] = np.arange(len(chosen))
        kept = np.flatnonzero(place[self.picture] >= 0)
        return Samples(
            self.features[kept], self.labels[kept], self.kinds[kept], self.draw[kept], place[self.picture[kept]],
            [self.images[i] for i in chosen], [self.sources[i] for i in chosen],
        )  # fmt: skip


def draws_of(store: Store, rows: Sequence[int], n_draws: int, seed: int) -> list[Draw]:
    """The samples of some rows: n_draws of each stored view, those of one kind together."""
    allowed = set(rows)
    chosen = [(number, view) for number, view in enumerate(store.views) if view.row in allowed]
    chosen.sort(key=lambda item: (item[1].kind, item[0]))
    return [
        Draw(number, store.rows[view.row].label, (seed, draw, number))
        for draw in range(n_draws)
        for number, view in chosen
    ]


def identity(backbone: torch.nn.Module, plan: BackbonePlan, digest: str) -> str:
    """All of a backbone that its features depend on: its numbers, its preparation, and which outputs are taken.

    Args:
        backbone: as loaded.
        plan: what it was loaded by; its name stands for the code of a `python:` one.
        digest: hash of its numbers.
    """
    prepared = [
        None if (value := getattr(backbone, name, None)) is None else value.flatten().tolist()
        for name in ("mean", "std")
    ]
    return json.dumps([digest, plan.name, plan.pool, list(plan.layers), prepared])


def samples(
    store: Store,
    draws: Sequence[Draw],
    backbone: torch.nn.Module,
    identity: str,
    data: DataPlan,
    how: Augmentation,
    batch_size: int,
    n_workers: int,
    device: str = "cpu",
    quiet: bool = False,
) -> Samples:
    """Compute or read the features of these draws.

    Args:
        store: decoded views.
        draws: which, see draws_of.
        backbone: frozen, on the device.
        identity: see identity.
        data: sides of views.
        how: augmentation.
        batch_size: views at a time.
        n_workers: processes that make views; 0: this one.
        device: where the backbone is.
        quiet: no progress.
    """
    rows = [store.rows[store.views[draw.view].row] for draw in draws]
    sides = {"size_px": data.size_px, "whole_px": data.whole_px}
    facts = [identity, to_dict(how), sides, int(backbone.n_features)]  # type: ignore[arg-type]
    made = []
    for number in dict.fromkeys(draw.seed[1] for draw in draws):  # a file each: more draws go on from fewer
        block = [draw for draw in draws if draw.seed[1] == number]
        kept = _Kept(_stem(store, block, facts), len(block), int(backbone.n_features))  # type: ignore[arg-type]
        _fill(kept, _groups(store, block, batch_size), store, data, how, backbone, n_workers, device, quiet)
        made.append(kept.values)
    index: dict[str, int] = {}
    picture = np.array([index.setdefault(row.image, len(index)) for row in rows], np.int64)
    sources = {row.image: row.source or row.image for row in rows}
    return Samples(
        made[0] if len(made) == 1 else np.concatenate(made),
        np.array([draw.label for draw in draws], np.int64),
        np.array([store.views[draw.view].kind for draw in draws]),
        np.array([draw.seed[1] for draw in draws], np.int64),
        picture,
        list(index),
        [sources[image] for image in index],
    )


def _stem(store: Store, draws: Sequence[Draw], facts: list[object]) -> Path:
    """The file's name without its ending: a hash of all that its numbers depend on."""
    key = hashlib.sha256(json.dumps(facts).encode())
    key.update(str(getattr(store.pixels, "filename", "")).encode())
    key.update(np.array([(draw.view, *draw.seed) for draw in draws], np.int64).tobytes())
    return cache_folder() / "features" / key.hexdigest()[:32]


def _groups(store: Store, draws: Sequence[Draw], batch_size: int) -> list[list[Draw]]:
    """Batches in order, each of one kind of view."""
    groups: list[list[Draw]] = []
    kind = ""
    for draw in draws:
        own = store.views[draw.view].kind
        if not groups or own != kind or len(groups[-1]) == batch_size:
            groups.append([])
        kind = own
        groups[-1].append(draw)
    return groups


class _Kept:
    """A file of float16 (N, D) and, while it is being made, how many rows are done."""

    def __init__(self, stem: Path, n: int, width: int) -> None:
        self.file, self.part, self.place = (stem.with_suffix(s) for s in (".features", ".part", ".json"))
        self.shape = (n, width)
        stem.parent.mkdir(parents=True, exist_ok=True)
        self.n_done = n if self._is_whole(self.file) else 0
        if not self.n_done and self._is_whole(self.part) and self.place.exists():
            self.n_done = int(json.loads(self.place.read_text("utf-8"))["n_done"])
        if not self.n_done:
            with self.part.open("wb") as file:
                file.truncate(n * width * 2)
        mode = "r" if self.n_done == n else "r+"
        self.values: NDArray[np.float16] = np.memmap(
            self.file if mode == "r" else self.part,
            np.float16,
            mode=mode,
            shape=self.shape,  # type: ignore[call-overload]
        )

    def _is_whole(self, path: Path) -> bool:
        return path.is_file() and path.stat().st_size == self.shape[0] * self.shape[1] * 2

    def keep(self, n_done: int) -> None:
        """Say that the first n_done rows are on the disk."""
        self.values.flush()  # type: ignore[attr-defined]
        temporary = self.place.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"n_done": n_done}), "utf-8")
        temporary.replace(self.place)
        self.n_done = n_done

    def finish(self) -> None:
        """All rows are there: take the final name."""
        self.part.replace(self.file)
        self.place.unlink(missing_ok=True)


KEEP_EVERY = 40
"""Batches between notes of how far it is: a killed run does at most so many again."""


def _fill(
    kept: _Kept,
    groups: list[list[Draw]],
    store: Store,
    data: DataPlan,
    how: Augmentation,
    backbone: torch.nn.Module,
    n_workers: int,
    device: str,
    quiet: bool,
) -> None:
    import torch

    if kept.n_done == kept.shape[0]:
        return
    starts = np.cumsum([0, *(len(group) for group in groups)])
    first = int(np.searchsorted(starts, kept.n_done, side="right")) - 1
    shows = not quiet and sys.stderr.isatty()
    for number, (views, _) in enumerate(
        batches(AugmentedViews(store, data, how), groups[first:], n_workers), first
    ):
        with torch.inference_mode():
            found = backbone(views.to(device)).float().cpu().numpy()
        kept.values[starts[number] : starts[number + 1]] = found
        if (number + 1) % KEEP_EVERY == 0 or number + 1 == len(groups):
            kept.keep(int(starts[number + 1]))
        if shows and number % 5 == 0:
            print(
                f"\rfeatures: {starts[number + 1]:,} of {kept.shape[0]:,}",
                end="",
                file=sys.stderr,
                flush=True,
            )
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr)
    kept.finish()
