"""`mai bench leave-out`: train an architecture again and again, each time without something, and test on just that.

What a network is worth on a generator, a source or a time that it has never seen is the only figure that says how it
will do tomorrow. Each fold is a whole training: the shared loop or the architecture's own, calibration on what is left
of the calibration split, thresholds fixed there, then the left-out pictures under the aligned protocol. A fold that is
done is kept (`fold.json`), a killed one goes on where its training stood.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mai import config as configuration
from mai.bench.folds import Fold
from mai.data.labelled import LabelledSet
from mai.data.store import open_store
from mai.errors import UsageError
from mai.images.views import ViewPlan
from mai.measure import metrics
from mai.training import architectures, evaluation, shipping
from mai.training.architectures import Architecture, ExportOrder, TrainOrder
from mai.training.job import Job
from mai.training.loop import train as train_loop
from mai.weights import Weights

SCHEMA = "mai.leave-out/1"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is trained, and where.

    Attributes:
        architecture: whose.
        recipe: of the architecture's kind.
        output: folder; each fold has one in it.
        n_workers: processes that make batches.
        n_draws: of each bootstrap.
    """

    architecture: Architecture
    recipe: Any
    output: Path
    n_workers: int | None = None
    n_draws: int = 500


def run(plan: Plan, labelled: LabelledSet, folds: Sequence[Fold], by: str) -> dict[str, Any]:
    """Train and test every fold; writes leave_out.json and returns its values.

    Raises:
        UsageError: the folder holds folds of another recipe or set.
    """
    plan.output.mkdir(parents=True, exist_ok=True)
    identity = {
        "architecture": plan.architecture.name,
        "recipe": configuration.to_dict(plan.recipe),
        "fingerprint": labelled.fingerprint,
    }
    done = []
    for number, fold in enumerate(folds):
        print(f"{number + 1} of {len(folds)}: without {fold.name}", file=sys.stderr)
        done.append(_one(plan, labelled, fold, identity))
    report = {"schema": SCHEMA, "by": by, "data": labelled.name, **identity, "folds": done, **_summary(done)}
    _write(plan.output / "leave_out.json", report)
    return report


def _one(plan: Plan, labelled: LabelledSet, fold: Fold, identity: dict[str, Any]) -> dict[str, Any]:
    folder = plan.output / folder_name(fold.name)
    kept = folder / "fold.json"
    own = {**identity, "name": fold.name, "groups": list(fold.groups)}
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text("utf-8"))
        if found["identity"] != json.loads(json.dumps(own)):
            raise UsageError(f"{folder} holds a fold of another recipe, set or group. Give another --output.")
        return found
    started = process_time()
    weights = _trained(plan, labelled, fold, folder)
    figures = _tested(weights, fold, plan.n_draws)
    counts = {split: fold.labelled.select(split=split).counts() for split in ("train", "calibration", "test")}
    result = {
        "identity": own, "name": fold.name, "groups": list(fold.groups), "counts": counts, **figures,
        "cpu_seconds": round(process_time() - started, 1),
    }  # fmt: skip
    _write(kept, result)
    return result


