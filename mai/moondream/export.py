"""A run -> an adapter folder that `mai scan --weights` takes: adapter, calibration, thresholds, figures, card."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai import config as configuration
from mai import weights as weights_on_disk
from mai.errors import TrainingError, UsageError, WeightsError
from mai.images.views import ViewPlan
from mai.moondream.recipe import TuneRecipe
from mai.moondream.score import plan_of
from mai.moondream.session import ADAPTER, WHOLE

if TYPE_CHECKING:
    from mai.moondream.student import Student
    from mai.training.architectures import ExportOrder
    from mai.weights import Weights

PRIOR = 0.5
"""Share of synthetic samples in training: every unit is one of each."""


def export_run(order: ExportOrder) -> Weights:
    """Make an adapter folder of a run's best checkpoint.

    Raises:
        TrainingError: no checkpoint, or one of another architecture.
        WeightsError: the base is another than the run's.
        DataError: the set has no calibration split with both classes.
        UsageError: the version is not `major.minor`.
    """
    from mai.moondream.train import open_student
    from mai.training import checkpoint, shipping

    if order.version.count(".") != 1 or not order.version.replace(".", "").isdigit():
        raise UsageError(f"A version is major.minor, for example 1.0; not '{order.version}'.")
    state = checkpoint.load(order.run / "best.pt")
    if state["architecture"] != "moondream":
        raise TrainingError(
            f"{order.run} holds a run of '{state['architecture']}', not of 'moondream'. "
            f"Run: mai export {state['architecture']} {order.run}"
        )
    recipe = configuration.build(TuneRecipe, state["recipe"])
    student, facts = open_student(recipe, order.run)
    if facts["fingerprint"] != state["base"]["fingerprint"]:
        raise WeightsError(
            f"{order.run} was trained on another base than {facts['source']} is now (files "
            f"{state['base']['fingerprint'][:12]}..., now {facts['fingerprint'][:12]}...)."
        )
    fill(student, state["average"] or state["weights"])
    plan_values = configuration.to_dict(plan_of(recipe))
    for text in order.overrides:
        configuration.override(plan_values, text)
    plan = configuration.build(ViewPlan, plan_values, where="view plan")
    order.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{order.output.name}.", dir=order.output.parent) as making:
        made = Path(making)
        file = write(student.cpu(), made)
        values: dict[str, Any] = {
            "format": weights_on_disk.FORMAT,
            "name": f"moondream_v{order.version.replace('.', '_')}",
            "architecture": "moondream",
            "created": datetime.now(UTC).date().isoformat(),
            "engine": "torch",
            "file": file,
            "sha256": hashlib.sha256((made / file).read_bytes()).hexdigest(),
            "onnx_difference": None,
            "base": state["base"],
            "prior": PRIOR,
            "question": recipe.data.question,
            "answers": {"synthetic": recipe.data.yes, "authentic": recipe.data.no},
            "preprocessing": configuration.to_dict(plan),
            "trained": {
                **{key: state[key] for key in ("recipe", "fingerprint", "data", "versions", "epoch")},
                "how": how(state, student),
            },
            "exported": f"`{file}` runs by torch.",
        }
        weights = shipping.calibrate_folder(made, values, order.labelled)
        text = card((made / "README.md").read_text("utf-8"), weights.config)
        (made / "README.md").write_text(text, "utf-8")
        order.output.mkdir(exist_ok=True)
        for path in made.iterdir():
            path.replace(order.output / path.name)
    return weights_on_disk.load(order.output)


def fill(student: Student, values: Mapping[str, Any]) -> None:
    """Put a checkpoint's trained tensors into the model.

    Raises:
        TrainingError: a tensor is missing, left over or of another shape; it is named.
    """
    import torch

    from mai.moondream.lora import trainable

    targets = trainable(student)
    odd = sorted(set(targets) ^ set(values))
    if odd:
        raise TrainingError(f"The checkpoint does not fit the model: '{odd[0]}' is in one of them only.")
    with torch.no_grad():
        for name, parameter in targets.items():
            if parameter.shape != values[name].shape:
                raise TrainingError(
                    f"The checkpoint's '{name}' is {tuple(values[name].shape)}, the model's {tuple(parameter.shape)}."
                )
            parameter.copy_(values[name])


def write(student: Student, folder: Path) -> str:
    """Write what was trained; returns the name of the file with the tensors."""
    if student.adapted is None:
        student.save_whole(folder, half=True)
        return WHOLE
    student.adapted.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
    return ADAPTER


def how(state: Mapping[str, Any], student: Student) -> str:
    """One line for the card."""
    recipe, n = state["recipe"], sum(p.numel() for p in state["weights"].values())
    plan = recipe["adapter"]
    all_of = sum(p.numel() for p in student.parameters())
    what = (
        f"all {n:,} weights"
        if plan["profile"] == "all-weights"
        else f"adapters of rank {plan['r']} (alpha {plan['alpha']}, dropout {plan['dropout']:g}, profile "
        f"`{plan['profile']}`): {n:,} of {all_of:,} weights"
    )
    return f"{what}, {state['epoch']} epochs, seed {recipe['run']['seed']}"


def card(figures: str, config: Mapping[str, Any]) -> str:
    """The card: what this is and what was not proven, then the figures."""
    base = config["base"]
    if base["source"] == "scratch":
        what = (
            "**A proof of the road, not of Moondream.** A small model of Moondream's architecture, trained whole from "
            "random weights with a tokenizer of its own, by `mai train moondream --recipe tiny` on a CPU. It shows "
            "that the road from labelled pictures to a verdict works and that the model learns something. It is no "
            "detector to rely on, it cannot caption or answer anything else, and its figures say nothing about "
            "Moondream 2."
        )
    else:
        what = (
            f"An adapter on {base['source']}, revision {base['revision']}, files {base['fingerprint'][:16]}"
            + (f" ({base['note']})" if base["note"] else "")
            + ". The base is not in this folder and keeps its own licence."
        )
    head, _, rest = figures.partition("\n\n")
    told = (
        f"Asked: '{config['question']}'; synthetic is '{config['answers']['synthetic']}', authentic "
        f"'{config['answers']['authentic']}'. The raw score is logsumexp of the logits of the first minus that of the "
        f"second, from one prefill; the training prior is {config['prior']:g}, so scores are for that share. "
        f"Pictures are shown as squares of {config['preprocessing']['size_px']} px, both classes alike."
    )
    licences = (
        "Trained on the pictures of "
        f"{config['trained']['data']}; see that set's licences before you use these weights for more than research."
    )
    return "\n\n".join([head, what, told, licences, rest])
