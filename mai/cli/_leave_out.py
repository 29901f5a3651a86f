"""`mai bench leave-out`, see mai/bench/leave_out.py. Not a command of its own (its name begins with an underscore)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("leave-out")
@click.argument("arch")
@click.option("--data", required=True, help="Folder, CSV, Parquet file or hub:ORG/NAME with labels.")
@click.option(
    "--by", type=click.Choice(["generator", "source", "date"]), required=True, help="What is left out."
)
@click.option("--only", multiple=True, metavar="NAME", help="This generator or source (may be given again).")
@click.option(
    "--least", type=click.IntRange(1), default=20, show_default=True, help="Pictures that a group needs."
)
@click.option(
    "--parts", type=click.IntRange(2), help="Join the groups into so many parts.  [default: one fold each]"
)
@click.option(
    "--cutoff",
    default="",
    metavar="YYYY-MM",
    help="With --by date: month from which generators are left out.",
)
@click.option(
    "--dates",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CSV generator,released in place of the shipped months.",
)
@click.option("--recipe", default="base", show_default=True, help="A shipped recipe's name, or a TOML file.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one key of the recipe."
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the folds and the report.",
)
@click.option("--workers", type=click.IntRange(0), help="Processes that make batches.")
@click.option("--threads", type=click.IntRange(1), help="Threads of the network on a CPU.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON in place of the table.")
@click.option("--plan", "only_plan", is_flag=True, help="Only print the folds, train nothing.")
def command(
    arch: str,
    data: str,
    by: Any,
    only: tuple[str, ...],
    least: int,
    parts: int | None,
    cutoff: str,
    dates: Path | None,
    recipe: str,
    overrides: tuple[str, ...],
    output: Path,
    workers: int | None,
    threads: int | None,
    as_json: bool,
    only_plan: bool,
) -> None:
    """Train ARCH without each generator, source or time in turn, and test on what was left out.

    Each fold is a whole training. With what is left out, a part of the other class's sources is left out too, so that
    nothing in a test was trained on. Folds that are done are kept: the same command goes on after a kill.
    """
    from mai.bench import folds as cut
    from mai.bench import leave_out
    from mai.data.sources import read_set
    from mai.data.split import assign_splits
    from mai.errors import require
    from mai.report.escape import visible

    if (cutoff or dates) and by != "date":
        raise click.UsageError("--cutoff and --dates go with --by date.")
    architecture, made = leave_out.load(arch, recipe, overrides)
    labelled = assign_splits(read_set(data), seed=made.run.seed)
    found = cut.folds(
        labelled, by, only=only, least=least, parts=parts or 0, cutoff=cutoff,
        dates=cut.read_dates(dates) if by == "date" else None,
    )  # fmt: skip
    if only_plan:
        for fold in found:
            n = {split: fold.labelled.select(split=split).counts()["images"] for split in ("train", "test")}
            click.echo(
                visible(f"{fold.name}: train {n['train']:,}, test {n['test']:,}: {', '.join(fold.groups)}")
            )
        return
    torch = require("torch", "train", "Training")
    if threads:
        torch.set_num_threads(threads)
    report = leave_out.run(leave_out.Plan(architecture, made, output, workers), labelled, found, by)
    click.echo(json.dumps(report, indent=1) if as_json else visible_lines(leave_out.as_text(report)))


def visible_lines(text: str) -> str:
    """Control characters of names written out, line by line."""
    from mai.report.escape import visible

    return "\n".join(visible(line) for line in text.split("\n"))
