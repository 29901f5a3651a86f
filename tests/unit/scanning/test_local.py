"""Worker processes: order, back-pressure, death of a worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_network import make_weights, picture

from mai.images.find import Found
from mai.pipeline import ScanSettings
from mai.scanning.local import CHUNK, FEW, WINDOW, n_cpus, scan_local


class Poison(bytes):
    """Bytes that kill the process that unpickles them, as a decoder's crash would."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> ScanSettings:
    return ScanSettings(("resnet",), weights=make_weights(tmp_path_factory.mktemp("weights")))


def founds(n: int) -> list[Found]:
    return [Found(f"{i}", data=picture(5 * i % 256), named=True) for i in range(n)]


def test_a_file_that_kills_its_worker_gets_a_row_and_the_rest_go_on(settings: ScanSettings) -> None:
    some = founds(14)
    some[6] = Found("6", data=Poison(b"x"), named=True)
    records = list(scan_local(some, settings, 2))
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


def test_files_are_taken_only_as_rows_leave(settings: ScanSettings) -> None:
    n_taken = 0

    def source() -> Iterator[Found]:
        nonlocal n_taken
        for found in founds(100):
            n_taken += 1
            yield found

    records = scan_local(source(), settings, 2)
    next(records)
    assert n_taken <= 2 * WINDOW * CHUNK
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
