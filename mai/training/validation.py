"""Scores on the validation split under the aligned protocol, one a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mai.data.augment import aligned, draw_name
from mai.data.store import Store
from mai.images.views import by_side
from mai.training.recipe import DataPlan

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class AlignedViews:
    """Views made once by the aligned protocol, and whose they are.

    Attributes:
        views: N arrays uint8 (S, S, 3), S the side of views of that kind.
        kinds: (N,) `whole` or `crop`.
        picture: (N,) index in `images`.
        images: (P,) names of the pictures.
        labels: (P,) 1 synthetic, 0 authentic.
        sources: (P,).
        generators: (P,) empty for authentic ones.
        contents: (P,) kind of content, empty where the set does not say.
    """

    views: list[NDArray[np.uint8]]
    kinds: NDArray[np.str_]
    picture: NDArray[np.int64]
    images: list[str]
    labels: NDArray[np.int64]
    sources: list[str]
    generators: list[str]
    contents: list[str]

    def per_picture(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean logit of each picture's views, (N,) -> (P,)."""
        total = np.bincount(self.picture, logits, len(self.images))
        return total / np.bincount(self.picture, minlength=len(self.images))


def aligned_views(
    store: Store, rows: Sequence[int], plan: DataPlan, seed: int = 0, most: int = 0
) -> AlignedViews:
    """Make the aligned views of the given rows; each view's draws depend only on the seed and the picture's name.

    Args:
        store: the decoded set.
        rows: indices of rows.
        plan: says the side of each kind of view.
        seed: of the draws.
        most: keep at most this many views, spread evenly; 0: all.
    """
    import zlib

    allowed = set(rows)
    chosen = [view for view in store.views if view.row in allowed]
    if most and len(chosen) > most:
        chosen = [chosen[round(i * (len(chosen) - 1) / (most - 1))] for i in range(most)]
    index: dict[str, int] = {}
    firsts: list[int] = []
    views: list[NDArray[np.uint8]] = []
    picture = np.empty(len(chosen), np.int64)
    for i, view in enumerate(chosen):
        row = store.rows[view.row]
        if row.image not in index:
            index[row.image] = len(index)
            firsts.append(view.row)
        name = zlib.crc32(f"{draw_name(row.image)}:{view.kind}".encode())
        rng = np.random.default_rng([seed, name])
        views.append(aligned(store.read(view), rng, plan.side(view.kind))[0])
        picture[i] = index[row.image]
    facts = [store.rows[i] for i in firsts]
    return AlignedViews(
        views=views,
        kinds=np.array([view.kind for view in chosen]),
        picture=picture,
        images=list(index),
        labels=np.array([row.label for row in facts], np.int64),
        sources=[row.source or row.image for row in facts],
        generators=[row.generator or "" for row in facts],
        contents=[row.content or "" for row in facts],
    )


def score_views(
    model: torch.nn.Module, views: Sequence[NDArray[np.uint8]], device: str, batch_size: int = 64
) -> NDArray[np.float64]:
    """Logits (N,) of N uint8 views (S, S, 3), which may differ in S, in evaluation mode, fp32."""
    import torch

    was_training = model.training
    model.eval()
    out = np.empty(len(views), np.float64)
    with torch.inference_mode():
        for start in range(0, len(views), batch_size):
            for places, batch in by_side(views[start : start + batch_size]):
                logits = model(torch.from_numpy(batch).to(device)).float().cpu().numpy()
                out[[start + place for place in places]] = logits
    model.train(was_training)
    return out
