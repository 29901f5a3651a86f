"""The architectures: folders of the package that hold `recipes/` and a `train.py` with `ARCHITECTURE`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import mai
from mai.errors import UnknownNameError
from mai.images.views import ViewPlan
from mai.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from mai.data.sources import LabelledSet
    from mai.weights import Weights

ROOT = Path(mai.__file__).parent


@dataclass(frozen=True, slots=True)
class Architecture:
    """What training, evaluation and export need to know of an architecture.

    Attributes:
        name: folder and detector name.
        build: a recipe -> the network with its initial weights.
        with_patches: the network -> one that returns (logit, patches), or None if it has no map of patch logits.
        plan: how a picture becomes views where the weights do not say otherwise.
        finish: what export does at the end with the weights folder and the labelled set, if anything.
    """

    name: str
    build: Callable[[Recipe], torch.nn.Module]
    with_patches: Callable[[torch.nn.Module], torch.nn.Module] | None
    plan: ViewPlan
    finish: Callable[[Weights, LabelledSet], None] | None = None

    @property
    def recipes(self) -> dict[str, Path]:
        """Name -> file of the shipped recipes."""
        return {path.stem: path for path in sorted((ROOT / self.name / "recipes").glob("*.toml"))}


def names() -> list[str]:
    """All architectures that can be trained, without importing any."""
    return sorted(path.parent.name for path in ROOT.glob("*/recipes") if (path.parent / "train.py").is_file())


def load(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        UnknownNameError: there is none; names the nearest.
    """
    if name not in names():
        raise UnknownNameError("architecture", name, names())
    return cast(Architecture, importlib.import_module(f"mai.{name}.train").ARCHITECTURE)


def recipe_file(architecture: Architecture, name: str) -> Path:
    """A shipped recipe by name (`base`, `base.toml`) or any file.

    Raises:
        UnknownNameError: neither.
    """
    shipped = architecture.recipes
    if name.removesuffix(".toml") in shipped and not Path(name).exists():
        return shipped[name.removesuffix(".toml")]
    if Path(name).is_file():
        return Path(name)
    raise UnknownNameError("recipe", name, shipped)
