"""Draws -> batches of uint8 views, made in worker processes beside the training."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

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

        kinds = {self.store.views[draw.view].kind for draw in draws}
        side = self.plan.side("whole" if kinds == {"whole"} else "crop")
        views = np.empty((len(draws), side, side, 3), np.uint8)
        for i, draw in enumerate(draws):
            pixels = self.store.read(self.store.views[draw.view])
            views[i] = augment(pixels, np.random.default_rng(draw.seed), side, self.how)
        labels = np.fromiter((draw.label for draw in draws), np.float32, len(draws))
        if self.how.cutmix and draws:
            cutmix(views, labels, np.random.default_rng([*draws[0].seed, 1]), self.how.cutmix)
        return torch.from_numpy(views), torch.from_numpy(labels)


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
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)


def batches(
    views: AugmentedViews, plan: Iterable[Sequence[Draw]], n_workers: int
) -> Generator[tuple[Any, Any]]:
    """All batches of `plan`, in order, whatever the number of workers, which begin with this call.

    Args:
        views: makes the batches.
        plan: the draws of each batch.
        n_workers: processes beside this one; 0 makes the batches here.
    """
    import torch
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        views,  # type: ignore[arg-type]  # its keys are lists of draws, batches come ready
        sampler=plan,
        batch_size=None,
        num_workers=n_workers,
        prefetch_factor=3 if n_workers else None,
        worker_init_fn=_start_worker,
        multiprocessing_context="fork" if n_workers else None,
        # A loader draws a seed for its workers; not from the run's own generator, which a resumed run, with a loader
        # more, would find elsewhere (dropout draws from it).
        generator=torch.Generator(),
    )
    ready = iter(loader)  # forks the workers, now and not at the first batch

    def go_on() -> Generator[tuple[Any, Any]]:
        yield from ready

    return go_on()
