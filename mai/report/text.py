"""Each image's evidence, layer by layer, as text for a terminal: `mai scan --explain`, `mai explain`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from mai.report import layers, words
from mai.report.escape import visible
from mai.report.terminal import STYLES, WIDE
from mai.types import Evidence, Record

if TYPE_CHECKING:
    from rich.console import Console

MAX_LINE = 300
"""Most characters of one fact on a terminal; the page and the JSON hold more."""


class Explained:
    """A block of text an image, written as it comes.

    Args:
        stream: where it goes; colours only where it is a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console: Console | None = None

    def write(self, record: Record) -> None:
        """Write one image's block."""
        self._line(visible(record.path), "bold")
        score = "" if record.score is None else f", score {words.score_words(record.score)}"
        reason = words.reason_words(record)
        told = words.verdict_words(record) + score + (f": {reason}" if reason else "")
        self._line(f"  {told}", STYLES[record.label])
        self._line(f"  {visible(words.explanation(record))}")
        posterior = words.posterior_words(record)
        if posterior:
            self._line(f"  {posterior}")
        for evidence in record.evidence:
            self._layer(evidence)
        self._line("")

    def finish(self) -> None:
        """Hand on what is buffered."""
        self._stream.flush()

    def say(self, text: str) -> None:
        """A line of plain text."""
        self._line(visible(text), "dim")

    def list(self, heading: str, entries: Iterable[str]) -> None:
        """A heading with a line an entry."""
        self.say(heading)
        for entry in entries:
            self.say(f"  - {entry}")

    def _layer(self, evidence: Evidence) -> None:
        style = "" if layers.is_telling(evidence) else "dim"
        about = f" ({evidence.weights})" if evidence.weights else ""
        title = f"{layers.title(evidence.detector)}{about}: {layers.finding(evidence)}."
        self._line(f"  - {visible(title)} {visible(evidence.note)}".rstrip(), style)
        if evidence.status != "ok":
            return
        for name, value in layers.details(evidence):
            shown = visible(f"{name}: {value}")
            self._line(f"      {shown[:MAX_LINE]}{'...' if len(shown) > MAX_LINE else ''}", "dim")

    def _line(self, text: str, style: str = "") -> None:
        """One line, as wide as it is: only a terminal folds it."""
        from rich.console import Console
        from rich.text import Text

        if self._console is None:
            width = None if self._stream.isatty() else WIDE
            self._console = Console(
                file=self._stream, width=width, highlight=False, emoji=False, markup=False
            )
        self._console.print(Text(text, style=style), soft_wrap=True)
