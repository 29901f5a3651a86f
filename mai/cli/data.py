"""mai data: audit a labelled set, split it, make one of a scan and your corrections, or export it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mai.cli._group import Group

if TYPE_CHECKING:
    from mai.data.labelled import LabelledSet


@click.group(cls=Group, short_help="Audit, split, import or export a labelled set.")
def command() -> None:
    """Audit a labelled set, split it, make one of a scan and your corrections, or export it.

    DATA is a folder whose folders are named authentic, real, nature or 0_real and synthetic, fake, ai or 1_fake; a
    folder with manifest.csv; a CSV or Parquet file with the columns file and label; a Hugging Face data set saved
    to disk; or hub:org/name.
    """


@command.command("audit")
@click.argument("data")
@click.option("--json", "as_json", is_flag=True, help="JSON for programs in place of text.")
@click.option(
    "--html", "html_file", type=click.Path(dir_okay=False, path_type=Path), help="Also write a page."
)
@click.option("--split", help="Only this split.")
@click.option("--view", "views", multiple=True, help="Only this view (may be given again).")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many pictures, drawn at random.")
@click.option(
    "--chain/--no-chain", default=True, show_default=True, help="Test what the training chain leaves."
)
@click.option("--workers", "n_workers", type=click.IntRange(min=1), help="Processes. [default: one a core]")
@click.option("--seed", default=0, show_default=True, help="Of draws, folds and bootstraps.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def audit_command(
    data: str,
    as_json: bool,
    html_file: Path | None,
    split: str | None,
    views: tuple[str, ...],
    limit: int | None,
    chain: bool,
    n_workers: int | None,
    seed: int,
    quiet: bool,
) -> None:
    """Say what spoils a labelled set: broken files, duplicates, sources in two splits, leaks.

    A set leaks when its files give the class away without the picture: by format, size, shape, chroma or quality.

    Exit code: 0 clean, 1 a leak, duplicates or sources in two splits, or broken files, 2 wrong use.
    """
    import json

    from mai.data.audit import audit
    from mai.data.sources import read_set
    from mai.errors import DataError, UsageError
    from mai.machine import n_cpus
    from mai.report.audit_html import audit_html
    from mai.report.audit_text import audit_text
    from mai.report.escape import safe_json

    progress, say = _progress(quiet)
    try:
        labelled = _part(read_set(data, one_class=True), split, views)
        found = audit(
            labelled,
            with_chain=chain,
            limit=limit,
            n_workers=n_workers or n_cpus(),
            seed=seed,
            progress=progress,
            say=say,
        )
    except DataError as error:
        # Exit code 1 says that the set was audited and is not clean.
        raise UsageError(str(error)) from error
    say("")
    if html_file:
        _write(html_file, audit_html(found))
    if as_json:
        lines = json.dumps(found.to_dict(), indent=2, ensure_ascii=False).split("\n")
        click.echo("\n".join(map(safe_json, lines)))
    else:
        click.echo(audit_text(found))
    sys.exit(0 if found.is_clean else 1)


@command.command("split")
@click.argument("data")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The CSV to write."
)
@click.option("--train", default=0.8, show_default=True, help="Share of train.")
@click.option("--validation", default=0.1, show_default=True, help="Share of validation.")
@click.option("--calibration", default=0.1, show_default=True, help="Share of calibration.")
@click.option("--seed", default=0, show_default=True, help="Of the order of equal groups.")
@click.option("--workers", "n_workers", type=click.IntRange(min=1), help="Processes. [default: one a core]")
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
def split_command(
    data: str,
    output: Path,
    train: float,
    validation: float,
    calibration: float,
    seed: int,
    n_workers: int | None,
    force: bool,
    quiet: bool,
) -> None:
    """Write a CSV of DATA with a column `split`: train, validation or calibration.

    Pictures of one source stay together; without sources, pictures that are near duplicates do. Rows that have a
    split keep it.
    """
    from mai.data.exporting import csv_text
    from mai.data.sources import read_set
    from mai.data.split import assign_splits
    from mai.errors import UsageError
    from mai.machine import n_cpus

    if output.exists() and not force:
        raise UsageError(f"'{output}' exists. Give another --output, or --force to replace it.")
    progress, say = _progress(quiet)
    labelled = read_set(data)
    if any(row.stored is not None for row in labelled.rows):
        raise UsageError(
            f"'{data}' holds pictures inside a table; a CSV can only name files. Save them as files."
        )
    result = assign_splits(
        labelled,
        fractions=(train, validation, calibration),
        seed=seed,
        n_workers=n_workers or n_cpus(),
        progress=progress,
    )
    say("")
    _write(output, csv_text(result, Path(os.path.abspath(output)).parent))  # noqa: PTH100
    for name, counts in result.counts_by("split").items():
        click.echo(f"{name:<12} {counts['synthetic']:>8,} synthetic {counts['authentic']:>8,} authentic")


@command.command("import")
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--corrections",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="CSV with columns path and label: synthetic, authentic, or skip.",
)
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The CSV to write."
)
@click.option(
    "--with-verdicts",
    is_flag=True,
    help="Also take pictures that the scan judged and nobody corrected. A network learns its own mistakes so.",
)
@click.option(
    "--root", type=click.Path(path_type=Path), help="Folder that paths start from.  [default: this one]"
)
@click.option(
    "--source", help="Where the pictures come from, if all from one place: they are never split apart."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
def import_command(
    scan: Path,
    corrections: Path,
    output: Path,
    with_verdicts: bool,
    root: Path | None,
    source: str | None,
    force: bool,
) -> None:
    """Make a labelled set of what SCAN found and what a person says of it.

    SCAN is what `mai scan --output FILE` wrote. Only files that --corrections names are taken, with its labels; they
    must be those that were scanned, byte for byte. The CSV is a set for `mai adapt`, `mai train` and `mai calibrate`.
    """
    from mai.counting import counted
    from mai.data.exporting import csv_text
    from mai.data.importing import import_scan, read_corrections
    from mai.errors import UsageError
    from mai.report.escape import visible
    from mai.report.summary import rows_of

    if output.exists() and not force:
        raise UsageError(f"'{output}' exists. Give another --output, or --force to replace it.")
    found = import_scan(
        rows_of(scan),
        read_corrections(corrections),
        scan.stem,
        root=root,
        with_verdicts=with_verdicts,
        source=source,
    )
    _write(output, csv_text(found.labelled, Path(os.path.abspath(output)).parent))  # noqa: PTH100
    counts = found.labelled.counts()
    click.echo(f"{output}: {counts['synthetic']:,} synthetic, {counts['authentic']:,} authentic pictures")
    for verdict, labels in sorted(found.changed.items()):
        for label, n in sorted(labels.items()):
            word = "confirmed" if verdict == label else "corrected"
            click.echo(f"  {word}: the scan said {verdict}, a person {label}: {n:,}")
    for reason, files in found.left_out.items():
        click.echo(
            visible(f"left out: {counted(len(files), 'file')}, {reason}; the first is {files[0]}"), err=True
        )
    if not (counts["synthetic"] and counts["authentic"]):
        click.echo("Only one class is there: add corrections of the other before you train.", err=True)


@command.command("export")
@click.argument("data")
@click.option("--to", "form", type=click.Choice(["folders", "csv", "parquet", "hub"]), required=True)
@click.option(
    "--output",
    "-o",
    required=True,
    metavar="PATH",
    help="Folder (folders, parquet), file (csv) or ORG/NAME (hub) to write.",
)
@click.option("--split", help="Only this split.")
@click.option("--view", "views", multiple=True, help="Only this view (may be given again).")
@click.option(
    "--link", is_flag=True, help="With --to folders: hard links in place of copies, where possible."
)
@click.option("--public", is_flag=True, help="With --to hub: a repository that everybody can read.")
def export_command(
    data: str, form: str, output: str, split: str | None, views: tuple[str, ...], link: bool, public: bool
) -> None:
    """Write a labelled set as folders, a CSV, Parquet, or a data set of the hub.

    Splits, sources, generators and views go along, and what is written is read back as the same set.
    """
    from mai.data import exporting
    from mai.data.sources import read_set

    if link and form != "folders":
        raise click.UsageError("--link goes with --to folders.")
    if public and form != "hub":
        raise click.UsageError("--public goes with --to hub.")
    labelled = _part(read_set(data, one_class=True), split, views)
    if form == "hub":
        written = exporting.to_hub(labelled, output, public=public)
    else:
        written = output
        place = Path(os.path.abspath(output))  # noqa: PTH100
        if form == "csv":
            exporting.to_csv(labelled, place)
        elif form == "folders":
            exporting.to_folders(labelled, place, link=link)
        else:
            exporting.to_parquet(labelled, place)
    counts = labelled.counts()
    n = f"{counts['synthetic']:,} synthetic and {counts['authentic']:,} authentic pictures"
    click.echo(f"{written}: {counts['files']:,} files, {n}")


def _part(labelled: LabelledSet, split: str | None, views: tuple[str, ...]) -> LabelledSet:
    from mai.errors import UnknownNameError

    has_views = {row.view for row in labelled.rows if row.view}
    for view in views:
        if view not in has_views:
            raise UnknownNameError("view", view, has_views)
    has_splits = {row.split for row in labelled.rows if row.split}
    if split is not None and split not in has_splits:
        raise UnknownNameError("split", split, has_splits)
    return labelled.select(split=split, views=views or None)


def _write(path: Path, text: str) -> None:
    from mai.errors import UsageError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", errors="surrogateescape")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be written: {error.strerror}.") from error


def _progress(quiet: bool) -> tuple[Callable[[int, int], None] | None, Callable[[str], None]]:
    """What tells people how far it is: a line on a terminal, nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        return None, lambda _: None

    def progress(n_done: int, n_all: int) -> None:
        if n_done % 50 == 0 or n_done == n_all:
            sys.stderr.write(f"\r\x1b[Klooking at files: {n_done:,} of {n_all:,}")
            sys.stderr.flush()

    def say(what: str) -> None:
        sys.stderr.write(f"\r\x1b[K{what}")
        sys.stderr.flush()

    return progress, say
