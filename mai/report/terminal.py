"""The table that a person reads: file, verdict, score, reason; colours only where the stream is a terminal.

Rows come out in pages, so that a scan of a million files neither fills memory nor stays silent to its end.
"""

from __future__ import annotations

import time
from threading import RLock, Timer
from typing import TYPE_CHECKING, TextIO

from mai.report.escape import visible
from mai.report.words import reason_words, score_words, verdict_words, weighed_posterior
from mai.types import Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PAGE = 50
"""Most rows held back."""

PAGE_S = 1.0
"""Longest time that a row is held back, in seconds."""

STYLES = {"synthetic": "bold red", "authentic": "green", "inconclusive": "yellow", None: "magenta"}
"""Colour of a verdict by label; None: not judged."""

WIDE = 32_767
"""Columns of a stream that is no terminal: names are then never folded, and `grep` finds them."""


class Table:
    """Rows of a table on a stream, a page at a time."""

    def __init__(self, stream: TextIO, *, has_posterior: bool = False, is_verbose: bool = False) -> None:
        """Make an empty table.

        Args:
            stream: where it goes.
            has_posterior: a column for the probability at the given prior.
            is_verbose: each detector's note under a row.
        """
        self._stream = stream
        self._has_posterior = has_posterior
        self._is_verbose = is_verbose
        self._page: list[Record] = []
        self._is_first = True
        self._width = 40
        self._since = time.monotonic()
        self._console: Console | None = None
        self._lock = RLock()
        self._timer: Timer | None = None
        self._error: Exception | None = None

    def write(self, record: Record) -> None:
        """Take one row; it is shown with its page.

        Raises:
            OSError: rows that were shown late could not be written; BrokenPipeError where the reader went away.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            self._page.append(record)
            if self._is_verbose or len(self._page) >= PAGE or time.monotonic() - self._since > PAGE_S:
                self._show()
            elif self._timer is None:  # the next row may be long in coming
                self._timer = Timer(PAGE_S, self._show_late)
                self._timer.daemon = True
                self._timer.start()

    def finish(self) -> None:
        """Show what is held back."""
        with self._lock:
            if self._error is not None:
                raise self._error
            self._show()
            self._stream.flush()

    def _show_late(self) -> None:
        with self._lock:
            try:
                self._show()
                self._stream.flush()
            except (SystemExit, ValueError):  # rich ends the program where a pipe is broken
                self._error = BrokenPipeError()
            except OSError as error:  # a full disk, say, which is told at the next row
                self._error = error

    def say(self, text: str) -> None:
        """A line of plain text under the table."""
        from rich.text import Text

        self._on().print(Text(visible(text), style="dim"), soft_wrap=not self._stream.isatty())

    def _on(self) -> Console:
        from rich.console import Console

        if self._console is None:
            width = None if self._stream.isatty() else WIDE
            self._console = Console(
                file=self._stream, width=width, highlight=False, emoji=False, markup=False
            )
        return self._console

    def _show(self) -> None:
        self._since = time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._page:
            return
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        console = self._on()
        names = [visible(record.path) for record in self._page]
        fixed = 24 + 7 + 31 + (8 if self._has_posterior else 0)  # the other columns with their gaps
        room = max(console.width - fixed - 2, 12)
        self._width = min(max(self._width, *(Text(name).cell_len for name in names)), room)
        table = RichTable(box=box.SIMPLE_HEAD, show_header=self._is_first, show_edge=False, pad_edge=False)
        table.add_column("File", width=self._width, overflow="fold")
        table.add_column("Verdict", width=22, overflow="fold")
        table.add_column("Score", width=5, justify="right")
        if self._has_posterior:
            table.add_column("Prob.", width=6, justify="right")
        table.add_column("Reason", width=30, overflow="fold")
        for record, name in zip(self._page, names, strict=True):
            cells = [Text(name), Text(verdict_words(record), style=STYLES[record.label])]
            cells.append(Text(score_words(record.score)))
            if self._has_posterior:
                cells.append(Text(score_words(weighed_posterior(record))))
            cells.append(Text(reason_words(record)))
            table.add_row(*cells)
        console.print(table)
        if self._is_verbose:
            for text in (note for record in self._page for note in _notes(record)):
                console.print(text, soft_wrap=True)
        self._page.clear()
        self._is_first = False


def _notes(record: Record) -> list[Text]:
    """Each detector's evidence, for the rows under a verdict."""
    from rich.text import Text

    lines = []
    for evidence in record.evidence:
        took = record.seconds.get(evidence.detector)
        about = ", ".join(
            part
            for part in (
                evidence.weights,
                evidence.status if evidence.status != "ok" else None,
                f"score {evidence.score:.4f}" if evidence.score is not None else None,
                f"{took * 1000:.1f} ms" if took is not None else "from the cache",
            )
            if part
        )
        lines.append(Text(visible(f"  {evidence.detector} ({about}): {evidence.note}"), style="dim"))
    return lines
