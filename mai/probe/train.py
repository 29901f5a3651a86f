"""`mai train probe`: what the shared commands need to know of the probe.

A run: the frozen backbone looks at every training view once for each augmented draw (mai/probe/features.py, kept), the
head is fitted (mai/probe/fit.py), the validation split is scored for the record. `best.pt` holds the head and the hash
of the backbone that it was fitted on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import TYPE_CHECKING, Any

from mai import config as configuration
from mai.errors import TrainingError, require
from mai.images.views import ViewPlan
from mai.probe.recipe import BackbonePlan, ProbeRecipe
from mai.training.architectures import Architecture, ExportOrder, TrainOrder
from mai.training.recipe import DataPlan

if TYPE_CHECKING:
    import torch

    from mai.data.store import Store
    from mai.weights import Weights

WHOLE_WEIGHT = 0.6


def build(recipe: ProbeRecipe) -> torch.nn.Module:
    """The frozen backbone with an unfitted head."""
    from mai.probe import backbones
    from mai.probe.model import Probe

    return Probe(backbones.load(recipe.backbone))


def plan_of(backbone: BackbonePlan, own_px: int) -> ViewPlan:
    """How a picture becomes views for a backbone whose own side is own_px."""
    side = backbone.size_px or own_px
    whole = backbone.whole_px or side
    return ViewPlan(
        size_px=side, n_whole=1, whole_share=1.0, n_native=1, native_px=side, whole_weight=WHOLE_WEIGHT,
        whole_px=0 if whole == side else whole,
    )  # fmt: skip


def train(order: TrainOrder) -> Path:
    """Fit a head; returns the path of the checkpoint.

    Raises:
        TrainingError: the folder holds another run.
        DataError, WeightsError, UsageError: the set or the backbone cannot be used.
    """
    torch = require("torch", "train", "Training")
    from mai.data.store import open_store
    from mai.probe import features, fit
    from mai.probe.model import Probe, folded
    from mai.training import checkpoint
    from mai.training.device import choose_device
    from mai.training.hub import state_digest
    from mai.training.job import versions

    recipe: ProbeRecipe = order.recipe
    started = process_time()
    _claim(order)
    probe = build(recipe)
    assert isinstance(probe, Probe)  # build's promise
    digest = state_digest(probe.backbone)
    plan = plan_of(recipe.backbone, int(probe.backbone.size_px))  # type: ignore[arg-type]
    data = DataPlan(plan.size_px, plan.whole_px)
    store = open_store(order.base or order.labelled)
    device = choose_device()
    rows = [i for i, row in enumerate(store.rows) if row.split == "train"]
    draws = features.draws_of(store, rows, recipe.head.draws, recipe.run.seed)
    quick = folded(probe.backbone)
    quick.n_features = probe.backbone.n_features
    identity = features.identity(probe.backbone, recipe.backbone, digest)
    found = features.samples(
        store, draws, quick.to(device), identity, data, recipe.augment, recipe.run.batch_size,
        _workers(order.n_workers), device,
    )  # fmt: skip
    if order.base is not None:
        store = replace(store, rows=order.labelled.rows)
        found = found.only({row.image for row in store.rows if row.split == "train"})
    head = fit.fit(found, recipe.head, recipe.run.seed)
    with torch.no_grad():
        probe.head.weight.copy_(torch.from_numpy(head.weight)[None])
        probe.head.bias.fill_(head.bias)
    # A fold of a larger set is tested by who asked for it; nothing here hangs on the validation split.
    validation = None if order.base else _validate(probe.to(device), store, data, order, device)
    fitted = {
        "penalty": head.penalty, "tried": {f"{p:g}": a for p, a in head.tried.items()}, "left_out": head.left_out,
        "n_samples": len(found.labels), "n_features": len(head.weight), "n_pictures": len(found.images),
        "n_sources": len(set(found.sources)), "validation": validation,
        "cpu_seconds": round(process_time() - started, 1),
    }  # fmt: skip
    state = {
        "architecture": "probe",
        "recipe": configuration.to_dict(recipe),
        "model": {f"head.{name}": value.cpu() for name, value in probe.head.state_dict().items()},
        "average": None,
        "fingerprint": order.labelled.fingerprint,
        "data": order.labelled.name,
        "versions": versions(),
        "epoch": 0,
        "backbone": digest,
        "fit": fitted,
    }
    checkpoint.save(state, order.output / "best.pt")
    facts = {name: state[name] for name in ("recipe", "fingerprint", "data", "versions", "backbone", "fit")}
    (order.output / "run.json").write_text(
        json.dumps({**facts, "n_broken": len(store.broken), "broken": store.broken}, indent=1), "utf-8"
    )
    print(_told(fitted), file=sys.stderr)
    return order.output / "best.pt"


def _told(fitted: Mapping[str, Any]) -> str:
    lines = [f"penalty {penalty:>6}: AUROC {area:.3f}" for penalty, area in fitted["tried"].items()]
    lines.append(f"Chosen on left-out {fitted['left_out']}s: {fitted['penalty']:g}.")
    if fitted["validation"]:
        lines.append(f"Validation, aligned: AUROC {fitted['validation']['auroc']:.3f} (not used to choose).")
    return "\n".join(lines)


def _claim(order: TrainOrder) -> None:
    """Features are kept and a fit takes moments, so there is nothing to resume; a foreign run is left alone."""
    if (order.output / "best.pt").exists() and not order.resume:
        raise TrainingError(
            f"{order.output} holds a run already. Give another --output, or --resume to fit it again (features are "
            "kept, so that is quick)."
        )
    order.output.mkdir(parents=True, exist_ok=True)


def _workers(asked: int | None) -> int:
    from mai.machine import n_cpus

    return min(8, n_cpus()) if asked is None else asked


def _validate(
    probe: torch.nn.Module, store: Store, data: DataPlan, order: TrainOrder, device: str
) -> dict[str, Any] | None:
    """Aligned figures of the validation split, for the record; None where there is none."""
    import numpy as np

    from mai.measure import metrics
    from mai.training.validation import aligned_views, score_views

    rows = [i for i, row in enumerate(store.rows) if row.split == "validation"]
    if not rows:
        return None
    views = aligned_views(store, rows, data)
    if len(set(views.labels.tolist())) < 2:
        return None
    logits = views.per_picture(score_views(probe, views.views, device))
    np.savez(
        order.output / "best_scores.npz", logits=logits, labels=views.labels, images=np.array(views.images)
    )
    return {
        "auroc": round(metrics.auroc(logits, views.labels), 4),
        "n_synthetic": int(views.labels.sum()),
        "n_authentic": int((1 - views.labels).sum()),
    }


def restore(state: Mapping[str, Any], source: str) -> torch.nn.Module:
    """The probe of a checkpoint.

    Raises:
        TrainingError: the backbone is not the one that the head was fitted on.
    """
    import torch

    from mai.probe import backbones
    from mai.training.hub import state_digest

    recipe = configuration.build(ProbeRecipe, state["recipe"])
    backbones.refuse_code(recipe.backbone.name, source)
    probe = build(recipe)
    digest = state_digest(probe.backbone)
    if digest != state["backbone"]:
        raise TrainingError(
            f"{source}: the backbone '{recipe.backbone.name}' has changed since the head was fitted (sha256 "
            f"{digest[:12]}..., then {state['backbone'][:12]}...). Pin backbone.revision, and train again."
        )
    with torch.no_grad():
        probe.load_state_dict({**probe.state_dict(), **state["model"]})
    return probe.eval()


def plan_for(state: Mapping[str, Any]) -> ViewPlan:
    """The view plan of a checkpoint."""
    from mai.probe import backbones

    backbone = configuration.build(ProbeRecipe, state["recipe"]).backbone
    own = 0 if backbone.size_px else int(backbones.load(backbone).size_px)  # type: ignore[arg-type]
    return plan_of(backbone, own)


def export(order: ExportOrder) -> Weights:
    """Weights of a run; see mai/probe/export.py."""
    from mai.probe.export import export_run

    return export_run(order)


ARCHITECTURE = Architecture(
    name="probe",
    build=build,
    with_patches=None,
    plan=plan_of(BackbonePlan("pixel:imagenet", size_px=160, whole_px=224), 160),
    recipe=ProbeRecipe,
    train=train,
    export=export,
)
