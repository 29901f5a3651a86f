"""Initial weights named by a recipe: a checkpoint of a run, or the average that lies beside shipped weights.

The average (`average.pt`, fp16) is in the repository and not in the wheel: only who trains needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai import weights as weights_on_disk
from mai.errors import TrainingError

if TYPE_CHECKING:
    import torch

AVERAGE = "average.pt"


def read_state(source: str) -> dict[str, Any]:
    """State dict of a checkpoint (`*.pt`: its average if it has one), or of a weights name or folder.

    Raises:
        TrainingError: the file is no checkpoint.
        WeightsError, UnknownNameError: no such weights.
    """
    from mai.training import checkpoint

    path = Path(source) if source.endswith(".pt") else weights_on_disk.load(source).folder / AVERAGE
    state = checkpoint.load(path)
    return {name: value.float() for name, value in (_weights_of(state, path)).items()}


def _weights_of(state: dict[str, Any], path: Path | str) -> dict[str, Any]:
    found = state.get("average") or state.get("model")
    if not isinstance(found, dict):
        raise TrainingError(
            f"{path} is no checkpoint of MAI: it has neither an average nor a model. "
            "Give best.pt or last.pt of a run of mai train, or weights by name."
        )
    return found


def average_of(states: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The mean of the checkpoints' weights (of their running averages where they have them), in fp32.

    Runs that began at the same weights and hold their norms lie in one basin often enough that their mean is as good
    as their ensemble, at the cost of one network (Rame et al., Diverse weight averaging, arXiv 2205.09739). Whether it
    is so must be measured, as the card does.

    Args:
        states: checkpoints of one architecture.
        names: what to call each in an error.

    Raises:
        TrainingError: one of them lacks a weight of the first, or has it in another shape.
    """
    first, *others = [_weights_of(state, name) for state, name in zip(states, names, strict=True)]
    mean = {
        key: value.float().clone() if value.is_floating_point() else value for key, value in first.items()
    }
    for other, name in zip(others, names[1:], strict=True):
        for key, value in mean.items():
            if key not in other or other[key].shape != value.shape:
                raise TrainingError(
                    f"{name} holds another network than {names[0]}: '{key}' differs. "
                    "Average runs that began at the same network."
                )
            if value.is_floating_point():
                value += other[key].float()
    return {key: value / len(states) if value.is_floating_point() else value for key, value in mean.items()}


def save_average(
    average: dict[str, torch.Tensor], path: Path, others: Sequence[dict[str, torch.Tensor]] = ()
) -> None:
    """Write averaged weights in fp16, to train on from; `others`: those of an ensemble's further members."""
    from mai.training import checkpoint

    halves = [{n: v.half() if v.ndim >= 2 else v for n, v in one.items()} for one in (average, *others)]
    checkpoint.save({"average": halves[0], **({"others": halves[1:]} if others else {})}, path)


def fill(model: torch.nn.Module, state: dict[str, Any], source: str) -> None:
    """Load a state dict; every parameter must be there, with its shape.

    Raises:
        TrainingError: names the first key that is missing or of another shape.
    """
    target = model.state_dict()
    for name, value in target.items():
        if "num_batches_tracked" in name:
            continue
        if name not in state:
            raise TrainingError(
                f"{source} lacks '{name}': it holds another network. "
                "Give init a checkpoint of this architecture, or init=scratch."
            )
        if state[name].shape != value.shape:
            raise TrainingError(
                f"{source}: '{name}' is {tuple(state[name].shape)}, the network's is {tuple(value.shape)}. "
                "Give init a checkpoint with the recipe's own sizes, or init=scratch."
            )
        value.copy_(state[name])
