"""`mai train pixel`: what the shared loop needs to know of the default network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mai.images.views import ViewPlan
from mai.training.architectures import Architecture
from mai.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from mai.data.sources import LabelledSet
    from mai.measure.calibrate import Calibration
    from mai.weights import Weights


def build(recipe: Recipe) -> torch.nn.Module:
    """The network, from ImageNet weights, from scratch or from given weights."""
    from mai.pixel.model import Pixel, load_imagenet
    from mai.training.start import fill, read_state

    model = Pixel(recipe.dropout)
    if recipe.init == "imagenet":
        load_imagenet(model)
    elif recipe.init != "scratch":
        fill(model, read_state(recipe.init), recipe.init)
    return model


def with_patches(model: torch.nn.Module) -> torch.nn.Module:
    """The network with two outputs, logit (B,) and patches (B, h, w); the logit is the mean of the patches."""
    from mai.pixel.model import Patches

    return Patches(model)


def together(members: Sequence[torch.nn.Module], fits: Sequence[Calibration]) -> torch.nn.Module:
    """Trained networks as one, whose logit is the mean of theirs, each calibrated first."""
    from mai.pixel.model import Ensemble, Pixel

    networks = [member for member in members if isinstance(member, Pixel)]
    return Ensemble(networks, [fit.slope for fit in fits], [fit.offset for fit in fits])


def remember(weights: Weights, labelled: LabelledSet) -> None:
    """Keep what `mai adapt` needs beside fresh weights, see memory.py."""
    from mai.machine import n_cpus
    from mai.pixel import memory
    from mai.pixel.head import Head

    plan = ViewPlan(**weights.preprocessing)
    memory.write(weights.folder, labelled, Head(weights.model_bytes()).features(n_cpus()), plan)


ARCHITECTURE = Architecture(
    name="pixel",
    build=build,
    with_patches=with_patches,
    together=together,
    finish=remember,
    plan=ViewPlan(
        size_px=160, n_whole=1, whole_share=1.0, n_native=2, native_px=160, whole_weight=0.8, whole_px=224
    ),
)
