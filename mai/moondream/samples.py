"""Which pictures stand in which batch, and what a sample is: both classes through the same drawn size and codec.

Everything comes in units of two, one authentic picture and one synthetic. Where the set has pairs (images named
`ID/authentic` and `ID/synthetic`) a unit is a pair, changed by the same draws; else the two are drawn with balanced
sources. Where more synthetic pictures than authentic ones have no partner, paired authentic ones are lent to them, so
that none is left out. A unit is never torn: not by micro-batches, not by processes. The side in pixels is drawn for a
whole batch, so that neither the size nor the number of tiles that follows from it says anything about the class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from mai.data.augment import Augmentation, augment
from mai.data.sources import Row
from mai.data.store import FOR_EVALUATION, decode_row
from mai.errors import DataError, ImageError

if TYPE_CHECKING:
    from mai.types import Pixels

HALVES = ("/authentic", "/synthetic")


@dataclass(frozen=True, slots=True)
class Unit:
    """One authentic and one synthetic sample.

    Attributes:
        rows: their indices in the set's rows, authentic first.
        seeds: of each one's random generator; the same for the halves of a pair.
        size_px: side of both.
    """

    rows: tuple[int, int]
    seeds: tuple[tuple[int, ...], tuple[int, ...]]
    size_px: int


class UnitSampler:
    """Draws units from the training rows: a pure function of (seed, epoch).

    Args:
        rows: of the whole set.
        allowed: indices of those that may be drawn.
        seed: of the run.
        power: see training/sampler.py.
        sizes: sides in pixels; one is drawn a batch.

    Raises:
        DataError: a class has no picture.
    """

    def __init__(
        self, rows: Sequence[Row], allowed: Sequence[int], seed: int, power: float, sizes: Sequence[int]
    ) -> None:
        self.seed, self.sizes = seed, tuple(sizes)
        files: dict[str, list[int]] = {}
        facts: dict[str, tuple[int, str]] = {}
        for i in allowed:
            if rows[i].view != FOR_EVALUATION:
                files.setdefault(rows[i].image, []).append(i)
                facts[rows[i].image] = (rows[i].label, rows[i].source or rows[i].image)
        self.names = sorted(files)
        self.files = [files[name] for name in self.names]
        place = {name: i for i, name in enumerate(self.names)}
        labels = np.array([facts[name][0] for name in self.names], np.int64)
        for label, name in ((0, "authentic"), (1, "synthetic")):
            if not (labels == label).any():
                raise DataError(f"Training needs both classes; the training split has no {name} picture.")
        self.partner = {}
        for name, i in place.items():
            other = name.removesuffix(HALVES[0]) + HALVES[1]
            if name.endswith(HALVES[0]) and labels[i] == 0 and other in place and labels[place[other]] == 1:
                self.partner[i] = place[other]
        size = Counter(facts[name] for name in self.names)
        weight = np.array([size[facts[name]] ** -power for name in self.names])
        self.authentic = np.flatnonzero(labels == 0)
        single = np.setdiff1d(np.flatnonzero(labels == 1), list(self.partner.values()))
        # An authentic picture without a partner takes a synthetic one that has none, if there is any.
        self.synthetic = single if len(single) else np.flatnonzero(labels == 1)
        self.chances = [_shares(weight[members]) for members in (self.authentic, self.synthetic)]
        alone = np.setdiff1d(self.authentic, list(self.partner))
        unpaired = float(weight[alone].sum() / weight[self.authentic].sum())
        wanted = float(weight[single].sum() / weight[labels == 1].sum())
        # Chance that a paired authentic picture leaves its partner for a synthetic one that has none.
        self.lent = max(0.0, (wanted - unpaired) / (1 - unpaired)) if self.partner else 0.0

    def __len__(self) -> int:
        """Pictures that can be drawn."""
        return len(self.names)

    def epoch(self, epoch: int, n_batches: int, n_units: int) -> list[list[Unit]]:
        """All batches of an epoch, n_units units each, in drawn order."""
        rng = np.random.default_rng([self.seed, epoch])
        authentic = rng.choice(self.authentic, n_batches * n_units, p=self.chances[0])
        synthetic = rng.choice(self.synthetic, n_batches * n_units, p=self.chances[1])
        sides = rng.choice(self.sizes, n_batches)
        is_lent = rng.random(n_batches * n_units) < self.lent if self.lent else np.zeros(len(authentic), bool)
        batches: list[list[Unit]] = []
        for b in range(n_batches):
            units = []
            for i in range(n_units):
                k = b * n_units + i
                seed: tuple[int, ...] = (self.seed, epoch, b, i)
                one, other = int(authentic[k]), int(synthetic[k])
                seeds = (seed, (*seed, 1))
                if one in self.partner and not is_lent[k]:
                    other, seeds = self.partner[one], (seed, seed)
                view = int(rng.integers(1 << 30))  # the same view of both halves of a pair
                rows = tuple(self.files[p][view % len(self.files[p])] for p in (one, other))
                units.append(Unit((rows[0], rows[1]), seeds, int(sides[b])))
            batches.append(units)
        return batches


def _shares(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = weights / weights.sum()
    return shares


def sample(row: Row, seed: tuple[int, ...], size_px: int, how: Augmentation) -> Pixels:
    """One sample, uint8 RGB (size_px, size_px, 3): a drawn square, size, codec, by draws that do not know the label.

    Raises:
        ImageError: the file cannot be read.
    """
    return augment(decode_row(row), np.random.default_rng(seed), size_px, how)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A batch as it comes from a worker.

    Attributes:
        inputs: what the model's `collate` made; None if no unit could be read.
        n_units: units in it.
        broken: file -> sentence; a unit with a file that cannot be read is left out.
    """

    inputs: dict[str, Any] | None
    n_units: int
    broken: dict[str, str]


class UnitViews:
    """A map-style torch data set whose keys are lists of units and whose items are whole batches.

    Args:
        rows: of the set.
        how: strengths of the augmentation.
        collate: (views, labels) -> inputs of the model.
    """

    def __init__(self, rows: Sequence[Row], how: Augmentation, collate: Any) -> None:
        self.rows, self.how, self.collate = rows, how, collate

    def __getitem__(self, units: Sequence[Unit]) -> Drawn:
        """Read, change, collate."""
        views: list[Pixels] = []
        broken: dict[str, str] = {}
        for unit in units:
            made = []
            for row, seed in zip(unit.rows, unit.seeds, strict=True):
                try:
                    made.append(sample(self.rows[row], seed, unit.size_px, self.how))
                except ImageError as error:
                    broken[self.rows[row].file] = str(error)
            if len(made) == len(unit.rows):
                views += made
        n = len(views) // 2
        return Drawn(self.collate(views, [0, 1] * n) if n else None, n, broken)


def drawn(views: UnitViews, plan: Sequence[Sequence[Unit]], n_workers: int) -> Iterator[Drawn]:
    """All batches of `plan`, in order, made in worker processes."""
    from mai.training.batches import batches

    yield from cast(Iterator[Drawn], batches(cast(Any, views), cast(Any, plan), n_workers))
