"""How long a scan still takes, told soon and not far off."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from mai.cli import _progress
from mai.cli._progress import Progress, Tally

N = 2000


class Clock:
    """Stands where the module asks for the time."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(_progress, "time", made)
    return made


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counted")
    for number in range(N):
        (folder / f"{number}.jpg").touch()
    return folder


def told(
    progress: Progress, clock: Clock, gaps: list[float], capsys: pytest.CaptureFixture[str], n_before: int = 0
) -> list[tuple[float, dict[str, float]]]:
    """When what was told, for rows after such pauses."""
    while progress.total is None:
        time.sleep(0.01)
    tally, lines = Tally(n=n_before, n_before=n_before), []
    for gap in gaps:
        clock.now += gap
        tally.count("authentic", 1)
        progress.step(tally)
        lines += [(clock.now, json.loads(line)) for line in capsys.readouterr().err.splitlines()]
    return lines


@pytest.mark.parametrize("n_before", [0, 700])
def test_loading_is_not_counted_into_the_time_left(
    files: Path, clock: Clock, capsys: pytest.CaptureFixture[str], n_before: int
) -> None:
    """Twenty seconds until the first row, then twenty rows a second: the first figure is right already."""
    gaps = [20.0] + [0.05] * (N - n_before - 1)
    lines = told(Progress(True, True, [str(files)]), clock, gaps, capsys, n_before)
    end = clock.now
    figures = [(at, line["seconds_left"]) for at, line in lines if line["seconds_left"] is not None]
    assert lines[0][1]["seconds_left"] is None, "one row says nothing"
    assert figures[0][0] <= 122.2, "a second after the first row there is a figure"
    for at, left in figures:
        assert left == pytest.approx(end - at, rel=0.1, abs=0.5)


def test_a_pause_for_the_start_of_processes_is_soon_forgotten(
    files: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight rows at once, four seconds until the workers stand, then twenty rows a second."""
    gaps = [2.0] + [0.1] * 7 + [4.0] + [0.05] * (N - 9)
    lines = told(Progress(True, True, [str(files)]), clock, gaps, capsys)
    end = clock.now
    later = [(at, line["seconds_left"]) for at, line in lines if at > 102 + 2 * 4.7 + 1]
    assert len(later) > 80
    for at, left in later:
        assert left == pytest.approx(end - at, rel=0.1, abs=0.5)


def test_a_speed_that_changes_is_followed(
    files: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thousand rows known from the cache, the others looked at."""
    lines = told(Progress(True, True, [str(files)]), clock, [0.002] * 1000 + [0.1] * 1000, capsys)
    end = clock.now
    for at, left in [(at, line["seconds_left"]) for at, line in lines if at > 100 + 2 + 31]:
        assert left == pytest.approx(end - at, rel=0.1, abs=0.5)
