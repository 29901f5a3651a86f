"""mai watch: judge the pictures that arrive in a folder, until it is stopped.

Exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 the folder or the output cannot be used, 2 wrong use.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import click


@click.command(short_help="Judge the pictures that arrive in a folder.")
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Append the rows to this file, one JSON object a line. Default: standard output.",
)
@click.option(
    "--move-to",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Move each file into DIR/synthetic, DIR/authentic, DIR/inconclusive or DIR/not-judged.",
)
@click.option("--existing", is_flag=True, help="First judge what is in the folder already.")
@click.option(
    "--settle",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds for which a file must not grow before it is looked at.",
)
@click.option("--once", is_flag=True, help="With --existing: end when that is done.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes that look. Default: 1.")
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="Seconds that one file may take; its row then says so.",
)
@click.option(
    "--detectors", metavar="A,B", help="Detectors to ask. Default: c2pa, metadata, watermark, pixel."
)
@click.option(
    "--fpr", type=float, metavar="RATE", help="Share of authentic images that may be flagged, e.g. 0.01."
)
@click.option(
    "--threshold", type=float, metavar="T", help="Score from which an image counts as AI-generated."
)
@click.option("--weights", metavar="DIR", help="Weights in place of the shipped ones: a folder or a name.")
@click.option(
    "--trust", type=click.Path(path_type=Path), metavar="FILE", help="PEM file of C2PA trust anchors."
)
@click.option("--quiet", is_flag=True, help="Say nothing but the rows and errors.")
def command(
    *,
    folder: Path,
    output: Path | None,
    move_to: Path | None,
    existing: bool,
    settle: float,
    once: bool,
    workers: int | None,
    timeout: float,
    detectors: str | None,
    fpr: float | None,
    threshold: float | None,
    weights: str | None,
    trust: Path | None,
    quiet: bool,
) -> None:
    """Judge each picture that arrives in a folder or below it, and append its row.

    A file is looked at when it has stopped growing. Rows are those of `mai scan --jsonl`. Ctrl-C ends it.

    Exit codes: 0 stopped, 1 the folder or the output cannot be used, 2 wrong use.
    """
    from mai.errors import UsageError, require
    from mai.pipeline import ScanSettings
    from mai.scanning.worker_process import make_scanner
    from mai.serve.watching import Watch

    require("watchfiles", "serve", "mai watch")
    if once and not existing:
        raise click.UsageError("--once needs --existing: else there is nothing to do.")
    if move_to is not None and _is_within(move_to, folder):
        raise UsageError(
            f"--move-to {move_to} lies in {folder}, and moved files would arrive anew. Choose another."
        )
    if output is not None and _is_within(output.parent, folder) and not quiet:
        click.echo(
            f"mai: {output} lies in the folder that is watched; it is no picture and is passed over.",
            err=True,
        )
    names = tuple(name.strip() for name in detectors.split(",") if name.strip()) if detectors else None
    settings = ScanSettings(names, fpr, threshold, None, weights=weights, trust=trust)
    make_scanner(settings).close()  # what is wrong with the settings is said now, not by a worker
    stream = _open(output)
    watch = Watch(folder, settings, stream, move_to, settle, workers or 1, timeout)
    if not quiet:
        click.echo(f"mai: Watching {folder}. Ctrl-C ends it.", err=True)
    try:
        n = watch.run(existing, once)
    finally:
        if output is not None:
            stream.close()
    if not quiet:
        click.echo(f"mai: Stopped; {n} files were looked at.", err=True)
    sys.exit(0)


def _open(output: Path | None) -> TextIO:
    """Where rows go.

    Raises:
        MaiError: the file cannot be written.
    """
    from mai.errors import MaiError

    if output is None:
        return sys.stdout
    try:
        return output.open("a", encoding="utf-8")
    except OSError as error:
        raise MaiError(f"The rows cannot be written to {output}: {error.strerror}.") from error


def _is_within(inner: Path, outer: Path) -> bool:
    return inner.resolve().is_relative_to(outer.resolve())
