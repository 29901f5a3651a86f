"""What a network remembers of the pictures that it was made with: `memory.npz` beside its weights.

Mean features (D,) of the calibration split's pictures and of some training pictures, a byte a number, no pictures.
`mai adapt` needs them: the first to fit calibration and thresholds of the changed network and to measure what it
unlearns, the second to hold its answers where they were.

    calibration, train     uint8 (N, D), value = byte * scale
    *_labels               uint8 (N,) 1 synthetic, 0 authentic
    *_sources              str (N,)
    scale                  float32 (D,)
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai.errors import WeightsError
from mai.images.views import ViewPlan
from mai.pixel.head import Features, picture_feature

if TYPE_CHECKING:
    from mai.data.sources import LabelledSet, Row

FILE = "memory.npz"
N_TRAIN = 800


@dataclass(frozen=True, slots=True)
class Remembered:
    """Features of one split.

    Attributes:
        features: float64 (N, D).
        labels: int64 (N,).
        sources: (N,) names.
    """

    features: NDArray[np.float64]
    labels: NDArray[np.int64]
    sources: list[str]


def features_of(
    rows: Sequence[Row], run: Features, plan: ViewPlan, protocol: str = "aligned"
) -> tuple[Remembered, dict[str, str]]:
    """Features of labelled rows, one a picture, and the files that could not be read (file -> sentence).

    Args:
        rows: all views of a picture share its `image`.
        run: Head.features.
        plan: which views are made.
        protocol: `native` or `aligned`.
    """
    from mai.training.evaluation import decoded, views_of_row

    views: dict[str, tuple[list[Any], list[Any]]] = {}
    facts: dict[str, tuple[int, str]] = {}
    broken: dict[str, str] = {}
    for row, pixels in decoded(rows, broken):
        whole, native = views_of_row(row, pixels, plan, protocol)
        known = views.setdefault(row.image, ([], []))
        known[0].extend(whole)
        known[1].extend(native)
        facts[row.image] = (row.label, row.unit)
    made = [picture_feature(run, *views[image], plan) for image in views]
    labels = np.array([facts[image][0] for image in views], np.int64)
    return Remembered(np.array(made), labels, [facts[image][1] for image in views]), broken


def write(folder: Path, labelled: LabelledSet, run: Features, plan: ViewPlan) -> None:
    """Make the memory of freshly exported weights; none where the set has no pictures of one of the two splits."""
    chosen = [row for row in labelled.rows if row.view != "web"]
    images = sorted({row.image for row in chosen if row.split == "train"})
    rng = np.random.default_rng(0)
    kept = set(rng.permutation(np.array(images, dtype=object))[:N_TRAIN].tolist())
    parts = {
        "calibration": [row for row in chosen if row.split == "calibration"],
        "train": [row for row in chosen if row.split == "train" and row.image in kept],
    }
    if not all(parts.values()):  # as in mai bench leave-out, which exports with the calibration split alone
        return
    found = {name: features_of(rows, run, plan)[0] for name, rows in parts.items()}
    highest = np.max([part.features.max(0) for part in found.values()], axis=0)
    scale = np.maximum(highest, 1e-6) / 255
    values: dict[str, Any] = {"scale": scale.astype(np.float32)}
    for name, part in found.items():
        values[name] = np.rint(part.features / scale).clip(0, 255).astype(np.uint8)
        values[f"{name}_labels"] = part.labels.astype(np.uint8)
        values[f"{name}_sources"] = np.array(part.sources)
    np.savez_compressed(folder / FILE, **values)


def read(folder: Path) -> dict[str, Remembered]:
    """`calibration` and `train` of a weights folder.

    Raises:
        WeightsError: there is no memory, or it cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise WeightsError(
            f"{folder.name} has no {FILE}, without which an adapted network cannot be calibrated. "
            "Export it again (mai export), or take weights that have one."
        )
    try:
        with np.load(path, allow_pickle=False) as found:
            scale = found["scale"].astype(np.float64)
            return {
                name: Remembered(
                    found[name] * scale,
                    found[f"{name}_labels"].astype(np.int64),
                    found[f"{name}_sources"].tolist(),
                )
                for name in ("calibration", "train")
            }
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise WeightsError(f"{path} cannot be read: {error!r}. Reinstall mai-identifier.") from error
