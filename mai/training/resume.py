"""Whether a run may go on from the checkpoint that lies in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mai.config import to_dict
from mai.errors import TrainingError
from mai.training import checkpoint
from mai.training.job import Job
from mai.training.recipe import TeacherPlan

RUN_MAY_CHANGE = frozenset(
    {"epochs", "patience", "validation_views", "checkpoint_minutes", "layout", "precision"}
)
"""Keys of the recipe's [run] that may differ when a run is resumed: they change no sample and no step already done.

Of layout and precision the checkpoint's own count, whatever the recipe says; older checkpoints lack the two keys.
"""


_DEFAULTS = {"teacher": to_dict(TeacherPlan())}
"""Tables that older checkpoints lack."""


LAST = "last.pt"


def last_checkpoint(output: Path, resume: bool) -> dict[str, Any] | None:
    """What a run's folder holds to go on from; None where the run is new.

    Raises:
        TrainingError: the folder holds a run and `resume` is not set, or its checkpoint cannot be read.
    """
    last = output / LAST
    if not last.exists():
        return None
    if not resume:
        raise TrainingError(
            f"{output} holds a run already. Add --resume to go on, or choose another --output."
        )
    return checkpoint.load(last)


def previous(job: Job, resume: bool) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where the run is new.

    Raises:
        TrainingError: the folder holds a run and `resume` is not set, or one of another set or recipe.
    """
    last = job.output / LAST
    state = last_checkpoint(job.output, resume)
    if state is None:
        return None
    if state["fingerprint"] != job.fingerprint:
        raise TrainingError(
            f"{last} was trained on another set ({state['fingerprint'][:12]}); use the same --data."
        )
    before = {**_DEFAULTS, **state["recipe"]}
    changed = changes(before, to_dict(job.recipe))
    if changed:
        raise TrainingError(
            f"{last} was made by another recipe: {'; '.join(changed)}. "
            "Use the same one, or choose another --output."
        )
    return state


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two recipes and would make a resumed run another one, `key was x, is y`."""
    found: list[str] = []
    for key, value in now.items():
        if isinstance(value, Mapping):
            old = before.get(key, {})
            for name, inner in value.items():
                free = key == "run" and name in RUN_MAY_CHANGE
                if not free and old.get(name) != inner:
                    found.append(f"{key}.{name} was {old.get(name)!r}, is {inner!r}")
        elif before.get(key) != value:
            found.append(f"{key} was {before.get(key)!r}, is {value!r}")
    return found
