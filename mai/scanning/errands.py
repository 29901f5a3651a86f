"""What workers are handed, and the rows of files that their workers did not live to answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mai.images.find import Found
from mai.types import Record


@dataclass(slots=True, eq=False)
class Errand:
    """A few files and their rows as they come in.

    Attributes:
        founds: the files; with a `look` of its own, whatever that takes.
        records: rows of the first of them, or what `look` makes in their place.
        one_by_one: a worker died on it, so that its files are handed out singly until the guilty one is known.
        deaths: workers that the next file has killed.
        n_out: rows that have left already.
    """

    founds: list[Any]
    records: list[Any] = field(default_factory=list)
    one_by_one: bool = False
    deaths: int = 0
    n_out: int = 0

    @property
    def is_done(self) -> bool:
        """All rows are there."""
        return len(self.records) == len(self.founds)

    @property
    def rest(self) -> list[Any]:
        """What is handed out next."""
        n_done = len(self.records)
        return self.founds[n_done : n_done + 1] if self.one_by_one else self.founds[n_done:]

    def add(self, record: Any) -> None:
        """Take the next row."""
        self.records.append(record)
        self.deaths = 0


def died(found: Found) -> Record:
    """The row of a file that kills the process which looks at it."""
    return Record(
        found.path,
        "detector_failed",
        message="The process that looked at this file died twice: out of memory or a crash in a decoder. "
        "Try it alone with --workers 1, or lower --max-pixels.",
    )


def late(found: Found, timeout_s: float) -> Record:
    """The row of a file that took too long."""
    return Record(
        found.path,
        "timed_out",
        message=f"Looking at this file took longer than the {timeout_s:g} s that --timeout gives, and was stopped.",
    )
