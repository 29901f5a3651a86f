"""A run -> weights that ship: ONNX, calibration, thresholds, measured figures, card, hash."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mai import config as configuration
from mai import weights as weights_on_disk
from mai.data.sketch import sketch
from mai.errors import DataError, TrainingError, UsageError
from mai.images.views import ViewPlan
from mai.machine import n_cpus
from mai.measure.calibrate import DEFAULT_FNR, DEFAULT_FPR, fit_platt, least_rate, operating_table
from mai.training import checkpoint, evaluation, folds, start
from mai.training.architectures import Architecture
from mai.training.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from mai.data.sources import LabelledSet
    from mai.weights import Weights

Combine = Literal["average", "ensemble"]


def export_run(
    architecture: Architecture,
    runs: Sequence[Path],
    labelled: LabelledSet,
    output: Path,
    version: str,
    plan: ViewPlan | None = None,
    which: str = "best",
    combine: Combine = "average",
    name: str = "",
) -> Weights:
    """Make a weights folder of a run's checkpoint, or of the checkpoints of several runs.

    The calibration split fits logit -> score and the thresholds; the validation split, if there is one, is measured
    and written on the card. Neither touches the weights.

    Args:
        architecture: of the runs.
        runs: folders with checkpoints.
        labelled: a set with a calibration split.
        output: folder to make.
        version: `1.0`.
        plan: how pictures become views; the architecture's own by default.
        which: checkpoint of each run, `best` or `last`.
        combine: of several runs: `average` their weights (start.average_of), or ship all networks as one, an
            `ensemble` whose logit is the mean of theirs, each calibrated on the calibration split first. An ensemble's
            kernels are stored as int8, a network's alone as fp16.
        name: what they are called before the version, the architecture's name with a suffix, `pixel_fast`; empty:
            the architecture's.

    Raises:
        TrainingError: no checkpoint, another architecture, or the ONNX file differs from PyTorch by over 1e-4.
        DataError: the set has no calibration split with both classes.
        UsageError: the version is not `major.minor`; the name is not the architecture's with a suffix.
    """
    from mai.training.onnx_export import Storage, export, shipped_form

    if version.count(".") != 1 or not version.replace(".", "").isdigit():
        raise UsageError(f"A version is major.minor, for example 1.0; not '{version}'.")
    if name and not re.fullmatch(rf"{re.escape(architecture.name)}(_(?!v\d)[a-z0-9]+)+", name):
        raise UsageError(
            f"Weights of {architecture.name} are called {architecture.name} and a suffix of letters and digits, "
            f"{architecture.name}_fast say; not '{name}'."
        )
    states = [checkpoint.load(run / f"{which}.pt") for run in runs]
    for run, state in zip(runs, states, strict=True):
        if state["architecture"] != architecture.name:
            raise TrainingError(
                f"{run} holds a run of '{state['architecture']}', not of '{architecture.name}'. "
                f"Run: mai export {state['architecture']} {run}"
            )
        if state["fingerprint"] != states[0]["fingerprint"]:
            raise TrainingError(
                f"{run} was trained on other data than {runs[0]}: they cannot become one network. Train both on the "
                "same --data, or export each alone."
            )
    plan = plan or architecture.plan
    storage: Storage = "fp16"
    if len(runs) > 1 and combine == "ensemble":
        averages = [start.average_of([state], [str(run)]) for state, run in zip(states, runs, strict=True)]
        model = _ensemble(architecture, states, averages, labelled, plan)
        storage = "int8"
    else:
        averages = [start.average_of(states, [str(run) for run in runs])]
        model = _network(architecture, states[0], averages[0], str(runs[0]))
    if architecture.with_patches:
        model = architecture.with_patches(model)
    outputs = ["logit", "patches"] if architecture.with_patches else ["logit"]
    output.parent.mkdir(parents=True, exist_ok=True)
    # Made beside its place: an export that fails, in its calibration say, leaves no weights that look whole.
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as making:
        made = Path(making)
        difference = export(
            shipped_form(model, storage), outputs, plan.sides, made / "model.onnx", storage=storage
        )
        start.save_average(averages[0], made / start.AVERAGE, averages[1:])
        values: dict[str, Any] = {
            "format": weights_on_disk.FORMAT,
            "name": f"{name or architecture.name}_v{version.replace('.', '_')}",
            "architecture": architecture.name,
            "created": datetime.now(UTC).date().isoformat(),
            "sha256": hashlib.sha256((made / "model.onnx").read_bytes()).hexdigest(),
            "onnx_difference": difference,
            "preprocessing": configuration.to_dict(plan),
            "trained": {
                **{key: states[0][key] for key in ("recipe", "fingerprint", "data", "versions", "epoch")},
                "checkpoint": which,
                "sketch": sketch(row for row in labelled.rows if row.split == "train"),
                "averaged": [{"recipe": state["recipe"], "epoch": state["epoch"]} for state in states[1:]],
                "combined": combine,
            },
        }
        weights = calibrate_folder(
            made, values, labelled, folds.score_folds(architecture, states, labelled, plan)
        )
        if architecture.finish:
            architecture.finish(weights, labelled)
        output.mkdir(exist_ok=True)
        for path in sorted(
            made.iterdir(), key=lambda path: path.name == "config.json"
        ):  # last: it says all is there
            path.replace(output / path.name)
    return weights_on_disk.load(output)


def _network(
    architecture: Architecture, state: Mapping[str, Any], average: dict[str, torch.Tensor], name: str
) -> torch.nn.Module:
    """A run's network with these weights, in evaluation mode."""
    recipe = configuration.build(Recipe, {**state["recipe"], "init": "scratch"})
    model = architecture.build(recipe)
    start.fill(model, average, name)
    return model.eval()


