"""Initial weights named by a recipe: a checkpoint of a run, or the average that lies beside shipped weights.

The average (`average.pt`, fp16) is in the repository and not in the wheel: only who trains needs it.
"""

from __future__ import annotations

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


def _weights_of(state: dict[str, Any], path: Path) -> dict[str, Any]:
    found = state.get("average") or state.get("model")
    if not isinstance(found, dict):
        raise TrainingError(f"{path} is no checkpoint of MAI: it has neither an average nor a model.")
    return found


def save_average(state: dict[str, Any], path: Path) -> None:
    """Write the averaged weights of a checkpoint in fp16, to train on from."""
    from mai.training import checkpoint

    values = _weights_of(state, path)
    checkpoint.save({"average": {n: v.half() if v.ndim >= 2 else v for n, v in values.items()}}, path)


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
            raise TrainingError(f"{source} lacks '{name}': it holds another network.")
        if state[name].shape != value.shape:
            raise TrainingError(
                f"{source}: '{name}' is {tuple(state[name].shape)}, the network's is {tuple(value.shape)}."
            )
        value.copy_(state[name])
