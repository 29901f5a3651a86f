"""What a run of the loop is given, and the checkpoint that it may go on from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai.config import to_dict
from mai.errors import TrainingError
from mai.moondream.recipe import TuneRecipe
from mai.moondream.student import Student
from mai.training.resume import LAST, changes, last_checkpoint

if TYPE_CHECKING:
    from mai.data.sources import LabelledSet

MAY_CHANGE = (
    "epochs",
    "patience",
    "validation_pictures",
    "checkpoint_minutes",
    "micro_batch",
    "checkpointing",
)
"""Keys of [run] that may differ when a run is resumed."""


@dataclass(frozen=True, slots=True)
class TuneJob:
    """One run.

    Attributes:
        recipe: what to do.
        student: the model, adapters attached, on the CPU or its device.
        facts: of the base, for run.json, checkpoints and cards: source, revision, fingerprint, files, note.
        labelled: the set, with splits.
        output: run folder.
        n_workers: processes that make batches; None: one a processor, at most 8.
        stop_after_epochs: end this call early, for tests; 0: no.
    """

    recipe: TuneRecipe
    student: Student
    facts: dict[str, Any]
    labelled: LabelledSet
    output: Path
    n_workers: int | None = None
    stop_after_epochs: int = 0


def previous(job: TuneJob, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where the run is new.

    Raises:
        TrainingError: the folder holds a run and `resume` is not set, or one of another set, recipe or base.
    """
    last = job.output / LAST
    state = last_checkpoint(job.output, resume)
    if state is None:
        return None
    if state["fingerprint"] != job.labelled.fingerprint:
        raise TrainingError(f"{last} was trained on another set; use the same --data.")
    if state["base"]["fingerprint"] != job.facts["fingerprint"]:
        raise TrainingError(f"{last} was trained on another base, {state['base']['source']}; use the same.")
    now = to_dict(job.recipe)
    kept = {**now["run"], **{k: v for k, v in state["recipe"]["run"].items() if k in MAY_CHANGE}}
    found = changes(state["recipe"], {**now, "run": kept})
    if found:
        raise TrainingError(
            f"{last} was made by another recipe: {'; '.join(found)}. Use the same one, or choose another --output."
        )
    return state
