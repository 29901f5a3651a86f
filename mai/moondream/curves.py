"""The figures of a run, one line an epoch in metrics.csv and under events/, and their curves."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mai.errors import require


@dataclass(frozen=True, slots=True)
class Figures:
    """One epoch.

    Attributes:
        epoch: passes done.
        step: steps of the optimizer done.
        loss: mean cross-entropy over the answer's tokens, training.
        lr: learning rate.
        auroc: of the validation pictures, aligned protocol.
        auroc_low: lower end of its 95 % interval, bootstrap over sources.
        auroc_high: its upper end.
        balanced_accuracy: at a calibrated score of one half.
        ece: of the calibrated score.
        n_skipped: pictures that could not be read so far.
        images_per_s: training speed.
        seconds: of the epoch's training.
    """

    epoch: int
    step: int
    loss: float
    lr: float
    auroc: float
    auroc_low: float
    auroc_high: float
    balanced_accuracy: float
    ece: float
    n_skipped: int
    images_per_s: float
    seconds: float

    def add_to(self, folder: Path) -> None:
        """Write it; an older line of the same epoch (of a run killed before its checkpoint) goes."""
        path = folder / "metrics.csv"
        rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="") as file:
                rows = [old for old in csv.DictReader(file) if int(old["epoch"]) < self.epoch]
        values = asdict(self)
        temporary = path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(values))
            writer.writeheader()
            writer.writerows(rows)
            writer.writerow({k: v if isinstance(v, int) else f"{v:.6g}" for k, v in values.items()})
        temporary.replace(path)
        board = require("torch.utils.tensorboard", "vlm", "Training").SummaryWriter(str(folder / "events"))
        for name, value in values.items():
            if name not in ("epoch", "step"):
                board.add_scalar(name, value, self.epoch)
        board.close()

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.4f}, AUROC {self.auroc:.4f} [{self.auroc_low:.4f}, {self.auroc_high:.4f}], balanced "
            f"accuracy {self.balanced_accuracy:.4f}, ECE {self.ece:.4f}, {self.images_per_s:.1f} images/s, "
            f"{self.n_skipped} skipped: epoch {self.epoch}"
        )


def draw(folder: Path) -> Path:
    """Draw curves.png of a run folder."""
    require("matplotlib", "vlm", "Drawing curves")
    from matplotlib.figure import Figure

    with (folder / "metrics.csv").open(newline="") as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [row["loss"] for row in rows], color="#444444", marker=".")
    left.set(xlabel="epoch", ylabel="cross-entropy of the answer's tokens", title="Training loss")
    right.plot(
        epochs, [row["auroc"] for row in rows], color="#0b6e99", marker=".", label="AUROC, 95 % interval"
    )
    right.fill_between(epochs, [row["auroc_low"] for row in rows], [row["auroc_high"] for row in rows],
                       color="#0b6e99", alpha=0.15, linewidth=0)  # fmt: skip
    right.plot(epochs, [row["balanced_accuracy"] for row in rows], color="#7aa95c", label="balanced accuracy")
    right.plot(epochs, [row["ece"] for row in rows], color="#c4742b", label="ECE")
    right.axhline(0.5, color="#999999", linewidth=0.8, linestyle=":")
    right.set(xlabel="epoch", title="Validation, aligned protocol, calibrated score", ylim=(0, 1))
    right.legend(frameon=False)
    path = folder / "curves.png"
    figure.savefig(path, dpi=130)
    return path


FIELDS = tuple(f.name for f in fields(Figures))
