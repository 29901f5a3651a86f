"""Worker processes: order, back-pressure, death of a worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_network import make_weights, picture

from mai.errors import UsageError
from mai.images.find import Found
from mai.machine import n_cpus
from mai.pipeline import ScanSettings
from mai.scanning.local import FEW, scan_local
from mai.scanning.workers import CHUNK, WINDOW


class Poison(bytes):
    """Bytes that kill the process that unpickles them, as a decoder's crash would."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    return ScanSettings(("resnet",), weights=make_weights(tmp_path_factory.mktemp("weights")))


def founds(n: int) -> list[Found]:
    return [Found(f"{i}", data=picture(5 * i % 256), named=True) for i in range(n)]


@pytest.mark.parametrize("options", [(2, None), (1, 60.0)])
def test_a_file_that_kills_its_worker_gets_a_row_and_the_rest_go_on(
    settings: ScanSettings, options: tuple[int, float | None]
) -> None:
    some = founds(14)
    some[6] = Found("6", data=Poison(b"x"), named=True)
    n_workers, timeout_s = options
    records = list(scan_local(some, settings, n_workers, timeout_s=timeout_s))
    assert [r.path for r in records] == [str(i) for i in range(14)]
    assert [r.status for r in records] == ["ok"] * 6 + ["detector_failed"] + ["ok"] * 7
    assert "died" in (records[6].message or "")


def test_a_worker_that_is_killed_loses_no_file(settings: ScanSettings) -> None:
    records = scan_local(founds(30), settings, 2)
    first = next(records)
    victims = [child.pid for child in multiprocessing.active_children()]
    assert len(victims) >= 1
    os.kill(victims[0] or 0, signal.SIGKILL)
    rest = list(records)
    assert [r.path for r in (first, *rest)] == [str(i) for i in range(30)]
    assert {r.status for r in rest} == {"ok"}


class Sleeper(Found):
    """A file that hangs whoever reads it in a worker, as a decoder in an endless loop would."""

    def __getattribute__(self, name: str) -> object:
        if name == "data" and multiprocessing.parent_process() is not None:
            time.sleep(600)
        return super().__getattribute__(name)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_file_that_hangs_gets_a_row_and_the_rest_go_on(settings: ScanSettings, n_workers: int) -> None:
    some = founds(6)
    some[4] = Sleeper("4", data=b"x", named=True)
    start = time.monotonic()
    records = list(scan_local(some, settings, n_workers, timeout_s=3))
    assert time.monotonic() - start < 60
    assert [r.path for r in records] == [str(i) for i in range(6)]
    assert [r.status for r in records] == ["ok"] * 4 + ["timed_out", "ok"]
    assert "longer than the 3 s" in (records[CHUNK].message or "")


def test_a_worker_that_stands_still_costs_one_row(settings: ScanSettings) -> None:
    records = scan_local(founds(20), settings, 1, timeout_s=3)
    first = next(records)
    (child,) = multiprocessing.active_children()
    os.kill(child.pid or 0, signal.SIGSTOP)
    statuses = [r.status for r in (first, *records)]
    assert len(statuses) == 20
    assert statuses.count("timed_out") == 1
    assert set(statuses) == {"ok", "timed_out"}


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_time_limit_is_above_zero(settings: ScanSettings, timeout_s: float) -> None:
    with pytest.raises(UsageError, match="above 0"):
        list(scan_local(founds(1), settings, timeout_s=timeout_s))


def test_a_worker_that_cannot_begin_says_why() -> None:
    with pytest.raises(UsageError, match="Did you mean 'resnet'"):
        list(scan_local(founds(1), ScanSettings(("resnte",)), 2))
    assert not multiprocessing.active_children()


def test_large_members_of_shards_pass_both_ways(settings: ScanSettings) -> None:
    """More than a pipe holds, in errands that are sent ahead while rows come back."""
    data = picture(200, size=700)
    assert len(data) > 2**20
    some = [Found(f"{i}", data=data, named=True) for i in range(20)]
    assert [r.label for r in scan_local(some, settings, 2)] == ["synthetic"] * 20


def test_files_are_taken_only_as_rows_leave(settings: ScanSettings) -> None:
    n_taken = 0

    def source() -> Iterator[Found]:
        nonlocal n_taken
        for found in founds(100):
            n_taken += 1
            yield found

    records = scan_local(source(), settings, 2)
    next(records)
    assert n_taken <= 2 * WINDOW * (CHUNK + 1) + 1  # in errands, read ahead, in hand
    records.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


def test_few_files_need_no_processes(settings: ScanSettings) -> None:
    records = scan_local(founds(FEW), settings)
    next(records)
    assert not multiprocessing.active_children()
    assert len(list(records)) == FEW - 1
    assert n_cpus() >= 1


def test_the_folder_is_taken_apart_lazily(settings: ScanSettings, tmp_path: Path) -> None:
    assert list(scan_local(iter(()), settings, 2)) == []
