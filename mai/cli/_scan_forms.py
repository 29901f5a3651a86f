"""What `mai scan` writes: the format that its options mean, and the writer of it."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

import click

if TYPE_CHECKING:
    from mai.cli._progress import Tally
    from mai.pipeline import Scanner
    from mai.types import Record

SUFFIXES = {
    **{".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"},
    **{".html": "html", ".htm": "html"},
    **{".parquet": "parquet", ".sqlite": "sqlite", ".db": "sqlite", ".duckdb": "duckdb", ".txt": "table"},
}
"""Format of --output by its ending, where none is asked for."""


class Writer(Protocol):
    """A format of mai/report/."""

    def write(self, record: Record) -> None: ...

    def finish(self) -> None: ...


def open_stream(stack: ExitStack, output: Path | None) -> TextIO:
    """The output file, which appears whole or not at all, or standard output."""
    from mai.report.destination import whole_file

    if output is not None and str(output) != "-":
        return stack.enter_context(whole_file(output))
    if hasattr(sys.stdout, "reconfigure"):  # names in other scripts must not stop a scan on a C locale
        sys.stdout.reconfigure(
            errors="backslashreplace", line_buffering=True
        )  # a pipe sees rows as they come
    return sys.stdout


def output_among(
    paths: tuple[str, ...], form: str | None, output: Path | None
) -> tuple[tuple[str, ...], Path | None]:
    """Sources and output: `mai scan X --html out.html` means the page out.html, which click takes for one more PATH.

    Only a file that is not there yet and ends as the format does is taken so; nothing is written over. Tables (CSV,
    Parquet) are sources too: a name of one that does not exist is a slip of the pen, and is told as such.
    """
    if form is None or form in ("csv", "parquet") or output is not None or len(paths) < 2:
        return paths, output
    last = Path(paths[-1])
    is_source = "://" in paths[-1] or bool(
        set(paths[-1]) & set("@*?[{")
    )  # an address, a list, a pattern, a range
    if SUFFIXES.get(last.suffix.lower()) != form or is_source:
        return paths, output
    if not last.exists():
        return paths[:-1], last
    if form == "html" and sys.stdout.isatty():
        raise click.UsageError(f"{last} is there already. To write the page over it: --output {last}")
    return paths, output


def choose_form(form: str | None, output: Path | None, explain: bool) -> str:
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
    if form in ("parquet", "sqlite", "duckdb") and (output is None or str(output) == "-"):
        raise click.UsageError(f"--{form} needs --output FILE.")
    if form == "parquet":
        from mai.errors import require

        require("pyarrow", "data", "Writing Parquet")
    if form == "duckdb":
        from mai.errors import require

        require("duckdb", "scale", "Writing DuckDB")
        require("pyarrow", "scale", "Writing DuckDB")
    if form == "html" and (output is None or str(output) == "-") and sys.stdout.isatty():
        raise click.UsageError("A page on a terminal helps nobody. Give --output FILE.")
    if explain and form == "table":
        return "text"
    if explain and form != "html":  # whose rows have it folded under them
        raise click.UsageError(
            f"--explain is text for people; the {form.upper()} rows hold the evidence anyway."
        )
    return form


def make_writer(form: str, stream: TextIO, scanner: Scanner, verbose: bool) -> Writer:
    """The writer of a text format."""
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


def counts(tally: Tally) -> str:
    """How many images there are, and how many of each label."""
    from mai.report.words import LABELS

    told = [f"{n:,} {LABELS[label]}" for label in LABELS if (n := tally.labels.get(label))]
    if tally.n_failed:
        told.append(f"{tally.n_failed:,} not judged")
    return f"{tally.n:,} {'image' if tally.n == 1 else 'images'}: {', '.join(told)}."


def say_summary(writer: Writer, scanner: Scanner, tally: Tally) -> None:
    """Counts, and, where anything was judged, the operating point in plain words."""
    from mai.report.layers import not_asked
    from mai.report.terminal import Table
    from mai.report.text import Explained
    from mai.report.words import operating_point

    if not isinstance(writer, Table | Explained):
        return
    if isinstance(writer, Explained):
        writer.list("Not checked:", not_asked(scanner.detectors))
    writer.say("")
    writer.say(counts(tally))
    if tally.n == tally.n_failed:
        return
    if scanner.thresholds and scanner.measured:
        writer.say(operating_point(scanner.thresholds, scanner.measured.table))
    writer.say("A verdict is a signal, not proof.")
