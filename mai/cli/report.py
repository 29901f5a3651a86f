"""mai report: what a finished scan found, as text, JSON or a page; or its files by label, for other programs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click


@click.command(short_help="What a finished scan found; its files by label.")
@click.argument("scan", type=click.Path(path_type=Path))
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="A page (.html) or JSON (.json)."
)
@click.option(
    "--paths-of",
    type=click.Choice(["synthetic", "authentic", "inconclusive", "none"]),
    help="Only print the files with this label, one a line; none: not judged.",
)
@click.option("--null", is_flag=True, help="With --paths-of: end each with NUL, for xargs -0.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")
def command(scan: Path, output: Path | None, paths_of: str | None, null: bool, as_json: bool) -> None:
    """Say what SCAN found: counts, the highest scores, what could not be judged.

    SCAN is what `mai scan --output FILE` wrote: .jsonl, .json, .csv, .parquet (a file or a
    folder), .sqlite or .duckdb.
    """
    from mai.report import summary as summaries
    from mai.report.destination import whole_file
    from mai.report.escape import visible
    from mai.report.words import LABELS

    if null and not paths_of:
        raise click.UsageError("--null goes with --paths-of LABEL.")
    if paths_of:
        stream = sys.stdout.buffer
        for row in summaries.rows_of(scan):
            if (row["label"] or "none") == paths_of:
                stream.write(_as_bytes(row["path"]) + (b"\0" if null else b"\n"))
        stream.flush()
        return
    made = summaries.summarise(summaries.rows_of(scan))
    text = json.dumps(made.to_dict(), indent=1)
    if output:
        with whole_file(output) as file:
            file.write(text if output.suffix == ".json" else summaries.html(made, str(scan)))
    if as_json:
        click.echo(text)
        return
    click.echo(f"{made.n:,} files")
    words: dict[str, str] = {str(label): told for label, told in LABELS.items()} | {"none": "not judged"}
    for name, n in made.labels.most_common():
        click.echo(f"  {words.get(name, name):<22} {n:>12,}  {n / max(made.n, 1):.1%}")
    for row in made.highest[:10]:
        click.echo(f"  {float(row['score']):.3f}  {visible(row['path'])}")


def _as_bytes(shown: str) -> bytes:
    """The file's own name of the form that rows show: bytes that are not UTF-8 stand there as \\xNN."""
    import re

    raw = shown.encode("utf-8", "surrogateescape")
    if os.path.lexists(raw) or b"\\x" not in raw:
        return raw
    return re.sub(rb"\\x([0-9a-fA-F]{2})", lambda m: bytes([int(m[1], 16)]), raw)
