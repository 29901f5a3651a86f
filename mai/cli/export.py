"""`mai export`: Make weights that scan can use of a training run: ONNX, calibration, thresholds, card."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("export")
@click.argument("arch")
@click.argument(
    "runs",
    metavar="RUN...",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option(
    "--data", required=True, help="The labelled set; its calibration split fits score and thresholds."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Weights folder.  [default: RUN/ARCH_vMAJOR_MINOR]",
)
@click.option(
    "--checkpoint",
    "which",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="Of each run: its best epoch on the validation split, or its last.",
)
@click.option(
    "--combine",
    type=click.Choice(["average", "ensemble"]),
    default="average",
    show_default=True,
    help="Of several runs: average their weights, or ship all networks as one whose logit is the mean of theirs.",
)
@click.option("--version", default="1.0", show_default=True, help="Major.minor of the weights.")
@click.option("--name", default="", help="What the weights are called before the version.  [default: ARCH]")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key of the view plan, e.g. n_native=2.",
)
def command(
    arch: str,
    runs: tuple[Path, ...],
    data: str,
    output: Path | None,
    which: str,
    combine: Literal["average", "ensemble"],
    version: str,
    name: str,
    overrides: tuple[str, ...],
) -> None:
    """Export a checkpoint of RUN as weights, or the checkpoints of several runs together.

    Runs can be averaged that were trained on the same data from the same initial weights; an ensemble takes any runs
    on the same data, is often better than each, and costs the time of all. Checks that onnxruntime and
    PyTorch agree to 1e-4, fits the calibration and the table of thresholds on the calibration split, measures the
    validation split, and writes model.onnx, config.json and README.md (the card).
    """
    from mai import config
    from mai.data.sources import read_set
    from mai.data.split import assign_splits
    from mai.errors import require
    from mai.images.views import ViewPlan
    from mai.measure.calibrate import DEFAULT_FPR
    from mai.training import architectures, checkpoint
    from mai.training.shipping import export_run

    architecture = architectures.load(arch)
    folder = f"{name or arch}_v{version.replace('.', '_')}"
    if architecture.export is not None:
        if len(runs) > 1 or which != "best":
            raise click.UsageError(f"A run of {arch} has one checkpoint, and several are not averaged.")
        if name:
            raise click.UsageError(f"Weights of {arch} are called {arch}; --name is for networks that ship.")
        require("torch", "train", "Exporting")
        seed = checkpoint.load(runs[0] / "best.pt")["recipe"]["run"]["seed"]
        own = assign_splits(read_set(data), seed=seed)
        made = architecture.export(
            architectures.ExportOrder(runs[0], own, output or runs[0] / folder, version, overrides)
        )
        click.echo(
            f"{made.folder}: {made.name}. Try: mai scan PATH --detectors {arch} --weights {made.folder}"
        )
        return
    values = config.to_dict(architecture.plan)
    for text in overrides:
        config.override(values, text)
    plan = config.build(ViewPlan, values, where="view plan")
    require("torch", "train", "Exporting")
    # The run's own split: with another seed, pictures that it was trained on would be calibrated on.
    seed = checkpoint.load(runs[0] / f"{which}.pt")["recipe"]["run"]["seed"]
    labelled = assign_splits(read_set(data), seed=seed)
    weights = export_run(
        architecture, runs, labelled, output or runs[0] / folder, version, plan, which, combine, name
    )
    if weights.fpr > DEFAULT_FPR:
        click.echo(
            f"mai: {weights.table.n_authentic} authentic calibration pictures cannot tell a false-positive rate under "
            f"{weights.fpr:.0%}: these weights flag about that share by default. A hundred or more tell 1 %.",
            err=True,
        )
    size_mb = weights.model.stat().st_size / 1e6
    click.echo(
        f"{weights.folder}: {weights.name}, {size_mb:.1f} MB. Try: mai scan PATH --weights {weights.folder}"
    )
