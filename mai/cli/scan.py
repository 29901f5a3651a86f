"""mai scan: judge images, folders, globs and shards.

Exit codes: 0 all judged ('cannot tell' is judged), 1 some were not or there was nothing to judge, 2 wrong
use, 3 a label named by --fail-on was given (goes before 1), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, TextIO

import click

if TYPE_CHECKING:
    from mai.images.find import Found
    from mai.pipeline import Scanner
    from mai.types import Record

SUFFIXES = {
    **{".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"},
    **{".html": "html", ".htm": "html"},
    **{".parquet": "parquet", ".sqlite": "sqlite", ".db": "sqlite", ".txt": "table"},
}
"""Format of --output by its ending, where none is asked for."""


class Writer(Protocol):
    """A format of mai/report/."""

    def write(self, record: Record) -> None: ...  # noqa: D102

    def finish(self) -> None: ...  # noqa: D102


@dataclass
class Tally:
    """What the exit code and the last line are made of."""

    n: int = 0
    n_failed: int = 0
    labels: dict[str, int] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Count one row."""
        self.n += 1
        if record.label is None:
            self.n_failed += 1
        else:
            self.labels[record.label] = self.labels.get(record.label, 0) + 1

    def exit_code(self, fail_on: tuple[str, ...]) -> int:
        """See the head of the module."""
        if any(self.labels.get(label) for label in fail_on):
            return 3
        return 1 if self.n_failed or not self.n else 0


@click.command(short_help="Judge images, folders, globs and shards.")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=click.Path(path_type=str))
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
@click.option("--json", "form", flag_value="json", help="A JSON array.")
@click.option("--jsonl", "form", flag_value="jsonl", help="One JSON object a line.")
@click.option("--csv", "form", flag_value="csv", help="CSV with a header.")
@click.option("--html", "form", flag_value="html", help="A page with thumbnails, for people.")
@click.option("--parquet", "form", flag_value="parquet", help="A Parquet file; needs --output.")
@click.option(
    "--sqlite", "form", flag_value="sqlite", help="An SQLite file with the table `records`; needs --output."
)
@click.option("--explain", is_flag=True, help="Each layer's evidence in plain words, image by image.")
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Its ending sets the format.")
@click.option(
    "--workers", type=click.IntRange(1), metavar="N", help="Processes. Default: one a CPU for many files."
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
    explain: bool,
    output: Path | None,
    workers: int | None,
    timeout: float | None,
    fail_on: tuple[str, ...],
    weights: str | None,
    trust: Path | None,
    max_bytes: int | None,
    max_pixels: int | None,
    resume: bool,
    no_cache: bool,
    progress_form: str,
    quiet: bool,
    verbose: bool,
) -> None:
    """Say which images are likely AI-generated.

    PATH: an image, a folder, a glob, a tar or Parquet shard, @list.txt for a list in a file, - for a list on
    standard input.

    Exit codes: 0 all judged, 1 some were not, 2 wrong use, 3 a label of --fail-on was given.
    """
    from mai.cache import default_file
    from mai.images.decode import Limits
    from mai.images.find import find
    from mai.pipeline import Scanner
    from mai.scanning.local import scan_local

    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    form = _form(form, output, explain)
    journal_kind = output is not None and str(output) != "-" and form in KEPT and _may_be_replaced(output)
    if resume and not journal_kind:
        raise click.UsageError(f"--resume needs --output FILE as one of {', '.join(KEPT)}.")
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
        thumbnails=form == "html",
        cache=None if no_cache else default_file(),
    )
    _refuse_to_overwrite(output, paths)
    tally = Tally()
    progress = _Progress(is_shown=not quiet, is_json=progress_form == "json")

    def rows(founds: Iterable[Found]) -> Iterator[Record]:
        """Judge, count and tell; a stop ends the rows, and what was made stays."""
        for record in scan_local(founds, scanner.settings, workers, scanner, timeout):
            tally.add(record)
            yield record
            progress.step(tally)
            if record.label is None and not quiet:
                progress.tell(record)

    founds = find(paths, max_bytes=limits.max_bytes)
    with _told_where(output), _stoppable():
        if journal_kind:
            assert output is not None  # journal_kind says so
            told: dict[str, object] = {"paths": paths, "settings": _for_resuming(scanner)}
            _scan_into_file(output, form, told, resume, founds, rows, scanner, tally, progress)
        else:
            with ExitStack() as stack:
                stream = _open(stack, output)
                writer = _writer(form, stream, scanner, verbose)
                # Rows that appear on the terminal are progress enough, and the two would write over each other.
                progress.hide_line(stream.isatty())
                try:
                    for record in rows(founds):
                        writer.write(record)
                except KeyboardInterrupt:
                    _say_stopped(progress, tally, "")
                writer.finish()
                progress.clear()
                if not quiet and tally.n:
                    _summary(writer, scanner, tally)
    progress.end(tally)
    if not tally.n and not quiet:
        click.echo(
            "mai: Nothing to judge: no file there is an image by its name or its first bytes.", err=True
        )
    sys.exit(tally.exit_code(fail_on))


