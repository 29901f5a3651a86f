"""mai scan: judge images, folders, globs and shards.

Exit codes: 0 all judged ('cannot tell' is judged), 1 some were not or there was nothing to judge, 2 wrong
use, 3 a label named by --fail-on was given (goes before 1), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

import click

from mai.cli._format_flags import format_flag
from mai.cli._progress import Progress, Tally

if TYPE_CHECKING:
    from mai.images.find import Found
    from mai.pipeline import Scanner
    from mai.scanning.engine import Engine
    from mai.types import Record
    from mai.weights.session import Device


@click.command(short_help="Judge images, folders, globs and shards.")
@click.argument(
    "paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=str, readable=False)
)
@click.option(
    "--detectors",
    metavar="A,B",
    help="Detectors to ask, in this order. Default: c2pa, metadata, watermark, pixel.",
)
@click.option(
    "--fpr", type=float, metavar="RATE", help="Share of authentic images that may be flagged, e.g. 0.01."
)
@click.option(
    "--threshold", type=float, metavar="T", help="Score from which an image counts as AI-generated."
)
@click.option(
    "--prior", type=float, metavar="P", help="Share of AI-generated images at the source; adds a column."
)
@format_flag("json", "A JSON array.")
@format_flag("jsonl", "One JSON object a line.")
@format_flag("csv", "CSV with a header.")
@format_flag("html", "A page with thumbnails, for people; FILE.html as the last PATH says where.")
@format_flag("parquet", "A Parquet file; needs --output.")
@format_flag("sqlite", "An SQLite file with the table `records`; needs --output.")
@format_flag("duckdb", "A DuckDB file with the table `records`; needs --output.")
@click.option(
    "--partition-by",
    type=click.Choice(["label", "status", "rows"]),
    help="With Parquet: a folder of files by that column, or of a million rows each.",
)
@click.option("--explain", is_flag=True, help="Each layer's evidence in plain words, image by image.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Its ending sets the format."
)
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Processes. Default: one a CPU for many files."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Processes of this machine, or actors of a Ray cluster (RAY_ADDRESS, else Ray on this machine).",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="Where networks run; the CPU, with a sentence, if that cannot be had.",
)
@click.option(
    "--gpus-per-worker",
    type=click.FloatRange(0, min_open=True),
    metavar="F",
    help="With --engine ray: GPUs of each actor; 0.25 lets four share one.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    metavar="N",
    help="Pictures that a network sees at once. Default: 1, on a GPU 16.",
)
@click.option(
    "--group-duplicates",
    is_flag=True,
    help="Judge pictures that look the same once: copies take what was found in the first's pixels.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="S",
    help="Seconds that one file may take; a file that takes longer gets a row and the scan goes on.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["synthetic", "inconclusive"]),
    multiple=True,
    help="Exit with code 3 if an image gets this label.",
)
@click.option("--weights", metavar="DIR", help="Weights in place of the shipped ones: a folder or a name.")
@click.option(
    "--trust", type=click.Path(path_type=Path), metavar="FILE", help="PEM file of C2PA trust anchors."
)
@click.option(
    "--synthetic-label",
    "synthetic_labels",
    multiple=True,
    metavar="LABEL",
    help="A label of hub:ORG/NAME that means synthetic, where its words do not say it (may be given again).",
)
@click.option(
    "--max-bytes", type=click.IntRange(1), metavar="N", help="Largest file, in bytes. Default: 64 MiB."
)
@click.option(
    "--max-pixels", type=click.IntRange(1), metavar="N", help="Largest picture. Default: 120 million."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a scan of the same --output that was stopped; start if there is none.",
)
@click.option("--no-cache", is_flag=True, help="Look at every file anew, and keep nothing of what was found.")
@click.option(
    "--progress",
    "progress_form",
    type=click.Choice(["line", "json"]),
    default="line",
    show_default=True,
    help="On stderr: a line for people, or a JSON object a second for programs.",
)
@click.option("--quiet", is_flag=True, help="Only the results: no progress, no messages.")
@click.option("--verbose", is_flag=True, help="Each detector's evidence and time.")
def command(
    *,
    paths: tuple[str, ...],
    detectors: str | None,
    fpr: float | None,
    threshold: float | None,
    prior: float | None,
    form: str | None,
    partition_by: str | None,
    explain: bool,
    output: Path | None,
    workers: int | None,
    engine: str,
    device: str,
    gpus_per_worker: float | None,
    batch: int | None,
    group_duplicates: bool,
    timeout: float | None,
    fail_on: tuple[str, ...],
    weights: str | None,
    trust: Path | None,
    synthetic_labels: tuple[str, ...],
    max_bytes: int | None,
    max_pixels: int | None,
    resume: bool,
    no_cache: bool,
    progress_form: str,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say which images are likely AI-generated.

    PATH: an image, a folder, a glob, a tar, zip or Parquet shard, a CSV with a column of paths, an address
    (s3://bucket/folder/), @list.txt for a list in a file, - for a list on standard input.

    Exit codes: 0 all judged, 1 some were not, 2 wrong use, 3 a label of --fail-on was given.
    """
    from mai.cache import default_file
    from mai.cli._scan_forms import choose_form, counts, make_writer, open_stream, output_among, say_summary
    from mai.images.decode import Limits
    from mai.images.find import find
    from mai.pipeline import Scanner
    from mai.report.html import Html
    from mai.scanning.engine import Engine, how
    from mai.scanning.sinks import KEPT

    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    paths, output = output_among(paths, form, output)
    form = choose_form(form, output, explain)
    journal_kind = output is not None and str(output) != "-" and form in KEPT and _may_be_replaced(output)
    if resume and not journal_kind:
        raise click.UsageError(f"--resume needs --output FILE as one of {', '.join(KEPT)}.")
    if partition_by and form != "parquet":
        raise click.UsageError("--partition-by divides Parquet: give --output FOLDER.parquet or --parquet.")
    how(engine, group_duplicates, gpus_per_worker)
    usual = Limits()
    limits = Limits(max_bytes or usual.max_bytes, max_pixels or usual.max_pixels)
    scanner = Scanner(
        detectors,
        fpr=fpr,
        threshold=threshold,
        prior=prior,
        limits=limits,
        weights=weights,
        trust=trust,
        synthetic_labels=synthetic_labels,
        thumbnails=form == "html",
        cache=None if no_cache else default_file(),
        device=cast("Device", device if engine == "local" else "cpu"),
        batch=batch or (1 if device == "cpu" else 16),
    )
    _refuse_to_overwrite(output, paths)
    tally = Tally()
    progress = Progress(is_shown=not quiet, is_json=progress_form == "json", sources=paths)
    for sentence in scanner.notes:
        progress.say(sentence)
    judge = Engine(
        scanner, engine, workers, timeout, group_duplicates, cast("Device", device), gpus_per_worker or 0.0,
        total=lambda: progress.total, say=progress.say if verbose else None,
    )  # fmt: skip

    def rows(founds: Iterable[Found]) -> Iterator[Record]:
        """Judge, count and tell; a stop ends the rows, and what was made stays."""
        for record in judge.run(founds):
            tally.add(record)
            yield record
            progress.step(tally)
            if record.label is None and not quiet:
                progress.tell(record)

    founds = find(paths, max_bytes=limits.max_bytes)
    with _told_where(output), _stoppable():
        if journal_kind:
            assert output is not None  # journal_kind says so
            told: dict[str, object] = {"paths": paths, "settings": _for_resuming(scanner, paths)}
            told["group_duplicates"] = group_duplicates
            _scan_into_file(output, form, partition_by, told, resume, founds, judge, rows, tally, progress)
        else:
            is_stopped = False
            with ExitStack() as stack:
                stream = open_stream(stack, output)
                writer = make_writer(form, stream, scanner, verbose)
                # Rows that appear on the terminal are progress enough, and the two would write over each other.
                progress.hide_line(stream.isatty())
                try:
                    for record in rows(founds):
                        writer.write(record)
                except KeyboardInterrupt:
                    is_stopped = True
                    if isinstance(writer, Html):
                        writer.is_stopped = True
                writer.finish()
                progress.clear()
                if not quiet and tally.n and not is_stopped:
                    say_summary(writer, scanner, tally)
            if is_stopped:
                _say_stopped(progress, tally, f" {output} holds their rows." if output and tally.n else "")
    progress.end(tally)
    if tally.n > tally.n_before and output is not None and str(output) != "-":
        progress.say(f"{output}: {counts(tally)}")
    if not tally.n and not quiet:
        click.echo(
            "mai: Nothing to judge: no file there is an image by its name or its first bytes.", err=True
        )
    sys.exit(tally.exit_code(fail_on))