def _ensemble(
    architecture: Architecture,
    states: Sequence[Mapping[str, Any]],
    averages: Sequence[dict[str, torch.Tensor]],
    labelled: LabelledSet,
    plan: ViewPlan,
) -> torch.nn.Module:
    """All runs' networks as one; each is calibrated first, so that none outweighs another by its scale alone."""
    if architecture.together is None:
        raise UsageError(f"Networks of {architecture.name} cannot be joined; --combine average can.")
    rows = split_rows(labelled, "calibration")
    members, fits = [], []
    for number, (state, average) in enumerate(zip(states, averages, strict=True)):
        members.append(_network(architecture, state, average, f"run {number + 1}"))
        scored = evaluation.score_rows(rows, folds.torch_logits(members[-1]), plan, "aligned")
        fits.append(fit_platt(scored.logits(plan), scored.labels))
    return architecture.together(members, fits).eval()


def calibrate_folder(
    folder: Path, values: dict[str, Any], labelled: LabelledSet, more: folds.FoldScores | None = None
) -> Weights:
    """Fit calibration and thresholds, measure, and write config.json and the card of a weights folder.

    Args:
        folder: holds model.onnx.
        values: config.json so far.
        labelled: a set with a calibration split.
        more: scores of training pictures by runs that never saw them, which the thresholds rest on too.
    """
    plan = ViewPlan(**values["preprocessing"])
    placeholder = {"slope": 1.0, "offset": 0.0}
    blank = {"synthetic": [], "authentic": [], "n_synthetic": 0, "n_authentic": 0, "data": ""}
    _write(
        folder,
        {**values, "calibration": placeholder, "thresholds": blank, "default": {"fpr": 0.5, "fnr": 0.5}},
    )
    logits = session_logits(weights_on_disk.load(folder))
    rows = split_rows(labelled, "calibration")
    scored = evaluation.score_rows(rows, logits, plan, "aligned")
    raw = scored.logits(plan)
    calibration = fit_platt(raw, scored.labels)
    scores = np.array([calibration.score(z) for z in raw])
    labels, told = scored.labels, f"calibration split, aligned protocol, {len(set(scored.sources))} sources"
    if more is not None:
        scores, labels = np.concatenate([scores, more.scores]), np.concatenate([labels, more.labels])
        told += (
            f", and {len(set(more.sources))} training sources, each scored by a run that did not train on it"
        )
        values["folds"] = {"n": len(more.scores), "auroc": [round(area, 4) for area in more.auroc]}
    table = operating_table(scores, labels, f"{labelled.name}, {told}")
    values = {
        **values,
        "calibration": calibration.to_dict(),
        "thresholds": table.to_dict(),
        "default": {
            "fpr": least_rate(table.synthetic, DEFAULT_FPR),
            "fnr": least_rate(table.authentic, DEFAULT_FNR),
        },
    }
    _write(folder, values)
    weights = weights_on_disk.load(folder)
    measured = {}
    if any(row.split == "validation" for row in labelled.rows):
        measured = measure(weights, labelled, "validation")
    _write(folder, {**values, "measured": measured})
    (folder / "README.md").write_text(card({**values, "measured": measured}), "utf-8")
    return weights_on_disk.load(folder)


