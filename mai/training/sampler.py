"""Which view stands at which place of which batch: a pure function of (seed, epoch), so a resumed run agrees.

Half of every batch is synthetic. In a class a source's pictures weigh n^-power each, so that a source of n pictures
has n^(1 - power) of the draws: at power 0.5 a source of 400 is drawn 10 times as often as one of 4, not 100 times.

The members of a pair get the same augmentation: the n-th draw of one in an epoch has the seed of the n-th of the other.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mai.data.labelled import pair_of
from mai.data.store import Store
from mai.errors import DataError


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample to be made.

    Attributes:
        view: index in the store's views.
        label: 1 synthetic, 0 authentic.
        seed: seeds of the sample's own random generator.
    """

    view: int
    label: int
    seed: tuple[int, ...]


class BalancedSampler:
    """Draws balanced batches from the views of a store.

    Args:
        store: where the views are.
        rows: indices of the rows that may be drawn (the training split).
        seed: of the run.
        power: see the head of this module.
        whole_share: share of draws that take a picture's whole view where it has both kinds.
        kinds_apart: each batch holds views of one kind, as far as its pictures have both.

    Raises:
        DataError: a class has no picture.
    """

    def __init__(
        self,
        store: Store,
        rows: Sequence[int],
        seed: int,
        power: float,
        whole_share: float,
        kinds_apart: bool = False,
    ) -> None:
        self.seed, self.whole_share, self.kinds_apart = seed, whole_share, kinds_apart
        allowed = set(rows)
        pictures: dict[str, dict[str, list[int]]] = {}
        facts: dict[str, tuple[int, str]] = {}
        for number, view in enumerate(store.views):
            row = store.rows[view.row]
            if view.row in allowed:
                pictures.setdefault(row.image, {}).setdefault(view.kind, []).append(number)
                facts[row.image] = (row.label, row.source or row.image)
        self.pictures = [pictures[name] for name in sorted(pictures)]
        self.pairs = [
            None if (pair := pair_of(name)) is None else zlib.crc32(pair.encode("utf-8", "replace"))
            for name in sorted(pictures)
        ]
        known = [facts[name] for name in sorted(pictures)]
        self.labels = np.array([label for label, _ in known], np.int64)
        size = Counter(known)
        weight = np.array([size[fact] ** -power for fact in known])
        self.members: list[NDArray[np.int64]] = [np.flatnonzero(self.labels == label) for label in (0, 1)]
        for label, name in ((0, "authentic"), (1, "synthetic")):
            if not len(self.members[label]):
                raise DataError(
                    f"Training needs both classes; the training split has no {name} picture. Add some, or divide "
                    "the set anew: mai data split DATA --output split.csv"
                )
        self.weights = [weight[members] / weight[members].sum() for members in self.members]

    def __len__(self) -> int:
        """Pictures that can be drawn."""
        return len(self.pictures)

    def epoch(self, epoch: int, n_batches: int, batch_size: int) -> list[list[Draw]]:
        """All batches of one epoch, each half synthetic, half authentic, in drawn order."""
        rng = np.random.default_rng([self.seed, epoch])
        half = batch_size // 2
        columns = [
            rng.choice(members, n_batches * count, p=weights)
            for members, weights, count in zip(
                self.members, self.weights, (batch_size - half, half), strict=True
            )
        ]
        batches: list[list[Draw]] = []
        drawn: Counter[int] = Counter()
        for b in range(n_batches):
            picks = np.concatenate([columns[0][b * (batch_size - half) :][: batch_size - half],
                                    columns[1][b * half :][:half]])  # fmt: skip
            rng.shuffle(picks)
            chances = rng.random(len(picks))
            if self.kinds_apart:
                chances[:] = chances[0]
            batch = []
            for i, (picture, chance) in enumerate(zip(map(int, picks), chances, strict=True)):
                pair = self.pairs[picture]
                place = (b, i) if pair is None else (pair, drawn[picture])
                drawn[picture] += 1
                batch.append(self._draw(picture, chance, (self.seed, epoch, *place)))
            batches.append(batch)
        return batches

    def _draw(self, picture: int, chance: float, seed: tuple[int, ...]) -> Draw:
        kinds = self.pictures[picture]
        kind = "whole" if chance < self.whole_share else "crop"
        numbers = kinds.get(kind) or next(iter(kinds.values()))
        return Draw(numbers[seed[-1] % len(numbers)], int(self.labels[picture]), seed)