def _may_be_replaced(output: Path) -> bool:
    """A device or a named pipe is written to as it goes; nothing is kept beside it."""
    return not output.exists() or output.is_file() or output.is_dir()


def _for_resuming(scanner: Scanner, paths: tuple[str, ...]) -> dict[str, object]:
    """What two parts of one scan must share."""
    kept = {
        name: getattr(scanner.settings, name)
        for name in ("detectors", "fpr", "threshold", "prior", "limits", "synthetic_labels")
    }
    weights = {name: own.config_digest for name, own in scanner.weights.items()}
    trust = scanner.settings.trust
    return {
        **{name: repr(value) for name, value in kept.items()},
        "weights": weights,
        "trust": trust and str(trust.resolve()),
        # What relative paths are relative to.
        "folder": "" if all(Path(path).is_absolute() for path in paths) else str(Path.cwd()),
    }


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM ends a scan as Ctrl-C does: rows are kept."""
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_stopped(progress: Progress, tally: Tally, kept: str) -> NoReturn:
    progress.clear()
    click.echo(f"mai: Stopped after {tally.n} files.{kept}", err=True)
    raise SystemExit(130) from None


def _scan_into_file(
    output: Path,
    form: str,
    partition_by: str | None,
    told: dict[str, object],
    resume: bool,
    founds: Iterable[Found],
    judge: Engine,
    rows: Callable[[Iterable[Found]], Iterator[Record]],
    tally: Tally,
    progress: Progress,
) -> None:
    """Rows go to a journal beside the output and become the output when all are there."""
    from mai.scanning.journal import Journal
    from mai.scanning.sinks import convert

    if resume and output.exists() and not output.with_name(output.name + ".partial").exists():
        _say_finished(output, tally, progress)
        return
    journal = Journal(output, told, resume, is_folder=partition_by is not None)
    if journal.is_finished:
        journal.tidy()
        _say_finished(output, tally, progress)
        return
    try:
        for label, n in journal.before.items():
            tally.count(label, n)
        tally.n_before = tally.n
        judge.kept = journal.firsts
        try:
            for record in rows(journal.left(founds)):
                journal.write(record)
            if form != "jsonl":
                convert(journal.records(), form, output, partition_by)
        except KeyboardInterrupt:
            kept = f" {journal.n} rows are kept; --resume goes on." if journal.n else ""
            _say_stopped(progress, tally, kept)
        journal.finish(is_the_output=form == "jsonl")
    finally:
        journal.close()
        progress.clear()


def _say_finished(output: Path, tally: Tally, progress: Progress) -> None:
    """Nothing is left to do; the exit code is that of the rows that are there."""
    from mai.report.summary import rows_of

    for row in rows_of(output):
        tally.count(row["label"] or "none", 1)
    tally.n_before = tally.n
    progress.say(
        f"{output} is finished; nothing is left to do. For files that came since, or other options, leave out "
        "--resume: what was seen before comes from the cache."
    )


def _refuse_to_overwrite(output: Path | None, paths: tuple[str, ...]) -> None:
    """Results never take the place of a picture: `--output *.jpg` is a slip that would cost one."""
    from mai.images import kinds

    if output is None or not output.is_file():
        return
    with output.open("rb") as file:
        head = file.read(kinds.HEAD_BYTES)
    if str(output) in paths or kinds.is_picture("", head):
        raise click.UsageError(f"--output {output} is one of the inputs or a picture; choose another file.")


@contextmanager
def _told_where(output: Path | None) -> Iterator[None]:
    """A disk that is full, or the like, as a sentence; a reader that goes away stays BrokenPipeError."""
    from mai.errors import MaiError

    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if output is None:  # what is still buffered would fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = output or "standard output"
        raise MaiError(f"The results cannot be written to {where}: {error.strerror or error}.") from error