KEPT = ("jsonl", "json", "csv", "parquet", "sqlite")
"""Formats of --output whose rows are kept as they come, so that a scan that was stopped can go on."""


def _may_be_replaced(output: Path) -> bool:
    """A device or a named pipe is written to as it goes; nothing is kept beside it."""
    return not output.exists() or output.is_file() or output.is_dir()


def _for_resuming(scanner: Scanner) -> dict[str, object]:
    """What two parts of one scan must share."""
    kept = {
        name: getattr(scanner.settings, name) for name in ("detectors", "fpr", "threshold", "prior", "limits")
    }
    weights = {name: own.config_digest for name, own in scanner.weights.items()}
    return {**{name: repr(value) for name, value in kept.items()}, "weights": weights}


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


def _say_stopped(progress: _Progress, tally: Tally, kept: str) -> NoReturn:
    progress.clear()
    click.echo(f"mai: Stopped after {tally.n} files.{kept}", err=True)
    raise SystemExit(130) from None


def _scan_into_file(
    output: Path,
    form: str,
    told: dict[str, object],
    resume: bool,
    founds: Iterable[Found],
    rows: Callable[[Iterable[Found]], Iterator[Record]],
    scanner: Scanner,
    tally: Tally,
    progress: _Progress,
) -> None:
    """Rows go to a journal beside the output and become the output when all are there."""
    from mai.scanning.journal import Journal

    if resume and output.exists() and not output.with_name(output.name + ".partial").exists():
        click.echo(f"mai: {output} is finished; nothing is left to do.", err=True)
        raise SystemExit(0)
    journal = Journal(output, told, resume)
    try:
        for record in journal.records() if journal.n_before else ():
            tally.add(record)
        try:
            for record in rows(journal.left(founds)):
                journal.write(record)
        except KeyboardInterrupt:
            kept = f" {journal.n} rows are kept; --resume goes on." if journal.n else ""
            _say_stopped(progress, tally, kept)
        if form != "jsonl":
            _convert(journal.records(), form, output, scanner)
        journal.finish(is_the_output=form == "jsonl")
    finally:
        if journal.folder.exists():
            journal.close()
        progress.clear()


def _convert(records: Iterable[Record], form: str, output: Path, scanner: Scanner) -> None:
    """All rows of a scan in another format."""
    with ExitStack() as stack:
        writer: Writer
        if form == "parquet":
            from mai.report.parquet import Parquet

            writer = Parquet(output)
        elif form == "sqlite":
            from mai.report.sqlite import Sqlite

            writer = Sqlite(output)
        else:
            writer = _writer(form, _open(stack, output), scanner, False)
        for record in records:
            writer.write(record)
        writer.finish()


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


def _open(stack: ExitStack, output: Path | None) -> TextIO:
    from mai.report.destination import whole_file

    if output is not None and str(output) != "-":
        return stack.enter_context(whole_file(output))
    if hasattr(sys.stdout, "reconfigure"):  # names in other scripts must not stop a scan on a C locale
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout


def _form(form: str | None, output: Path | None, explain: bool) -> str:
    """The format that the options mean."""
    ending = output.suffix.lower() if output is not None and str(output) != "-" else ""
    if (
        form is None
        and output is not None
        and str(output) != "-"
        and ending not in SUFFIXES
        and not output.exists()
    ):
        known = ", ".join(sorted(SUFFIXES))
        raise click.UsageError(
            f"--output {output}: no format is known for the ending '{ending}'. Known: {known}; or name one: --jsonl."
        )
    if form is None:
        form = SUFFIXES.get(ending, "table")
    elif ending in SUFFIXES and SUFFIXES[ending] not in (form, "table"):
        raise click.UsageError(f"--{form} and --output {output} ask for two formats.")
    if form in ("parquet", "sqlite") and (output is None or str(output) == "-"):
        raise click.UsageError(f"--{form} needs --output FILE.")
    if form == "parquet":
        from mai.errors import require

        require("pyarrow", "data", "Writing Parquet")
    if form == "html" and (output is None or str(output) == "-") and sys.stdout.isatty():
        raise click.UsageError("A page on a terminal helps nobody. Give --output FILE.")
    if explain and form == "table":
        return "text"
    if explain and form != "html":  # whose rows have it folded under them
        raise click.UsageError(
            f"--explain is text for people; the {form.upper()} rows hold the evidence anyway."
        )
    return form


