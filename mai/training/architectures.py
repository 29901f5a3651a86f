"""The architectures: folders of the package that hold `recipes/` and a `train.py` with `ARCHITECTURE`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mai
from mai.errors import UnknownNameError
from mai.images.views import ViewPlan
from mai.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from mai.data.labelled import LabelledSet
    from mai.measure.calibrate import Calibration
    from mai.weights import Weights

ROOT = Path(mai.__file__).parent


@dataclass(frozen=True, slots=True)
class TrainOrder:
    """What `mai train` asks of an architecture that does not use the shared loop.

    Attributes:
        recipe: of the architecture's own kind.
        labelled: the set, with splits.
        output: run folder; `best.pt` in it has at least `architecture`, `recipe` and `fingerprint`.
        resume: go on where a killed run stood.
        n_workers: processes that make batches; None: as many as seem good.
        base: the whole set, where `labelled` holds its rows with other splits: what is computed of it is shared.
    """

    recipe: Any
    labelled: LabelledSet
    output: Path
    resume: bool = False
    n_workers: int | None = None
    base: LabelledSet | None = None


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """What `mai export` asks of an architecture with an export of its own.

    Attributes:
        run: folder with `best.pt`.
        labelled: the set, split as the run did.
        output: weights folder to make.
        version: `1.0`.
        overrides: `key=value` for the view plan.
    """

    run: Path
    labelled: LabelledSet
    output: Path
    version: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Architecture:
    """What training, evaluation and export need to know of an architecture.

    Attributes:
        name: folder and detector name.
        build: a recipe -> the network with its initial weights.
        with_patches: the network -> one that returns (logit, patches), or None if it has no map of patch logits.
        plan: how a picture becomes views where the weights do not say otherwise.
        together: trained networks and their calibrations -> one network, the ensemble; None: there is no such form.
        finish: what export does at the end with the weights folder and the labelled set, if anything.
        recipe: the dataclass that its recipes are read into.
        train: its own way of training, in place of the shared loop; returns the best checkpoint.
        export: its own way from a run to weights, in place of the shared one.
    """

    name: str
    build: Callable[[Any], torch.nn.Module]
    with_patches: Callable[[torch.nn.Module], torch.nn.Module] | None
    plan: ViewPlan
    finish: Callable[[Weights, LabelledSet], None] | None = None
    together: Callable[[Sequence[torch.nn.Module], Sequence[Calibration]], torch.nn.Module] | None = None
    recipe: type[Any] = Recipe
    train: Callable[[TrainOrder], Path] | None = None
    export: Callable[[ExportOrder], Weights] | None = None

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
