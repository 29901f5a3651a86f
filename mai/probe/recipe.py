"""What a recipe of `mai train probe` may say: the keys of `mai/probe/recipes/*.toml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mai.config import need, need_share
from mai.data.augment import Augmentation


@dataclass(frozen=True, slots=True)
class BackbonePlan:
    """Which frozen network, and how its output becomes features.

    Attributes:
        name: `pixel:imagenet`, `moondream:FOLDER`, `hub:ORG/NAME` or a folder (a transformers model), `timm:NAME`,
            `python:MODULE:FUNCTION`; see mai/probe/README.md.
        revision: branch, tag or commit of a hub repository; empty: its main branch.
        pool: `auto`, `cls`, `mean`, `cls_mean`, `pooler`, or `stages` (only `pixel:imagenet`).
        layers: hidden layers of a transformers model whose pooled outputs are joined, e.g. [-1, -4]; empty: the last.
        size_px: side of native views; 0: the backbone's own.
        whole_px: side of whole views; 0: size_px.
    """

    name: str
    revision: str = ""
    pool: Literal["auto", "cls", "mean", "cls_mean", "pooler", "stages"] = "auto"
    layers: tuple[int, ...] = ()
    size_px: int = 0
    whole_px: int = 0

    def __post_init__(self) -> None:
        for name in ("size_px", "whole_px"):
            value = getattr(self, name)
            need(value == 0 or value >= 32, name, value, "0 or at least 32")


@dataclass(frozen=True, slots=True)
class HeadPlan:
    """How the head is fitted.

    Attributes:
        penalties: strengths of the L2 penalty to choose from (1 / C of scikit-learn, over all samples), the largest
            first; the one with the best AUROC on left-out sources is taken.
        folds: parts that the sources are cut into; each is left out once for that choice.
        source_power: how strongly big sources are held back, as in training/sampler.py; 0 not at all, 1 fully.
        draws: augmented samples of each view.
        whole_share: weight of whole views in the fit (the others native crops).
    """

    penalties: tuple[float, ...] = (30000.0, 10000.0, 3000.0, 1000.0, 300.0, 100.0, 30.0, 10.0)
    folds: int = 5
    source_power: float = 0.5
    draws: int = 2
    whole_share: float = 0.5

    def __post_init__(self) -> None:
        need(bool(self.penalties) and min(self.penalties) > 0, "penalties", self.penalties, "numbers over 0")
        need(self.folds >= 2, "folds", self.folds, "at least 2")
        need(self.draws >= 1, "draws", self.draws, "at least 1")
        need_share("source_power", self.source_power)
        need_share("whole_share", self.whole_share)


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What is drawn.

    Attributes:
        seed: of all draws and of the split.
        batch_size: views that go through the backbone at a time.
    """

    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        need(self.seed >= 0, "seed", self.seed, "0 or more")
        need(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")


@dataclass(frozen=True, slots=True)
class ProbeRecipe:
    """A whole recipe of the probe.

    Attributes:
        architecture: `probe`.
        backbone: see BackbonePlan.
        head: see HeadPlan.
        run: see RunPlan.
        augment: see mai.data.augment.Augmentation.
    """

    architecture: str
    backbone: BackbonePlan
    head: HeadPlan = field(default_factory=HeadPlan)
    run: RunPlan = field(default_factory=RunPlan)
    augment: Augmentation = field(default_factory=Augmentation)