def folder_name(name: str) -> str:
    """A folder's name for a fold: the fold's own where that is plain, else with a hash, so that no two are alike."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._+-") else "-" for c in name)[:80]
    if plain == name and name[:1] != ".":
        return plain
    return f"{plain.lstrip('.')}-{zlib.crc32(name.encode('utf-8', 'surrogateescape')):08x}"


def _trained(plan: Plan, labelled: LabelledSet, fold: Fold, folder: Path) -> Weights:
    """Train on what the fold leaves, and export with its calibration pictures alone."""
    architecture, run_folder = plan.architecture, folder / "run"
    resume = (run_folder / "best.pt").exists() or (run_folder / "last.pt").exists()
    if architecture.train is not None:
        architecture.train(
            TrainOrder(plan.recipe, fold.labelled, run_folder, resume, plan.n_workers, base=labelled)
        )
    else:
        store = replace(open_store(labelled), rows=fold.labelled.rows)  # the same pictures, other splits
        job = Job(
            recipe=plan.recipe, build=lambda: architecture.build(plan.recipe), store=store,
            fingerprint=fold.labelled.fingerprint, data=labelled.name, output=run_folder, n_workers=plan.n_workers,
        )  # fmt: skip
        train_loop(job, resume=resume)
    calibration = fold.labelled.select(split="calibration")
    output = folder / "weights"
    if architecture.export is not None:
        return architecture.export(ExportOrder(run_folder, calibration, output, "0.0"))
    return shipping.export_run(architecture, [run_folder], calibration, output, "0.0")


def _tested(weights: Weights, fold: Fold, n_draws: int) -> dict[str, Any]:
    """Figures of the left-out pictures, at the threshold that was fixed before."""
    plan = ViewPlan(**weights.preprocessing)
    rows = [row for row in fold.labelled.rows if row.split == "test" and row.view != "web"]
    scored = evaluation.score_rows(rows, shipping.session_logits(weights), plan, "aligned")
    threshold = weights.table.at_fpr(weights.fpr).score
    report = evaluation.report(scored, plan, weights.calibration, threshold, n_draws)
    names = ("n_synthetic", "n_authentic", "n_synthetic_sources", "n_authentic_sources", "n_broken", "threshold",
             "auroc", "average_precision", "balanced_accuracy", "recall", "flagged", "tpr_at_5_fpr_oracle")  # fmt: skip
    generators = _each(scored, scored.logits(plan), fold, n_draws) if len(fold.groups) > 1 else []
    return {"fpr": weights.fpr, **{name: report.get(name) for name in names}, "generators": generators}


def _each(
    scored: evaluation.Scored, logits: NDArray[np.float64], fold: Fold, n_draws: int
) -> list[dict[str, Any]]:
    """Each generator of a part that several make up, against the part's authentic pictures; the worst first."""
    sources = np.array(scored.sources, object)
    authentic = scored.labels == 0
    found = []
    for name in sorted({p.generator for p in scored.pictures if p.label} & set(fold.groups)):
        own = np.array([bool(p.label) and p.generator == name for p in scored.pictures])
        both = own | authentic
        area = metrics.bootstrap(metrics.auroc, logits[both], own[both], list(sources[both]), n_draws)
        n_sources = len(set(sources[own]))
        found.append({"name": name, "n": int(own.sum()), "n_sources": n_sources, "auroc": area.to_list()})
    return sorted(found, key=lambda one: float(one["auroc"][0]))


def _summary(done: Sequence[dict[str, Any]]) -> dict[str, Any]:
    told = {"mean_auroc": _mean(done), "worst": _worst(done), "n_folds": len(done)}
    if each := [one for fold in done for one in fold.get("generators", ())]:
        told["generators"] = {"n": len(each), "mean_auroc": _mean(each), "worst": _worst(each)}
    return told


def _mean(rows: Sequence[dict[str, Any]]) -> float:
    return round(float(np.mean([row["auroc"][0] for row in rows])), 4)


def _worst(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in min(rows, key=lambda row: float(row["auroc"][0])).items()
            if name in ("name", "n", "auroc")}  # fmt: skip


def as_text(report: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"{report['architecture']} on {report['data']}, each {report['by']} left out of training in turn; aligned, one "
        "score a picture, threshold fixed on the fold's calibration pictures; brackets: 95 % interval over sources.",
        "",
        "| left out | synthetic / authentic | AUROC | balanced accuracy | recall | flagged |",
        "|---|---|---|---|---|---|",
    ]
    for fold in report["folds"]:
        cells = [fold["name"], f"{fold['n_synthetic']} / {fold['n_authentic']}"]
        cells += [_cell(fold[name]) for name in ("auroc", "balanced_accuracy", "recall", "flagged")]
        lines.append("| " + " | ".join(cells) + " |")
    worst = report["worst"]
    lines += [
        "",
        f"Mean AUROC {report['mean_auroc']:.3f}; the worst is {worst['name']}, {_cell(worst['auroc'])}.",
    ]
    if "generators" in report:
        of, least = report["generators"], report["generators"]["worst"]
        lines += [
            "",
            "| generator | synthetic | sources | AUROC |",
            "|---|---|---|---|",
            *(
                f"| {one['name']} | {one['n']} | {one['n_sources']} | {_cell(one['auroc'])} |"
                for fold in report["folds"]
                for one in fold.get("generators", ())
            ),
            "",
            f"Each generator against the authentic pictures of its part: mean AUROC of {of['n']} generators "
            f"{of['mean_auroc']:.3f}; the worst is {least['name']}, {_cell(least['auroc'])}, n {least['n']}.",
        ]
    return "\n".join(lines)


def _cell(value: Sequence[float] | None) -> str:
    return str(metrics.Interval(*value)) if value else "-"


def _write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(json.dumps(values, indent=1), "utf-8")
    temporary.replace(path)


def load(name: str, recipe: str, overrides: Sequence[str]) -> tuple[Architecture, Any]:
    """An architecture and its recipe, as `mai train` reads them.

    Raises:
        UnknownNameError, ConfigError: there is none, or a key is wrong.
        UsageError: the recipe is another architecture's.
    """
    architecture = architectures.load(name)
    file = architectures.recipe_file(architecture, recipe)
    made = configuration.read(architecture.recipe, file, tuple(overrides))
    if made.architecture != name:
        raise UsageError(f"The recipe is for '{made.architecture}', not for '{name}'.")
    return architecture, made
