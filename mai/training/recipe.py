"""What a recipe may say: the keys of `mai/<architecture>/recipes/*.toml`."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, field
from typing import Literal

from mai.config import need, need_share
from mai.data.augment import Augmentation


@dataclass(frozen=True, slots=True)
class DataPlan:
    """How the training set is read.

    Attributes:
        size_px: side of the square that the network sees.
        whole_px: side of whole views where it is not size_px (0: it is); each batch then holds views of one kind.
        whole_share: share of samples that are whole views (the others native crops).
        source_power: how strongly big sources are held back, see training/sampler.py; 0 not at all, 1 fully.
        n_folds: parts that the training split's sources fall into (by a hash of their names); 0: no folds.
        fold: the part that is not trained on, 0..n_folds - 1. `mai export` of runs that hold back different parts
            takes its thresholds from the scores of all those pictures too, each by the run that never saw it.
    """

    size_px: int
    whole_px: int = 0
    whole_share: float = 0.5
    source_power: float = 0.5
    n_folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        need(self.size_px >= 32, "size_px", self.size_px, "at least 32")
        need(self.whole_px == 0 or self.whole_px >= 32, "whole_px", self.whole_px, "0 or at least 32")
        need_share("whole_share", self.whole_share)
        need_share("source_power", self.source_power)
        need(self.n_folds != 1 and self.n_folds >= 0, "n_folds", self.n_folds, "0 or at least 2")
        need(0 <= self.fold < max(1, self.n_folds), "fold", self.fold, "0 to n_folds - 1")

    def holds_back(self, source: str) -> bool:
        """Whether the pictures of a source of the training split are not trained on."""
        return (
            self.n_folds > 0
            and zlib.crc32(source.encode("utf-8", "surrogateescape")) % self.n_folds == self.fold
        )

    def side(self, kind: str) -> int:
        """Side in pixels of views of a kind, `whole` or `crop`."""
        return self.whole_px or self.size_px if kind == "whole" else self.size_px


@dataclass(frozen=True, slots=True)
class OptimizerPlan:
    """How the weights move.

    Attributes:
        name: `adamw` or `rmsprop`.
        lr: highest learning rate.
        weight_decay: of matrices and kernels; biases and norms have none.
        warmup: share of all steps in which the rate rises.
        final: the rate at the end as a share of lr (cosine in between); 1 keeps it constant.
        clip: largest gradient norm; 0: no clipping.
    """

    name: Literal["adamw", "rmsprop"]
    lr: float
    weight_decay: float = 0.0
    warmup: float = 0.05
    final: float = 0.01
    clip: float = 0.0

    def __post_init__(self) -> None:
        need(0 < self.lr < math.inf, "lr", self.lr, "more than 0")
        need(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        need(0 <= self.warmup < 1, "warmup", self.warmup, "0 or more and less than 1")
        need_share("final", self.final)
        need(self.clip >= 0, "clip", self.clip, "0 or more")


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How long and in which steps.

    Attributes:
        epochs: passes; one pass draws as many samples as the training split has pictures.
        batch_size: samples a step (over all processes).
        seed: of all draws and initial weights.
        label_smoothing: targets are smoothing / 2 and 1 - smoothing / 2.
        ema: decay of the averaged weights a step; 0: no average.
        patience: epochs without a better validation AUROC before it stops; 0: never.
        validation_views: most validation views scored an epoch, 0: all.
        frozen_share: share of all steps in which the network's early layers are held (networks with `freeze`).
        hold_norms: batch norms keep the statistics that they came with (for runs that start from trained weights, and
            for batches of one kind of view).
        checkpoint_minutes: minutes between checkpoints inside an epoch.
        layout: `contiguous`, `channels_last`, or `auto`: the faster one, measured at the start. Two runs agree bit for
            bit only with the same one.
        precision: `fp32`, `bf16`, or `auto`: the faster one, measured where the device has bf16 in hardware.
    """

    epochs: int
    batch_size: int = 48
    seed: int = 0
    label_smoothing: float = 0.0
    ema: float = 0.0
    patience: int = 0
    validation_views: int = 0
    frozen_share: float = 0.0
    hold_norms: bool = False
    checkpoint_minutes: float = 5.0
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def __post_init__(self) -> None:
        need(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        need(self.batch_size >= 2, "batch_size", self.batch_size, "at least 2, one of each class")
        need(self.seed >= 0, "seed", self.seed, "0 or more")
        for name in ("label_smoothing", "ema"):
            value = getattr(self, name)
            need(0 <= value < 1, name, value, "0 or more and less than 1")
        need(self.patience >= 0, "patience", self.patience, "0 or more")
        need(self.validation_views == 0 or self.validation_views >= 2, "validation_views", self.validation_views,
             "0 or at least 2")  # fmt: skip
        need_share("frozen_share", self.frozen_share)
        need(self.checkpoint_minutes > 0, "checkpoint_minutes", self.checkpoint_minutes, "more than 0")


@dataclass(frozen=True, slots=True)
class TeacherPlan:
    """Weights whose answers are learned beside the labels, see training/teacher.py.

    Attributes:
        weights: name of shipped weights or folder of exported ones; empty: there is no teacher.
        share: of the target that is the teacher's calibrated score; the rest is the label.
        patches: weight in the loss of the squared difference of the maps of patch logits; 0: they are not compared.
    """

    weights: str = ""
    share: float = 0.7
    patches: float = 0.0

    def __post_init__(self) -> None:
        need_share("share", self.share)
        need(0 <= self.patches < math.inf, "patches", self.patches, "0 or more")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A whole recipe.

    Attributes:
        architecture: which network.
        init: `scratch`, `imagenet`, or the path of a checkpoint or weights file to start from.
        data: see DataPlan.
        optimizer: see OptimizerPlan.
        run: see RunPlan.
        augment: see mai.data.augment.Augmentation.
        teacher: see TeacherPlan.
        dropout: before the last layer, 0..1.
    """

    architecture: str
    data: DataPlan
    optimizer: OptimizerPlan
    run: RunPlan
    augment: Augmentation = field(default_factory=Augmentation)
    teacher: TeacherPlan = field(default_factory=TeacherPlan)
    init: str = "scratch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        need(0 <= self.dropout < 1, "dropout", self.dropout, "0 or more and less than 1")
