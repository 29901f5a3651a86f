"""mai scan: judge images, folders, globs and shards.

Exit codes: 0 all judged ('cannot tell' is judged), 1 some were not or there was nothing to judge, 2 wrong
use, 3 a label named by --fail-on was given (goes before 1), 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import click

if TYPE_CHECKING:
    from mai.pipeline import Scanner
    from mai.types import Record

SUFFIXES = {
    **{".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"},
    **{".html": "html", ".htm": "html"},
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
    quiet: bool,
    verbose: bool,
) -> None:
    """Say which images are likely AI-generated.

    PATH: an image, a folder, a glob, a tar or Parquet shard, @list.txt for a list in a file, - for a list on
    standard input.

    Exit codes: 0 all judged, 1 some were not, 2 wrong use, 3 a label of --fail-on was given.
    """
    from mai.images.decode import Limits
    from mai.images.find import find
    from mai.pipeline import Scanner
    from mai.scanning.local import scan_local

    if quiet and verbose:
        raise click.UsageError("--quiet and --verbose exclude each other.")
    form = _form(form, output, explain)
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
    )
    _refuse_to_overwrite(output, paths)
    tally = Tally()
    with _told_where(output), ExitStack() as stack:
        stream = _open(stack, output)
        writer = _writer(form, stream, scanner, verbose)
        # Rows that appear on the terminal are progress enough, and the two would write over each other.
        progress = _Progress(is_shown=not quiet and not stream.isatty())
        try:
            for record in scan_local(
                find(paths, max_bytes=limits.max_bytes), scanner.settings, workers, scanner, timeout
            ):
                tally.add(record)
                writer.write(record)
                progress.step(tally.n)
                if record.label is None and not quiet:
                    progress.tell(record)
        except KeyboardInterrupt:
            progress.clear()
            click.echo(f"mai: Stopped after {tally.n} files.", err=True)
            raise SystemExit(130) from None
        writer.finish()
        progress.clear()
        if not quiet and tally.n:
            _summary(writer, scanner, tally)
    if not tally.n and not quiet:
        click.echo(
            "mai: Nothing to judge: no file there is an image by its name or its first bytes.", err=True
        )
    sys.exit(tally.exit_code(fail_on))


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
    if form is None:
        form = SUFFIXES.get(output.suffix.lower(), "table") if output else "table"
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
    """A line on stderr that counts, where stderr is a terminal; messages about images go the same way."""

    def __init__(self, is_shown: bool) -> None:
        self._is_shown = is_shown and sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    def step(self, n: int) -> None:
        """Show how far it is, ten times a second at most. There is no total: folders are read as it goes."""
        now = time.monotonic()
        if self._is_shown and now - self._last > 0.1:
            self._last = now
            sys.stderr.write(f"\r\x1b[2K{n:,} images, {n / (now - self._start):.1f}/s")
            sys.stderr.flush()

    def tell(self, record: Record) -> None:
        """One line about an image that could not be judged."""
        from mai.report.escape import visible

        self.clear()
        click.echo(f"mai: {visible(record.path)}: {visible(record.message or record.status)}", err=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