def _writer(form: str, stream: TextIO, scanner: Scanner, verbose: bool) -> Writer:
    has_posterior = scanner.settings.prior is not None
    if form == "html":
        return _page(stream, scanner, has_posterior)
    if form == "text":
        from mai.report.text import Explained

        return Explained(stream)
    if form == "csv":
        from mai.report.table_csv import Csv

        return Csv(stream)
    if form == "table":
        from mai.report.terminal import Table

        return Table(stream, has_posterior=has_posterior, is_verbose=verbose)
    from mai.report.jsonlines import JsonArray, JsonLines

    return JsonLines(stream) if form == "jsonl" else JsonArray(stream)


def _page(stream: TextIO, scanner: Scanner, has_posterior: bool) -> Writer:
    from datetime import UTC, datetime

    from mai.report.html import Html
    from mai.report.layers import not_asked
    from mai.report.words import operating_point
    from mai.scanning.explain import settings_for_people

    point = (
        operating_point(scanner.thresholds, scanner.measured.table)
        if scanner.thresholds and scanner.measured
        else None
    )
    return Html(
        stream,
        date=datetime.now(UTC),
        settings=settings_for_people(scanner),
        weights={
            name: f"{own.name}, SHA-256 {own.config['sha256']}" for name, own in scanner.weights.items()
        },
        not_checked=not_asked(scanner.detectors),
        operating_point=point,
        has_posterior=has_posterior,
    )


def _summary(writer: Writer, scanner: Scanner, tally: Tally) -> None:
    """Counts, and the operating point in plain words."""
    from mai.report.layers import not_asked
    from mai.report.terminal import Table
    from mai.report.text import Explained
    from mai.report.words import LABELS, operating_point

    if not isinstance(writer, Table | Explained):
        return
    if isinstance(writer, Explained):
        writer.list("Not checked:", not_asked(scanner.detectors))
    counts = [f"{n} {LABELS[label]}" for label in LABELS if (n := tally.labels.get(label))]
    if tally.n_failed:
        counts.append(f"{tally.n_failed} not judged")
    writer.say("")
    writer.say(f"{tally.n} {'image' if tally.n == 1 else 'images'}: {', '.join(counts)}.")
    if scanner.thresholds and scanner.measured:
        writer.say(operating_point(scanner.thresholds, scanner.measured.table))
    writer.say("A verdict is a signal, not proof.")


class _Progress:
    """How far it is, on stderr: a line on a terminal, or JSON for programs; messages about images go the same way."""

    def __init__(self, is_shown: bool, is_json: bool) -> None:
        self._is_json = is_shown and is_json
        self._is_shown = is_shown and not is_json and sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    def hide_line(self, is_hidden: bool) -> None:
        """No line where rows appear on the same terminal."""
        self._is_shown = self._is_shown and not is_hidden

    def step(self, tally: Tally) -> None:
        """Show how far it is, ten times a second at most. There is no total: folders are read as it goes."""
        now = time.monotonic()
        if self._is_shown and now - self._last > 0.1:
            self._last = now
            sys.stderr.write(f"\r\x1b[2K{tally.n:,} images, {tally.n / (now - self._start):.1f}/s")
            sys.stderr.flush()
        elif self._is_json and now - self._last > 1:
            self._last = now
            self._write_json(tally, is_done=False)

    def end(self, tally: Tally) -> None:
        """The last word, for programs."""
        if self._is_json:
            self._write_json(tally, is_done=True)

    def _write_json(self, tally: Tally, is_done: bool) -> None:
        import json

        seconds = time.monotonic() - self._start
        values = {"files": tally.n, "failed": tally.n_failed, "labels": tally.labels, "seconds": round(seconds, 2),
                  "files_per_second": round(tally.n / max(seconds, 1e-9), 2), "done": is_done}  # fmt: skip
        click.echo(json.dumps(values), err=True)

    def tell(self, record: Record) -> None:
        """One line about an image that could not be judged."""
        from mai.report.escape import visible

        self.clear()
        if not self._is_json:
            click.echo(f"mai: {visible(record.path)}: {visible(record.message or record.status)}", err=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
