"""`mai train moondream`: a recipe -> the model with its adapters -> the loop; and the run -> an adapter folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai.images.views import ViewPlan
from mai.moondream.recipe import TuneRecipe
from mai.training.architectures import Architecture, ExportOrder, TrainOrder

if TYPE_CHECKING:
    import torch

    from mai.moondream.student import Student
    from mai.weights import Weights

SCRATCH = "base"
"""Folder in a run's folder that holds a model made from scratch."""


def open_student(recipe: TuneRecipe, folder: Path) -> tuple[Student, dict[str, Any]]:
    """The model of a recipe, adapters attached, and what is known of its base.

    Args:
        recipe: says which.
        folder: the run's; a model from scratch is written into it.

    Raises:
        WeightsError: the base cannot be had.
        TrainingError: the profile fits no layer.
    """
    from mai.moondream import lora
    from mai.moondream.load import load
    from mai.moondream.student import MoondreamStudent
    from mai.training.device import choose_device

    if recipe.base.back_end == "transformers":
        from mai.moondream.others import open_other

        return open_other(recipe)
    source = recipe.base.source
    if source == "scratch":
        from mai.moondream import scratch

        texts = [recipe.data.question, recipe.data.yes, recipe.data.no]
        source = str(folder / SCRATCH)
        if not (folder / SCRATCH / "mai.json").is_file():
            scratch.build(folder / SCRATCH, recipe.sizes, recipe.run.seed, texts)
    device = choose_device()
    # Frozen weights need no more than bf16 on a GPU; what trains stays fp32 (peft sees to it).
    whole = recipe.adapter.profile == "all-weights"
    base = load(source, device=device, dtype="bf16" if device == "cuda" and not whole else "fp32")
    student = MoondreamStudent(base, recipe.data)
    if not whole:
        targets = lora.PROFILES[recipe.adapter.profile]
        student.adapt(lora.attach(student.model, recipe.adapter, targets))
        if recipe.adapter.profile == "text-qk":
            lora.hold_values(student.model)
    facts = {
        "back_end": "moondream",
        "source": recipe.base.source if recipe.base.source == "scratch" else base.source,
        "revision": base.revision.name,
        "fingerprint": base.fingerprint,
        "files": dict(base.files),
        "note": base.note,
    }
    return student, facts


def train(order: TrainOrder) -> Path:
    """Run an order of `mai train`; returns the best checkpoint."""
    from mai.errors import require
    from mai.moondream.tune import tune
    from mai.moondream.tune_job import TuneJob

    torch = require("torch", "vlm", "LoRA training")
    require("peft", "vlm", "LoRA training")
    torch.manual_seed(order.recipe.run.seed)  # an adapter's first matrix is random
    order.output.mkdir(parents=True, exist_ok=True)
    student, facts = open_student(order.recipe, order.output)
    job = TuneJob(order.recipe, student, facts, order.labelled, order.output, order.n_workers)
    return tune(job, order.resume)


def export(order: ExportOrder) -> Weights:
    """Weights of a run; see mai/moondream/export.py."""
    from mai.moondream.export import export_run

    return export_run(order)


def build(recipe: TuneRecipe) -> torch.nn.Module:
    """Not used: the model needs the run's folder, see `open_student`."""
    raise NotImplementedError


ARCHITECTURE = Architecture(
    name="moondream",
    build=build,
    with_patches=None,
    plan=ViewPlan(size_px=378, n_whole=1, whole_share=1.0, n_native=0, native_px=378),
    recipe=TuneRecipe,
    train=train,
    export=export,
)
