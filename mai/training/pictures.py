"""Curves, score histogram and ROC of a run, as PNG files in its folder."""

from __future__ import annotations

import csv
from pathlib import Path

from mai.errors import require


def draw_run(folder: Path) -> list[Path]:
    """Draw what the run folder holds; returns the pictures made."""
    require("matplotlib", "train", "Drawing curves")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    made: list[Path] = []
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row["loss"] for row in rows], color="#444444")
    left.set(xlabel="epoch", ylabel="training loss (BCE)", title="Loss")
    for name, colour in (("auroc", "#0b6e99"), ("auroc_whole", "#7aa95c"), ("auroc_crop", "#c4742b")):
        right.plot(
            epochs,
            [row[name] for row in rows],
            color=colour,
            label=name.replace("auroc_", "").replace("auroc", "picture"),
        )
    right.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    right.set(xlabel="epoch", ylabel="AUROC", title="Validation, aligned protocol")
    right.legend(frameon=False)
    made.append(folder / "curves.png")
    figure.savefig(made[-1], dpi=130)
    if (folder / "best_scores.npz").exists():
        made += _draw_scores(folder)
    return made


def _draw_scores(folder: Path) -> list[Path]:
    import numpy as np
    from matplotlib.figure import Figure
    from sklearn.metrics import roc_auc_score, roc_curve

    saved = np.load(folder / "best_scores.npz")
    logits, labels = saved["logits"], saved["labels"].astype(bool)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    bins = np.linspace(logits.min(), logits.max(), 40)
    left.hist(logits[~labels], bins, alpha=0.6, color="#0b6e99", label=f"authentic (n {(~labels).sum()})")
    left.hist(logits[labels], bins, alpha=0.6, color="#c4742b", label=f"synthetic (n {labels.sum()})")
    left.set(xlabel="logit of a picture", ylabel="pictures", title="Best epoch, validation")
    left.legend(frameon=False)
    fpr, tpr, _ = roc_curve(labels, logits)
    right.plot(fpr, tpr, color="#444444")
    right.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
    right.set(
        xlabel="authentic flagged",
        ylabel="synthetic caught",
        title=f"ROC, AUROC {roc_auc_score(labels, logits):.3f}",
    )
    right.set_aspect("equal")
    path = folder / "scores.png"
    figure.savefig(path, dpi=130)
    return [path]
