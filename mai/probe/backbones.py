"""Frozen networks by name: each takes uint8 views (B, S, S, 3) and gives features (B, D).

    pixel:imagenet          the EfficientNet-Lite0 that ships as a package (mai/pixel/backbone.py)
    moondream:FOLDER        Moondream's vision tower (mai/moondream/backbone.py); `moondream:` alone asks the hub
    hub:ORG/NAME, FOLDER    any transformers AutoModel that takes pixels: DINOv3, SigLIP 2, CLIP, ViT, ConvNeXt ...
    timm:NAME               a network of timm, with its own ImageNet weights
    python:MODULE:FUNCTION  a function that makes a torch module: float (B, 3, S, S) -> (B, D), (B, T, D) or
                            (B, C, H, W); its attributes size_px, mean and std, if there, say what it takes

`name:rest` loads `mai/<name>/backbone.py` where that file is: an architecture offers its trunk by having one.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import mai
from mai.errors import TrainingError, UnknownNameError, UsageError, WeightsError, require

if TYPE_CHECKING:
    import torch

    from mai.probe.recipe import BackbonePlan

FOLDER = Path(mai.__file__).parent
OTHERS = ("hub", "timm", "python")
TRUST = "MAI_TRUST_BACKBONE"
"""Environment variable: the one `python:` backbone that weights and runs from elsewhere may call."""


def providers() -> list[str]:
    """Architectures that offer their trunk."""
    return sorted(path.parent.name for path in FOLDER.glob("*/backbone.py"))


def refuse_code(name: str, where: str) -> None:
    """Weights and runs are anybody's files; they may not choose code to run, unless a person has said so.

    Raises:
        WeightsError: the backbone is a Python function that MAI_TRUST_BACKBONE does not name.
    """
    if name.startswith("python:") and os.environ.get(TRUST) != name:
        raise WeightsError(
            f"{where} asks to run Python code, '{name}'. If it is yours, say so: {TRUST}={name}"
        )


def load(plan: BackbonePlan) -> torch.nn.Module:
    """The frozen backbone of a recipe, with attributes `size_px`, `n_features` and `licence`.

    Raises:
        UsageError: no such backbone, or one that gives no features of a picture.
        MissingExtraError: a package that it needs is not installed.
        WeightsError: its files are missing, gated or damaged.
    """
    require("torch", "train", "A probe's backbone")
    kind, colon, rest = plan.name.partition(":")
    made: Any
    if Path(plan.name).is_dir():
        made = _transformers(plan.name, plan)
    elif not colon:
        raise UsageError(
            f"There is no backbone and no folder '{plan.name}'. Write hub:ORG/NAME, timm:NAME, "
            f"python:MODULE:FUNCTION, {', '.join(f'{name}:...' for name in providers())}, or a folder."
        )
    elif kind == "hub":
        made = _transformers(rest, plan)
    elif kind == "timm":
        made = _timm(rest, plan)
    elif kind == "python":
        made = _python(plan)
    elif kind in providers():
        made = importlib.import_module(f"mai.{kind}.backbone").load(rest, plan.pool, plan.layers)
    else:
        raise UnknownNameError("kind of backbone", kind, [*providers(), *OTHERS])
    made.requires_grad_(False).eval()
    if not hasattr(made, "n_features"):
        made.n_features = _count(made)
    return cast("torch.nn.Module", made)


def _count(backbone: torch.nn.Module) -> int:
    import torch

    side = int(backbone.size_px)  # type: ignore[arg-type]
    with torch.inference_mode():
        found = backbone(torch.full((1, side, side, 3), 127, dtype=torch.uint8))
    if found.ndim != 2:
        raise UsageError(f"The backbone gives {tuple(found.shape)} for one view, not (1, D).")
    return int(found.shape[1])


def _transformers(name: str, plan: BackbonePlan) -> torch.nn.Module:
    from mai.probe.towers import Tower
    from mai.training.hub import load_model, read_preparation

    transformers = require("transformers", "vlm", "A transformers backbone")
    model = load_model(transformers.AutoModel, name, plan.revision)
    model = getattr(model, "vision_model", model)  # CLIP, SigLIP: the text part is not needed
    told = read_preparation(name, plan.revision, model.config)
    return Tower(model, told.size_px, told.mean, told.std, plan.pool, plan.layers)


def _timm(name: str, plan: BackbonePlan) -> torch.nn.Module:
    from mai.probe.towers import Tower

    timm = require("timm", "vlm", "A timm backbone")
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm raises errors of many libraries
        raise TrainingError(f"timm cannot make '{name}': {str(error).splitlines()[0]}") from error
    told = timm.data.resolve_model_data_config(model)
    return Tower(model, told["input_size"][-1], told["mean"], told["std"], plan.pool, plan.layers)


def _python(plan: BackbonePlan) -> torch.nn.Module:
    import torch

    from mai.probe.towers import Tower

    parts = plan.name.split(":")
    if len(parts) != 3:
        raise UsageError(f"'{plan.name}': write python:MODULE:FUNCTION.")
    try:
        made = getattr(importlib.import_module(parts[1]), parts[2])()
    except (ImportError, AttributeError) as error:
        raise UsageError(
            f"'{plan.name}' cannot be imported: {error}. Is the module on PYTHONPATH?"
        ) from error
    if not isinstance(made, torch.nn.Module):
        raise UsageError(f"'{plan.name}' makes a {type(made).__name__}, not a torch module.")
    told = {name: getattr(made, name, None) for name in ("size_px", "mean", "std")}
    return Tower(
        made,
        told["size_px"] or 224,
        told["mean"] or (0.5,) * 3,
        told["std"] or (0.5,) * 3,
        plan.pool,
        plan.layers,
    )
