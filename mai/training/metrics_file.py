"""The figures of a run, one line an epoch: metrics.csv, and the same numbers for TensorBoard under events/."""

from __future__ import annotations

import csv
from pathlib import Path

from mai.errors import require

FIELDS = ("epoch", "step", "loss", "lr", "auroc", "auroc_whole", "auroc_crop", "images_per_s", "seconds")


def add_line(folder: Path, row: dict[str, float]) -> None:
    """Write one epoch's figures (keys FIELDS) to a run folder.

    A run killed between this and its checkpoint repeats the epoch: the epoch's older line, and any after it, go.
    """
    path = folder / "metrics.csv"
    rows: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="") as file:
            rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < row["epoch"]]
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
        writer.writerow({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in row.items()})
    temporary.replace(path)
    board = require("torch.utils.tensorboard", "train", "Training").SummaryWriter(str(folder / "events"))
    for name in FIELDS[2:]:
        board.add_scalar(name, row[name], int(row["epoch"]))
    board.close()
