"""How far a scan is, on stderr: a line on a terminal, or JSON for programs; messages about images go the same way."""

from __future__ import annotations

import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mai.scanning.count import Count
    from mai.types import Record

_RECENT_S = 30.0
"""Seconds that the speed, and so the time left, is taken over, at most: early on it is the later half of what was
seen, so that the start of processes is soon forgotten."""

_LEAST_S = 1.0
"""Seconds after the first row before a speed is told: what came before says nothing about the rest."""


@dataclass
class Tally:
    """What the exit code and the last line are made of.

    Attributes:
        n: rows, those of earlier runs too.
        n_failed: rows without a label.
        labels: label -> rows.
        statuses: status -> rows of this run that are not `ok`.
        n_before: rows that earlier runs made.
    """

    n: int = 0
    n_failed: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    n_before: int = 0

    def add(self, record: Record) -> None:
        """Count one row."""
        self.count(record.label or "none", 1)
        if record.status != "ok":
            self.statuses[record.status] = self.statuses.get(record.status, 0) + 1

    def count(self, label: str, n: int) -> None:
        """Count rows by their label; `none`: not judged."""
        self.n += n
        if label == "none":
            self.n_failed += n
        else:
            self.labels[label] = self.labels.get(label, 0) + n

    def exit_code(self, fail_on: tuple[str, ...]) -> int:
        """0 all judged, 1 some were not, 3 a label of `fail_on` was given."""
        if any(self.labels.get(label) for label in fail_on):
            return 3
        return 1 if self.n_failed or not self.n else 0


class Progress:
    """Shows how far it is.

    Args:
        is_shown: something is told at all.
        is_json: JSON for programs in place of a line.
        sources: what is scanned; its files are counted in a thread, where the time left is shown.
    """

    def __init__(self, is_shown: bool, is_json: bool, sources: Iterable[str]) -> None:
        self._is_quiet = not is_shown
        self._is_json = is_shown and is_json
        self._is_shown = is_shown and not is_json and sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._count: Count | None = None
        if self._is_json or self._is_shown:
            from mai.scanning.count import Count

            self._count = Count(sources)
        self._marks: deque[tuple[float, int]] = deque()
        self._first = self._start

    @property
    def total(self) -> int | None:
        """Files in all, None where that is not known (yet)."""
        return self._count.total if self._count else None

    def hide_line(self, is_hidden: bool) -> None:
        """No line where rows appear on the same terminal."""
        self._is_shown = self._is_shown and not is_hidden

    def step(self, tally: Tally) -> None:
        """Show how far it is: ten times a second for people, once a second for programs, at most."""
        now = time.monotonic()
        if not self._marks:
            self._first = now
            self._marks.append((now, tally.n - tally.n_before))
        if now - self._last <= (0.1 if self._is_shown else 1.0) or not (self._is_shown or self._is_json):
            return
        self._last = now
        if self._is_json:
            self._write_json(tally, is_done=False)
        else:
            self._write_line(tally)

    def _speed(self, tally: Tally) -> float | None:
        """Files a second of late; None while too little was seen."""
        now, n = time.monotonic(), tally.n - tally.n_before
        if not self._marks or now - self._first < _LEAST_S:
            return None
        if now - self._marks[-1][0] >= _LEAST_S:
            self._marks.append((now, n))
        since = now - min(_RECENT_S, max(_LEAST_S, (now - self._first) / 2))
        while len(self._marks) > 1 and self._marks[1][0] <= since:
            self._marks.popleft()
        then, n_then = self._marks[0]
        return (n - n_then) / (now - then) if now > then else None

    def _left(self, tally: Tally, speed: float | None) -> tuple[int | None, float | None]:
        """Files in all and seconds left, as far as they are known."""
        total = self.total
        if total is None or total < tally.n:
            return None, None
        return total, (total - tally.n) / speed if speed else None

    def _write_line(self, tally: Tally) -> None:
        speed = self._speed(tally)
        total, left_s = self._left(tally, speed)
        told = f"{tally.n:,} images" if total is None else f"{tally.n:,} of {total:,} images"
        if speed is not None:
            told += f", {speed:.1f}/s"
        if left_s is not None:
            told += f", {_duration(left_s)} left"
        if tally.n_failed:
            told += f", {tally.n_failed:,} not judged"
        sys.stderr.write(f"\r\x1b[2K{told}")
        sys.stderr.flush()

    def end(self, tally: Tally) -> None:
        """The last word, for programs."""
        if self._count:
            self._count.close()
        if self._is_json:
            self._write_json(tally, is_done=True)

    def _write_json(self, tally: Tally, is_done: bool) -> None:
        import json

        seconds = time.monotonic() - self._start
        speed = self._speed(tally)
        total, left_s = self._left(tally, speed)
        values = {
            "files": tally.n, "total": total, "failed": tally.n_failed, "labels": tally.labels,
            "statuses": tally.statuses, "seconds": round(seconds, 2),
            "files_per_second": round((tally.n - tally.n_before) / max(seconds, 1e-9), 2),
            "files_per_second_lately": None if speed is None else round(speed, 2),
            "seconds_left": None if left_s is None or is_done else round(left_s, 1), "done": is_done,
        }  # fmt: skip
        click.echo(json.dumps(values), err=True)

    def tell(self, record: Record) -> None:
        """One line about an image that could not be judged."""
        from mai.report.escape import visible

        self.say(f"{visible(record.path)}: {visible(record.message or record.status)}")

    def say(self, sentence: str) -> None:
        """One line for people."""
        self.clear()
        if not (self._is_json or self._is_quiet):
            click.echo(f"mai: {sentence}", err=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._is_shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