def _write(folder: Path, values: Mapping[str, Any]) -> None:
    temporary = folder / "config.json.tmp"
    temporary.write_text(json.dumps(values, indent=1) + "\n", "utf-8")
    temporary.replace(folder / "config.json")


def session_logits(weights: Weights, n_threads: int = 0) -> evaluation.Logits:
    """The weights' network as a function of views; n_threads 0: all processors."""
    from mai.weights.session import open_session

    return open_session(weights, n_threads or n_cpus()).logits


def split_rows(labelled: LabelledSet, split: str | None, views: tuple[str, ...] | None = None) -> list[Any]:
    """Rows of a split (None: all); without `views`, the evaluation-only view `web` is left out.

    Raises:
        DataError: there are none.
    """
    chosen = [
        row
        for row in labelled.rows
        if (split is None or row.split == split) and (row.view in views if views else row.view != "web")
    ]
    if not chosen:
        raise DataError(
            f"{labelled.name} has no rows in split '{split}'"
            + (f" of view {', '.join(views)}." if views else ".")
            + _other_splits(labelled)
        )
    return chosen


def _other_splits(labelled: LabelledSet) -> str:
    names = sorted({row.split for row in labelled.rows if row.split})
    if not names:
        return " It has no splits at all. Make them: mai data split DATA --output split.csv"
    return f" It has: {', '.join(names)}."


def measure(weights: Weights, labelled: LabelledSet, split: str | None) -> dict[str, Any]:
    """Figures of a split under both protocols, and of its `web` view as stored if it has one."""
    plan = ViewPlan(**weights.preprocessing)
    logits = session_logits(weights)
    threshold = weights.table.at_fpr(weights.fpr).score
    rows = split_rows(labelled, split)
    result: dict[str, Any] = {
        "data": labelled.name,
        "fingerprint": labelled.fingerprint,
        "split": split,
        "fpr": weights.fpr,
    }
    for protocol in ("native", "aligned"):
        scored = evaluation.score_rows(rows, logits, plan, protocol)
        result[protocol] = evaluation.report(scored, plan, weights.calibration, threshold)
    if any(row.view == "web" and row.split == split for row in labelled.rows):
        scored = evaluation.score_rows(split_rows(labelled, split, ("web",)), logits, plan, "native")
        result["web"] = evaluation.report(scored, plan, weights.calibration, threshold)
    return result


FIGURES = (
    ("auroc", "AUROC"),
    ("average_precision", "average precision"),
    ("balanced_accuracy", "balanced accuracy at the fixed threshold"),
    ("recall", "synthetic called synthetic at the fixed threshold"),
    ("flagged", "authentic called synthetic at the fixed threshold"),
    ("tpr_at_5_fpr_oracle", "TPR@5%FPR (oracle threshold)"),
    ("tpr_at_1_fpr_oracle", "TPR@1%FPR (oracle threshold)"),
    ("ece", "ECE (15 bins, class-balanced)"),
    ("ece_if_calibrated", "ECE if every score were true, so many pictures"),
)


