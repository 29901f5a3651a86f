"""The square views of a picture that a network sees: the same code in training, export, evaluation and use.

Shape gives the class away in most sets (synthetic pictures are square far more often), so every view is a square
window; nothing is ever squashed. Two kinds, because a picture tells two things:

- `whole`: windows as large as the picture's short side, spread along the long side, made small: what it shows.
- `native`: windows at the picture's own resolution: the traces that its making left.

Only numpy and Pillow: a plain install uses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image as PILImage

if TYPE_CHECKING:
    from mai.types import Pixels


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """Which views of a picture are made.

    Attributes:
        size_px: side of the square that the network sees.
        whole_px: side of the square that a whole window becomes, where it is not size_px (0: it is).
        n_whole: most whole windows, spread along the long side; 0: none.
        whole_share: side of a whole window as a share of the picture's short side, 0..1.
        n_native: most native windows; 0: none.
        native_px: side of a native window before it becomes size_px.
        whole_weight: weight of the mean whole logit in the picture's logit, 0..1; the native mean has the rest.
        min_side_px: short side under which a picture is too small to be judged.
    """

    size_px: int
    n_whole: int
    whole_share: float
    n_native: int
    native_px: int
    whole_weight: float = 0.5
    min_side_px: int = 64
    whole_px: int = 0

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides in pixels of the views that the network gets, each once."""
        return tuple(dict.fromkeys((self.side("whole"), self.size_px)))

    def side(self, kind: str) -> int:
        """Side in pixels of a view of a kind: `whole`, or any other for native ones."""
        return self.whole_px or self.size_px if kind == "whole" else self.size_px

    @property
    def asks_native(self) -> bool:
        """Whether native views count where there is a whole one; where not, they are for rows that are crops alone."""
        return self.n_native > 0 and (self.whole_weight < 1 or not self.n_whole)

    @property
    def least_px(self) -> int | None:
        """Short side in pixels at which a picture may be decoded for these views; None: at its own, all count.

        The whole view alone is made small anyway; from GAP times its side on, the first step of that may be the
        decoder's. Never under `min_side_px`: a picture is too small by its own side, not by the decoder's.
        """
        if self.asks_native or self.n_whole != 1 or self.whole_share <= 0:
            return None
        return max(math.ceil(GAP * self.side("whole") / self.whole_share), self.min_side_px)

    def combine(self, whole: ArrayLike, native: ArrayLike) -> float:
        """One logit a picture from the logits of its views: the mean of each kind, weighted.

        Raises:
            ValueError: there is no view of either kind.
        """
        w, n = np.asarray(whole, np.float64), np.asarray(native, np.float64)
        if not w.size and not n.size:
            raise ValueError("no views")
        if not n.size or not w.size:
            return float(w.mean() if w.size else n.mean())
        return float(self.whole_weight * w.mean() + (1 - self.whole_weight) * n.mean())


GAP = 1.5
"""Averages of whole blocks of pixels first, down to 1.5 times the size wanted, then the cubic kernel: 1.7 ms in place
of 4.8 for 833 -> 160 px, and the mean difference is under one level of 255."""


def resize(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resize with an antialiased cubic kernel (Pillow BICUBIC, see GAP).

    Args:
        pixels: uint8 RGB (H, W, 3).
        height: rows wanted.
        width: columns wanted.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    image = PILImage.fromarray(pixels)
    return np.asarray(image.resize((width, height), PILImage.Resampling.BICUBIC, reducing_gap=GAP))


def shrink_short_side(pixels: Pixels, short_px: int) -> Pixels:
    """Resize so that the short side is `short_px`, the shape kept."""
    height, width = pixels.shape[:2]
    scale = short_px / min(height, width)
    return resize(pixels, max(short_px, round(height * scale)), max(short_px, round(width * scale)))


Box = tuple[int, int, int]
"""A square window: first row, first column, side, in pixels of the picture."""


def box_at(height: int, width: int, side: int, y: float, x: float) -> Box:
    """The square of `side` pixels at relative position (y, x), 0 top/left .. 1 bottom/right.

    A picture smaller than the square gives its largest square at that position.
    """
    side = min(side, height, width)
    return round((height - side) * y), round((width - side) * x), side


def cut(pixels: Pixels, box: Box) -> Pixels:
    """The pixels of a window, not copied."""
    top, left, side = box
    return pixels[top : top + side, left : left + side]


def square_at(pixels: Pixels, side: int, y: float, x: float) -> Pixels:
    """Cut the square that box_at names."""
    height, width = pixels.shape[:2]
    return cut(pixels, box_at(height, width, side, y, x))


def whole_boxes(height: int, width: int, plan: ViewPlan) -> list[Box]:
    """Where the whole windows of a picture lie; one if it is nearly square, n_whole if long."""
    if not plan.n_whole:
        return []
    n = 1 if max(height, width) < 1.2 * min(height, width) else plan.n_whole
    steps = [0.5] if n == 1 else [i / (n - 1) for i in range(n)]
    side = max(1, round(min(height, width) * plan.whole_share))
    return [box_at(height, width, side, s, s) for s in steps]


def whole_views(pixels: Pixels, plan: ViewPlan) -> list[Pixels]:
    """Whole windows of a picture, each uint8 (S, S, 3), S the plan's side of whole views."""
    height, width = pixels.shape[:2]
    side = plan.side("whole")
    return [resize(cut(pixels, box), side, side) for box in whole_boxes(height, width, plan)]


NATIVE_PLACES: tuple[tuple[float, float], ...] = (
    (0.5, 0.5),
    (0.25, 0.25),
    (0.75, 0.75),
    (0.25, 0.75),
    (0.75, 0.25),
)
"""Where native windows are cut, (y, x), the middle first."""


def native_boxes(height: int, width: int, plan: ViewPlan) -> list[Box]:
    """Where the native windows of a picture lie; fewer if it is hardly larger than one."""
    if not plan.n_native:
        return []
    roomy = min(height, width) >= 1.5 * plan.native_px
    places = NATIVE_PLACES[: plan.n_native] if roomy else NATIVE_PLACES[:1]
    return [box_at(height, width, plan.native_px, y, x) for y, x in places]


def native_views(pixels: Pixels, plan: ViewPlan) -> list[Pixels]:
    """Native windows of a picture, each uint8 (size_px, size_px, 3)."""
    height, width = pixels.shape[:2]
    boxes = native_boxes(height, width, plan)
    return [resize(cut(pixels, box), plan.size_px, plan.size_px) for box in boxes]


def by_side(views: Sequence[Pixels]) -> Iterator[tuple[list[int], Pixels]]:
    """Views of one size together: their places in `views`, and uint8 (B, S, S, 3)."""
    for side in dict.fromkeys(view.shape[0] for view in views):
        places = [i for i, view in enumerate(views) if view.shape[0] == side]
        yield places, np.stack([views[i] for i in places])
