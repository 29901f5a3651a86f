"""Draws -> batches of uint8 views, made in worker processes beside the training."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.data.augment import Augmentation, augment, cutmix
from mai.data.store import Store
from mai.training.recipe import DataPlan
from mai.training.sampler import Draw

if TYPE_CHECKING:
    import torch


class AugmentedViews:
    """A map-style torch data set whose keys are lists of draws and whose items are whole batches."""

    def __init__(self, store: Store, plan: DataPlan, how: Augmentation) -> None:
        self.store, self.plan, self.how = store, plan, how

    def __getitem__(self, draws: Sequence[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
        """Views uint8 (B, S, S, 3) and labels float32 (B,)."""
        import torch

        views = np.empty(self.shape(draws), np.uint8)
        return torch.from_numpy(views), torch.from_numpy(self.fill(views, draws))

    def shape(self, draws: Sequence[Draw]) -> tuple[int, int, int, int]:
        """Of the views of a batch: (B, S, S, 3)."""
        kinds = {self.store.views[draw.view].kind for draw in draws}
        side = self.plan.side("whole" if kinds == {"whole"} else "crop")
        return len(draws), side, side, 3

    def fill(self, views: NDArray[np.uint8], draws: Sequence[Draw]) -> NDArray[np.float32]:
        """Make a batch in `views`, of the shape above, and return its labels, float32 (B,)."""
        for i, draw in enumerate(draws):
            pixels = self.store.read(self.store.views[draw.view])
            views[i] = augment(pixels, np.random.default_rng(draw.seed), views.shape[1], self.how)
        labels = np.fromiter((draw.label for draw in draws), np.float32, len(draws))
        if self.how.cutmix and draws:
            cutmix(views, labels, np.random.default_rng([*draws[0].seed, 1]), self.how.cutmix)
        return labels


class _Slots:
    """Memory that workers and this process share, one slot a batch under way, used again and again.

    A batch sent as tensors gets new shared memory each time, and every page of it a fault in both processes.
    """

    def __init__(self, views: AugmentedViews, n_slots: int, n_draws: int) -> None:
        side = max(views.plan.side(kind) for kind in ("whole", "crop"))
        self.views, self.n_slots, self.n_bytes = views, n_slots, max(1, n_draws) * side * side * 3
        self._memory = np.frombuffer(mmap.mmap(-1, n_slots * self.n_bytes), np.uint8)  # inherited by a fork

    def read(self, number: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The views of batch `number`, uint8 (B, S, S, 3), without copying."""
        first = number % self.n_slots * self.n_bytes
        return self._memory[first : first + math.prod(shape)].reshape(shape)

    def __getitem__(self, job: tuple[int, Sequence[Draw]]) -> tuple[Any, NDArray[np.float32]]:
        """In a worker: make a batch in its slot; its number and shape, and its labels. What does not fit is sent."""
        number, draws = job
        shape = self.views.shape(draws)
        if math.prod(shape) > self.n_bytes:
            views = np.empty(shape, np.uint8)
            return views, self.views.fill(views, draws)
        return (number, shape), self.views.fill(self.read(number, shape), draws)


class Draws:
    """The draws of batches to come, made as they are needed.

    Args:
        make: begins them anew.
    """

    def __init__(self, make: Callable[[], Iterator[Sequence[Draw]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Sequence[Draw]]:
        return self._make()


def _start_worker(_: int) -> None:
    import gc

    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    gc.freeze()  # what came with the fork is no garbage: do not look through it, nor write to its pages


def _as_it_is(item: Any) -> Any:
    return item


PREFETCH = 3
"""Batches that each worker makes ahead."""


def batches(
    views: AugmentedViews, plan: Iterable[Sequence[Draw]], n_workers: int
) -> Generator[tuple[Any, Any]]:
    """All batches of `plan`, in order, whatever the number of workers, which begin with this call.

    Args:
        views: makes the batches; another map of batches, of any kind, is read through the same workers.
        plan: the draws of each batch.
        n_workers: processes beside this one; 0 makes the batches here.
    """
    if not n_workers or not isinstance(views, AugmentedViews):
        return _handed_on(_started(views, plan, n_workers))
    rest = iter(plan)
    first = next(rest, ())
    # Those under way, the one that the caller waits for, and one to spare.
    slots = _Slots(views, n_workers * PREFETCH + 2, len(first))
    numbered = enumerate(chain([first] if first else [], rest))
    return _copied(_started(slots, numbered, n_workers, _as_it_is), slots)


def _started(source: Any, plan: Iterable[Any], n_workers: int, collate: Any = None) -> Iterator[Any]:
    import torch
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        source,  # its keys are lists of draws, batches come ready
        sampler=plan,
        batch_size=None,
        num_workers=n_workers,
        prefetch_factor=PREFETCH if n_workers else None,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if n_workers else None,
        collate_fn=collate,
        # A loader draws a seed for its workers; not from the run's own generator, which a resumed run, with a loader
        # more, would find elsewhere (dropout draws from it).
        generator=torch.Generator(),
    )
    return iter(loader)  # forks the workers, now and not at the first batch


def _handed_on(ready: Iterator[Any]) -> Generator[tuple[Any, Any]]:
    yield from ready


def _copied(ready: Iterator[Any], slots: _Slots) -> Generator[tuple[Any, Any]]:
    """Batches in memory of their own: a slot is soon written again."""
    import torch

    for made, labels in ready:
        views = slots.read(*made).copy() if isinstance(made, tuple) else made
        yield torch.from_numpy(views), torch.from_numpy(labels)