def card(values: Mapping[str, Any]) -> str:
    """The figures of a weights folder as Markdown; what they mean stands in the architecture's README."""
    trained, measured = values["trained"], values["measured"]
    lines = [
        f"# {values['name']}",
        "",
        f"Figures of these weights, written by `mai export {values['architecture']}` on {values['created']}. What the",
        f"network is, what it was trained on and what it cannot do: `mai/{values['architecture']}/README.md`.",
        "",
        f"Trained on {trained['data']} (fingerprint {trained['fingerprint'][:16]}), {_runs(trained)}, "
        f"MAI {trained['versions']['mai']}, torch {trained['versions']['torch']}. "
        f"{_exported(values)} sha256 {values['sha256'][:16]}.",
        "",
    ]
    table = values["thresholds"]
    lines += [
        f"Calibration and thresholds: {table['data']}, {table['n_synthetic']} synthetic and {table['n_authentic']} "
        f"authentic pictures. Default: {values['default']['fpr']:.0%} false positives, "
        f"{values['default']['fnr']:.0%} false negatives.",
        "",
    ]
    if measured:
        chosen = trained.get("chosen", "The epoch that ships was chosen by the validation AUROC.")
        if trained.get("checkpoint") == "last":
            chosen = "The last epoch ships."
        lines += _figures(measured, weights_on_disk.family(values["name"]), chosen)
    return "\n".join(lines).rstrip() + "\n"


def _runs(trained: Mapping[str, Any]) -> str:
    """The runs behind the weights: `9 epochs, seed 0`, or `the average of 2 runs (8 and 8 epochs, seeds 0 and 1)`."""
    if "how" in trained:
        return str(trained["how"])
    runs = [trained, *trained.get("averaged", [])]
    epochs = " and ".join(str(run["epoch"]) for run in runs)
    seeds = " and ".join(str(run["recipe"]["run"]["seed"]) for run in runs)
    if len(runs) == 1:
        return f"{epochs} epochs, seed {seeds}"
    what = "an ensemble" if trained.get("combined") == "ensemble" else "the average"
    return f"{what} of {len(runs)} runs ({epochs} epochs, seeds {seeds})"


def _exported(values: Mapping[str, Any]) -> str:
    if values["onnx_difference"] is None:
        return str(values.get("exported") or "The backbone stays with torch; it is not in this folder.")
    return f"ONNX against PyTorch: {values['onnx_difference']:.1e}."


def _figures(measured: Mapping[str, Any], called: str, chosen: str) -> list[str]:
    columns = [name for name in ("aligned", "native", "web") if name in measured]
    lines = [
        f"## Measured on {measured['data']}, {measured['split']} split",
        "",
        f"`mai eval {called} --data DATA --split {measured['split']}`; one score a picture; brackets: "
        "95 % interval, bootstrap over sources. Threshold fixed beforehand on the calibration split "
        f"({measured['fpr']:.0%} false positives there). {chosen}",
        "",
        "| | " + " | ".join(columns) + " |",
        "|---|" + "---|" * len(columns),
        "| synthetic / authentic pictures | "
        + " | ".join(f"{measured[c]['n_synthetic']} / {measured[c]['n_authentic']}" for c in columns)
        + " |",
    ]
    for key, title in FIGURES:
        cells = [measured[c].get(key) for c in columns]
        lines.append(
            f"| {title} | "
            + " | ".join(f"{v[0]:.3f} [{v[1]:.3f}, {v[2]:.3f}]" if v else "" for v in cells)
            + " |"
        )
    for name, title in (("generators", "generator"), ("sources", "source"), ("contents", "kind of content")):
        groups = [g for g in measured["aligned"][name] if g["n"] >= evaluation.LEAST_GROUP]
        lines += ["", f"### Aligned, per {title} (20 pictures or more)", ""]
        lines += [f"| {title} | class | n | called synthetic | AUROC |", "|---|---|---|---|---|"]
        lines += [
            f"| {g['name']} | {g['label']} | {g['n']} | {g['called_synthetic']:.2f} | "
            f"{g.get('auroc_against_other_class', float('nan')):.2f} |"
            for g in groups
        ]
    return lines
