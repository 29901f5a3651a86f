"""`mai train resnet`: what the shared loop needs to know of the CNN from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mai.images.views import ViewPlan
from mai.training.architectures import Architecture
from mai.training.recipe import Recipe

if TYPE_CHECKING:
    import torch


def build(recipe: Recipe) -> torch.nn.Module:
    """The network, from scratch or from given weights."""
    from mai.errors import ConfigError
    from mai.resnet.model import SIZE_PX, ResNet
    from mai.training.start import fill, read_state

    if recipe.data.size_px != SIZE_PX:
        raise ConfigError(f"data.size_px is {recipe.data.size_px}; this network takes {SIZE_PX}.")
    model = ResNet()
    if recipe.init == "imagenet":
        raise ConfigError(
            "init: there are no ImageNet weights for resnet; use 'scratch', a checkpoint or weights."
        )
    if recipe.init != "scratch":
        fill(model, read_state(recipe.init), recipe.init)
    return model


ARCHITECTURE = Architecture(
    name="resnet",
    build=build,
    with_patches=None,
    plan=ViewPlan(size_px=200, n_whole=1, whole_share=1.0, n_native=1, native_px=200, whole_weight=0.6),
)
