"""Leakage floors: what can be had without looking for traces of generation. A result near its floor is no result.

metadata    gradient boosting on format, width, height, shape, quality, subsampling and bytes of the file that is scored
sharpness   the same on how sharp and noisy the picture is (see `sharpness`)
sources     how far the detector's own score tells authentic sources from one another: half of them, drawn, against the
            other half; the AUROC (folded) that 97.5 % of 200 such draws stay under
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.bench.figures import Pictures
from mai.data.facts import FileFacts
from mai.data.floor import auroc as fast_auroc
from mai.data.floor import columns_of, floor

if TYPE_CHECKING:
    from mai.types import Pixels

SHARPNESS = ("laplacian", "gradient", "high_share", "noise")


def sharpness(pixels: Pixels) -> tuple[float, ...]:
    """Four figures of uint8 RGB (H, W, 3), on its grey values 0..255.

    Returns:
        log of the variance of the 4-neighbour Laplacian; mean absolute gradient; share of the spectrum's energy above
        half of the highest frequency; median absolute deviation of the difference to a 2x2 mean.
    """
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    laplacian = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    gradient = np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()
    side = min(256, *grey.shape)
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    patch = grey[top : top + side, left : left + side]
    power = np.abs(np.fft.fft2(patch - patch.mean())) ** 2
    f = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :])
    high = power[f > 0.25].sum() / max(float(power.sum()), 1e-9)
    smooth = (grey[:-1, :-1] + grey[1:, :-1] + grey[:-1, 1:] + grey[1:, 1:]) / 4
    rest = grey[:-1, :-1] - smooth
    return (
        float(np.log1p(laplacian.var())),
        float(gradient),
        float(high),
        float(np.median(np.abs(rest - np.median(rest)))),
    )


def file_floors(facts: list[FileFacts], sharp: list[tuple[float, ...]], who: Pictures) -> dict[str, Any]:
    """AUROC of the two classifiers that do not look for traces, cross-validated over sources, with intervals."""
    found: dict[str, Any] = {}
    columns = {
        "metadata": columns_of(facts),
        "sharpness": dict(zip(SHARPNESS, np.array(sharp, np.float64).T, strict=True)),
    }
    for name, own in columns.items():
        interval = floor(own, who.labels, who.units)
        if interval is not None:
            found[name] = interval.to_list()
    return found


def source_floor(
    scores: NDArray[np.float64], who: Pictures, n_draws: int = 200, seed: int = 0
) -> list[float] | None:
    """How far scores tell authentic sources apart: median, and the 2.5 and 97.5 % quantiles of drawn halvings.

    None with fewer than four authentic sources.
    """
    index = np.flatnonzero(~who.labels)
    own = sorted({who.units[i] for i in index.tolist()})
    if len(own) < 4 or not who.has_sources:
        return None
    rng = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(n_draws):
        first = set(rng.permutation(own)[: len(own) // 2].tolist())
        side = np.array([who.units[i] in first for i in index.tolist()])
        area = fast_auroc(scores[index], side)
        values.append(max(area, 1 - area))
    return [round(float(v), 4) for v in np.nanquantile(values, [0.5, 0.025, 0.975])]


def within(auroc: list[float] | None, floors: dict[str, Any]) -> dict[str, bool]:
    """Which floors a result does not clear: its AUROC lies within or below the floor's interval."""
    return {name: bool(auroc is not None and auroc[0] <= value[2]) for name, value in floors.items() if value}
