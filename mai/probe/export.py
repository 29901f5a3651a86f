"""A probe -> the network's file of a weights folder: ONNX where the backbone can be exported, else the head alone.

`model.onnx`   backbone and head, run by onnxruntime: a plain install is enough
`head.pt`      the head; backbone.name is loaded with torch when the detector is made (mai/probe/session.py)
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mai import config as configuration
from mai.errors import TrainingError, UsageError
from mai.images.views import ViewPlan
from mai.training.hub import first_line

if TYPE_CHECKING:
    import torch

    from mai.training.architectures import ExportOrder
    from mai.weights import Weights

HEAD = "head.pt"
LIMIT = 5e-3
"""Of a logit, between PyTorch and onnxruntime: a deep transformer's sums in another order differ by more than a small
network's. At most 0.00125 of a score."""

MOST_BYTES = 1_900_000_000
"""A protobuf ends at 2 GB; what is larger stays with torch."""


def export_run(order: ExportOrder) -> Weights:
    """Make a weights folder of a run: network, calibration, thresholds, figures, card.

    Raises:
        TrainingError: the run is of another architecture, or its backbone has changed.
        DataError: the set has no calibration split with both classes.
        UsageError: the version is not `major.minor`.
    """
    from mai import weights as weights_on_disk
    from mai.probe.train import plan_for, restore
    from mai.training import checkpoint, shipping

    if order.version.count(".") != 1 or not order.version.replace(".", "").isdigit():
        raise UsageError(f"A version is major.minor, for example 1.0; not '{order.version}'.")
    state = checkpoint.load(order.run / "best.pt")
    if state["architecture"] != "probe":
        raise TrainingError(
            f"{order.run} holds a run of '{state['architecture']}', not of 'probe'. "
            f"Run: mai export {state['architecture']} {order.run}"
        )
    model = restore(state, str(order.run))
    plan_values = configuration.to_dict(plan_for(state))
    for text in order.overrides:
        configuration.override(plan_values, text)
    plan = configuration.build(ViewPlan, plan_values, where="view plan")
    order.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{order.output.name}.", dir=order.output.parent) as making:
        made = Path(making)
        values: dict[str, Any] = {
            "format": weights_on_disk.FORMAT,
            "name": f"probe_v{order.version.replace('.', '_')}",
            "architecture": "probe",
            "created": datetime.now(UTC).date().isoformat(),
            **write(model, plan, made, state),
            "preprocessing": configuration.to_dict(plan),
            "trained": {
                **{key: state[key] for key in ("recipe", "fingerprint", "data", "versions", "epoch", "fit")},
                "how": _how(state),
                "chosen": "The head's penalty was chosen on left-out sources of the training split; nothing was chosen "
                "on this split.",
            },
        }
        shipping.calibrate_folder(made, values, order.labelled)
        order.output.mkdir(exist_ok=True)
        for path in made.iterdir():
            path.replace(order.output / path.name)
    return weights_on_disk.load(order.output)


def _how(state: Mapping[str, Any]) -> str:
    fit = state["fit"]
    return (
        f"a linear head on {fit['n_features']:,} frozen features of {state['recipe']['backbone']['name']}, "
        f"{fit['n_samples']:,} views of {fit['n_pictures']:,} pictures, penalty {fit['penalty']:g} chosen on left-out "
        f"{fit['left_out']}s (AUROC there {fit['tried'][format(fit['penalty'], 'g')]:.3f}), seed "
        f"{state['recipe']['run']['seed']}"
    )


def write(model: torch.nn.Module, plan: ViewPlan, folder: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Write the file into `folder`.

    Returns:
        What config.json says of it: engine, file, sha256, onnx_difference, backbone.
    """
    from mai.probe.model import shipped_form
    from mai.training import checkpoint
    from mai.training.onnx_export import export

    told: dict[str, Any] = {
        "backbone": {"sha256": state["backbone"], "name": state["recipe"]["backbone"]["name"]}
    }
    n_bytes = sum(p.numel() * (2 if p.ndim >= 2 else 4) for p in model.parameters())
    why = "it is larger than 2 GB"
    if n_bytes < MOST_BYTES:
        try:
            difference = export(shipped_form(model), ["logit"], plan.sides, folder / "model.onnx", LIMIT)
            return {**told, "sha256": _sha256(folder / "model.onnx"), "onnx_difference": difference}
        except Exception as error:  # torch's exporter raises errors of many kinds for what it cannot read
            why = first_line(error)
            (folder / "model.onnx").unlink(missing_ok=True)
    print(
        f"The backbone cannot be exported to ONNX ({why}); these weights need torch and '{told['backbone']['name']}' "
        "where they are used.",
        file=sys.stderr,
    )
    if not state["model"]:
        raise TrainingError("The checkpoint holds no head.")
    checkpoint.save({"head": dict(state["model"])}, folder / HEAD)
    return {
        **told,
        "engine": "torch",
        "file": HEAD,
        "sha256": _sha256(folder / HEAD),
        "onnx_difference": None,
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
