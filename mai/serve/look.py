"""What a worker does with one picture: a row, a case file or a report, as text that is sent as it stands."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mai.images.find import Found
from mai.pipeline import Scanner
from mai.report.case import case_json
from mai.report.explanation import explanation_page
from mai.report.jsonlines import line
from mai.scanning.explain import explain
from mai.types import Label, Record, Status

Want = Literal["record", "case", "report"]


@dataclass(frozen=True, slots=True)
class Ask:
    """One picture to look at.

    Attributes:
        path: what the client calls it; only shown.
        file: where its bytes lie, under a name of ours.
        want: `record`: a row; `case`: mai.case/1; `report`: the page of `mai explain`.
    """

    path: str
    file: Path
    want: Want = "record"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it.

    Attributes:
        status: of the record.
        label: of the record.
        text: UTF-8, what was wanted; the row if the picture was not judged and no report can be made.
        kind: what text is.
        message: of the record.
        seconds: of work.
        has_died: the worker died on it.
    """

    status: Status
    label: Label | None
    text: bytes
    kind: Want
    message: str | None = None
    seconds: float = 0.0
    has_died: bool = False


def answer(record: Record, kind: Want = "record", text: str | None = None, has_died: bool = False) -> Answer:
    """A record as an answer."""
    return Answer(
        record.status,
        record.label,
        (line(record) if text is None else text).encode(),
        kind,
        record.message,
        sum(record.seconds.values()),
        has_died,
    )


class Look:
    """The work itself; travels to each worker.

    Args:
        memory_mb: data memory of the process (Linux); None: no limit.
    """

    def __init__(self, memory_mb: int | None = None) -> None:
        self._memory_mb = memory_mb
        self._is_limited = False

    def __call__(self, scanner: Scanner, ask: Ask) -> Answer:
        """Look at one picture; never raises, whatever the picture does."""
        if not self._is_limited:
            self._is_limited = True
            limit(self._memory_mb)
        found = Found(ask.path, ask.file, named=True)
        try:
            if ask.want == "record":
                return answer(scanner.scan(found))
            case = explain(scanner, found)
            told = case_json(case) if ask.want == "case" else explanation_page(case)
            return answer(case.record, ask.want, told)
        except MemoryError:
            return answer(
                Record(ask.path, "too_large", message="There was not enough memory to look at the image.")
            )
        except Exception as error:
            told = f"Looking at the image failed unexpectedly: {type(error).__name__}."
            print(f"mai serve: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            return answer(Record(ask.path, "detector_failed", message=told))


def limit(memory_mb: int | None) -> None:
    """Let this process end before others where memory ends."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")
    if memory_mb is None or sys.platform != "linux":
        return
    import resource

    bound(resource.RLIMIT_DATA, memory_mb * 2**20)


def bound(kind: int, most: int) -> None:
    """Bound this process in one of `resource`'s ways, for good; a tighter bound that it came with stays."""
    import resource

    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(kind, (most, most))
