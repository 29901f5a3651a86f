"""`mai train`: Train the weights of an architecture on a labelled set."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("train")
@click.argument("arch")
@click.option(
    "--data", required=True, help="Folder, CSV, Parquet file or hub:ORG/NAME with labels (docs/data.md)."
)
@click.option("--recipe", default="base", show_default=True, help="A shipped recipe's name, or a TOML file.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one key of the recipe, e.g. run.epochs=3.",
)
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Run folder.  [default: runs/ARCH]")
@click.option("--resume", is_flag=True, help="Go on where a killed or finished run of that folder stood.")
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that make batches.  [default: one a processor, at most 8]",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of the network on a CPU.  [default: all]")
def command(
    arch: str,
    data: str,
    recipe: str,
    overrides: tuple[str, ...],
    output: Path | None,
    resume: bool,
    workers: int | None,
    threads: int | None,
) -> None:
    """Train ARCH (resnet, pixel, moondream, probe) on labelled pictures.

    Rows without a split are split by source, or by groups of near-duplicates. Everything that came of the run lies in
    the run folder; `mai export ARCH RUN --data DATA` makes weights of it that `mai scan --weights` takes.
    """
    from mai import config
    from mai.data.sources import read_set
    from mai.data.split import assign_splits
    from mai.data.store import open_store
    from mai.errors import require
    from mai.machine import sleep_while_waiting
    from mai.training import architectures
    from mai.training.job import Job
    from mai.training.loop import train

    sleep_while_waiting()
    architecture = architectures.load(arch)
    torch = require("torch", "train", "Training")
    plan = config.read(architecture.recipe, architectures.recipe_file(architecture, recipe), overrides)
    if plan.architecture != arch:
        raise click.UsageError(f"The recipe is for '{plan.architecture}', not for '{arch}'.")
    if threads:
        torch.set_num_threads(threads)
    labelled = assign_splits(read_set(data), seed=plan.run.seed)
    folder = output or Path("runs") / arch
    if architecture.train is not None:
        best = architecture.train(architectures.TrainOrder(plan, labelled, folder, resume, workers))
    else:
        job = Job(
            recipe=plan,
            build=lambda: architecture.build(plan),
            store=open_store(labelled),
            fingerprint=labelled.fingerprint,
            data=labelled.name,
            output=folder,
            n_workers=workers,
        )
        best = train(job, resume=resume)
    click.echo(f"Best checkpoint: {best}. Next: mai export {arch} {folder} --data {data}")
