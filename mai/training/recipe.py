"""What a recipe may say: the keys of `mai/<architecture>/recipes/*.toml`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mai.data.augment import Augmentation


@dataclass(frozen=True, slots=True)
class DataPlan:
    """How the training set is read.

    Attributes:
        size_px: side of the square that the network sees.
        whole_share: share of samples that are whole views (the others native crops).
        source_power: how strongly big sources are held back, see training/sampler.py; 0 not at all, 1 fully.
    """

    size_px: int
    whole_share: float = 0.5
    source_power: float = 0.5


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
        checkpoint_minutes: minutes between checkpoints inside an epoch.
    """

    epochs: int
    batch_size: int = 48
    seed: int = 0
    label_smoothing: float = 0.0
    ema: float = 0.0
    patience: int = 0
    validation_views: int = 0
    frozen_share: float = 0.0
    checkpoint_minutes: float = 5.0


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
        dropout: before the last layer, 0..1.
    """

    architecture: str
    data: DataPlan
    optimizer: OptimizerPlan
    run: RunPlan
    augment: Augmentation = field(default_factory=Augmentation)
    init: str = "scratch"
    dropout: float = 0.0
