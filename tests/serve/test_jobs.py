"""Batch jobs: what they give, that they outlast the process, that they end when their time is up."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running_service import Running, picture, serving

from mai.serve import jobs as jobs_module
from mai.serve.archive import Bounds, items, kind_of
from mai.serve.job_store import Store
from mai.serve.jobs import Jobs
from mai.serve.look import Answer, Ask, answer
from mai.serve.metrics import Metrics
from mai.types import Record


def finished(service: Running, job: str, most_s: float = 240) -> dict[str, Any]:
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        told: dict[str, Any] = service.client.get(f"/v1/jobs/{job}").json()
        if told["state"] in ("finished", "failed"):
            return told
        time.sleep(0.1)
    pytest.fail(f"the job is not over: {told}")


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


READS_BOUNDED = """
import resource, sys
from pathlib import Path
from mai.serve.archive import Bounds
from mai.serve.unpack import Reader

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CPU, (200, 200))
    reader = Reader(Path(sys.argv[1]), "x.zip", "zip", Bounds(10**6, 10, timeout_s=300, memory_mb=2048))
    while (item := reader.next()) is not None:
        print(item.path, item.error)
    reader.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_an_archive_is_read_where_the_system_bounds_processes_more_tightly(tmp_path: Path) -> None:
    """As after `ulimit -t 200`: a bound cannot be raised, and that must not end the reader."""
    (tmp_path / "0").write_bytes(zipped({"a.jpg": picture()}))
    (tmp_path / "reads.py").write_text(READS_BOUNDED)
    words = [sys.executable, str(tmp_path / "reads.py"), str(tmp_path)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert found.stdout.split() == ["x.zip::a.jpg", "None"], found.stderr


def test_files_of_a_form_become_rows_in_order(service: Running) -> None:
    files = [("file", (f"{n}.jpg", picture(40 * n))) for n in range(20)] + [("file", ("bad.jpg", b"no"))]
    started = service.client.post("/v1/jobs", files=files)
    assert started.status_code == 202, started.text
    job = started.json()
    assert job["n_files"] == 21
    told = finished(service, job["id"])
    assert (told["state"], told["n_done"], told["n_failed"]) == ("finished", 21, 1)
    assert sum(told["labels"].values()) == 20
    assert told["deleted_at"] > told["finished"]
    lines = service.client.get(f"/v1/jobs/{job['id']}/results").text.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["path"] for row in rows] == [*(f"{n}.jpg" for n in range(20)), "bad.jpg"]
    own = service.client.post("/v1/scan", params={"name": "0.jpg"}, content=files[0][1][1]).json()
    assert rows[0] | {"seconds": 0} == own | {"seconds": 0}
    answer = service.client.get(f"/v1/jobs/{job['id']}/results", params={"format": "csv"})
    table = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    assert table[20]["status"] == "not_an_image"
    assert service.client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert service.client.get(f"/v1/jobs/{job['id']}").status_code == 404
    assert service.client.get(f"/v1/jobs/{job['id']}/results").status_code == 404


def test_progress_comes_as_events(service: Running) -> None:
    files = [("file", (f"{n}.jpg", picture(40 * n))) for n in range(12)]
    job = service.client.post("/v1/jobs", files=files).json()["id"]
    events = []
    with service.client.stream("GET", f"/v1/jobs/{job}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                events.append(line.removeprefix("event: "))
            if line.startswith("data: "):
                told = json.loads(line.removeprefix("data: "))
    assert events[-1] == "end"
    assert set(events[:-1]) <= {"progress"}
    assert (told["state"], told["n_done"]) == ("finished", 12)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_archives(service: Running, kind: str) -> None:
    members = {
        "a/1.jpg": picture(1),
        "a/readme.txt": b"text",
        "b/2.png": picture(2, "PNG"),
        "../../3.jpg": b"no",
    }
    data = zipped(members)
    if kind != "zip":
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        data = gzip.compress(stream.getvalue()) if kind == "tar.gz" else stream.getvalue()
    job = service.client.post("/v1/jobs", params={"name": f"set.{kind}"}, content=data).json()
    told = finished(service, job["id"])
    assert (told["state"], told["n_files"], told["n_done"], told["n_failed"]) == ("finished", 3, 3, 1)
    rows = [
        json.loads(line) for line in service.client.get(f"/v1/jobs/{job['id']}/results").text.splitlines()
    ]
    assert [row["path"] for row in rows] == [
        f"set.{kind}::{name}" for name in members if name != "a/readme.txt"
    ]


def test_hostile_archives_cost_little(tmp_path: Path) -> None:
    def first(data: bytes, **limits: int) -> list[Any]:
        (tmp_path / "0").write_bytes(data)
        bounds = Bounds(limits.get("bytes", 10**6), limits.get("files", 100), limits.get("members", 1000))
        return list(items(tmp_path, ("x.zip",), "zip", bounds))

    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(50_000_000))
    (bomb,) = first(stream.getvalue())
    assert bomb.error.status == "too_large"
    large = zipped({"a.jpg": b"\xff\xd8\xff" + bytes(3_000)})
    assert first(large, bytes=1000)[0].error.status == "too_large"
    many = first(zipped({f"{n}.jpg": picture() for n in range(9)}), files=4)
    assert len(many) == 5
    assert "left out" in str(many[-1].error)
    some = first(zipped({f"{n}.txt": b"no picture" for n in range(9)} | {"a.jpg": picture()}), members=9)
    assert "more than 9 members" in str(some[0].error)
    cut = first(zipped({"a.jpg": picture()})[:-30])
    assert cut[0].error is not None
    assert {path.name for path in tmp_path.iterdir()} <= {"0", *(f"member-{n}" for n in range(9))}
    (tmp_path / "plain").write_bytes(picture())
    assert kind_of(tmp_path / "plain", "a.jpg") is None


def of_many_members(n: int) -> bytes:
    """A zip of so many empty members; zipfile would take minutes to write it."""
    listed, at = [], 0
    parts = []
    for number in range(n):
        name = b"%07d.txt" % number
        facts = (20, 0, 0, 0, 0, 0, 0, 0, len(name), 0)
        parts.append(struct.pack("<4s5H3L2H", b"PK\x03\x04", *facts) + name)
        listed.append(struct.pack("<4sH5H3L5H2L", b"PK\x01\x02", 20, *facts, 0, 0, 0, 0, at) + name)
        at += len(parts[-1])
    body = b"".join(listed)
    start = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, n, n, len(body), at)
    where = struct.pack("<4sLQL", b"PK\x06\x07", 0, at + len(body), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return b"".join([*parts, body, start, where, end])


def bomb(n: int = 2**40) -> bytes:
    """A compressed tar with one member of a terabyte, whose zeros never end; as much of it as 64 GiB need."""
    entry = tarfile.TarInfo("large.bin")
    entry.size = n
    zeros = gzip.compress(bytes(2**26), 6)
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT)) + zeros * 1024


def cpu_s(pid: int) -> float:
    """CPU seconds of one process (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Iterator[Running]:
    """A service with narrow bounds for archives."""
    folder = tmp_path_factory.mktemp("bounded")
    with serving(
        "--workers", "1", "--weights", str(weights), "--data", str(folder / "data"),
        "--max-archive-members", "5000", "--archive-time", "4", log=folder / "log",
    ) as running:  # fmt: skip
        yield running


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads CPU seconds in /proc")
@pytest.mark.parametrize("kind", ["zip", "tgz"])
def test_an_archive_that_costs_too_much_is_left_early(bounded: Running, kind: str) -> None:
    """A million members; a terabyte of zeros. The service's own process does none of the work, and says why it ends."""
    data = of_many_members(1_000_000) if kind == "zip" else bomb()
    started = bounded.client.post("/v1/jobs", params={"name": f"x.{kind}"}, content=data)
    before = cpu_s(bounded.process.pid)
    assert started.status_code == 202, started.text
    told = finished(bounded, started.json()["id"], 120)
    assert cpu_s(bounded.process.pid) - before < 2
    assert (told["state"], told["n_done"], told["n_failed"]) == ("finished", 1, 1)
    said, status = {
        "zip": ("more than 5,000 members", "too_large"), "tgz": ("took longer than 4 s", "timed_out"),
    }[kind]  # fmt: skip
    assert said in told["message"]
    row = json.loads(bounded.client.get(f"/v1/jobs/{told['id']}/results").text)
    assert (row["path"], row["status"], row["message"]) == (f"x.{kind}", status, told["message"])
    assert bounded.client.post("/v1/scan", content=picture()).status_code == 200


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.parametrize("how", ["delete", "kill"])
def test_the_reader_of_an_archive_can_be_ended(bounded: Running, how: str) -> None:
    """A job that is deleted stops it at once; one that is killed from outside costs a row, not the service."""
    others = set(bounded.workers())
    begin = time.monotonic()
    job = bounded.client.post("/v1/jobs", params={"name": "x.tgz"}, content=bomb()).json()["id"]
    while not (reading := set(bounded.workers()) - others):
        assert time.monotonic() - begin < 60
        time.sleep(0.02)
    if how == "delete":
        assert bounded.client.delete(f"/v1/jobs/{job}").status_code == 204
        begin = time.monotonic()
        while set(bounded.workers()) & reading:
            assert time.monotonic() - begin < 3
            time.sleep(0.02)
    else:
        for pid in reading:
            os.kill(pid, signal.SIGKILL)
        told = finished(bounded, job, 60)
        assert (told["state"], told["n_failed"]) == ("finished", 1)
        assert "process that read the archive died" in told["message"]
    after = bounded.client.post(
        "/v1/jobs", params={"name": "x.zip"}, content=zipped({"a.jpg": picture()})
    ).json()
    told = finished(bounded, after["id"], 60)
    assert (told["state"], told["n_done"], told["message"]) == ("finished", 1, None)


def test_a_job_is_finished_after_a_kill_and_a_restart(tmp_path: Path, weights: Path) -> None:
    """kill -9 in the middle: every file has one row in the end, and those that were there were not made again."""
    options = ("--workers", "1", "--weights", str(weights), "--data", str(tmp_path / "data"))
    n = 60
    with serving(*options, log=tmp_path / "log") as service:
        files = [("file", (f"{i}.jpg", picture(i, size=(320, 240)))) for i in range(n)]
        job = service.client.post("/v1/jobs", files=files).json()["id"]
        while (before := service.client.get(f"/v1/jobs/{job}").json()["n_done"]) < 3:
            time.sleep(0.02)
        assert service.stop(signal.SIGKILL) != 0
    base = sqlite3.connect(tmp_path / "data" / "jobs.sqlite")
    kept = dict(base.execute("SELECT number, row FROM rows"))
    base.close()
    assert before <= len(kept) < n
    with serving(*options, log=tmp_path / "log2") as service:
        told = finished(service, job)
        assert (told["n_done"], told["n_failed"]) == (n, 0)
        rows = service.client.get(f"/v1/jobs/{job}/results").text.splitlines()
    assert [json.loads(row)["path"] for row in rows] == [f"{i}.jpg" for i in range(n)]
    assert {number: rows[number] for number in kept} == kept
    assert not list((tmp_path / "data" / "uploads").iterdir())


def test_time_deletes_jobs_and_what_uploads_left(tmp_path: Path) -> None:
    store = Store(tmp_path / "data")
    job, folder = store.new_folder()
    (folder / "0").write_bytes(picture())
    store.add(job, "", ["a.jpg"], None)
    lost, _ = store.new_folder()
    store.sweep(0.0)
    assert store.get(job) is not None
    assert not store.folder_of(lost).exists()
    store.set_state(job, "finished")
    store.sweep(3600)
    assert store.get(job) is not None
    time.sleep(0.01)
    store.sweep(0.0)
    assert store.get(job) is None
    assert not folder.exists()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    store.close()


class Answering:
    """A desk that judges at once."""

    async def ask(self, wanted: Ask) -> Answer:
        assert wanted.file.is_file()
        return answer(Record(wanted.path, "empty"))


def in_background(store: Store, run: Callable[[Jobs], Awaitable[None]]) -> None:
    async def main() -> None:
        desk: Any = Answering()
        jobs = Jobs(store, desk, Metrics(desk), 1, 3600, Bounds(10**6, 100))
        jobs.start()
        await run(jobs)
        await jobs.close()

    asyncio.run(main())


def test_jobs_deleted_while_they_wait_are_neither_looked_at_nor_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def add(name: str) -> str:
        job, folder = store.new_folder()
        (folder / "0").write_bytes(b"x")
        store.add(job, "", [name], None)
        return job

    _, second, _ = (add(name) for name in ("first.jpg", "second.jpg", "third.jpg"))
    seen: list[str] = []

    async def run(jobs: Jobs) -> None:
        async def ask(wanted: Ask) -> Answer:
            seen.append(wanted.path)
            if wanted.path == "first.jpg":  # the second waits behind it, and one that has just come
                for job in (second, add("late.jpg")):
                    found = store.get(job)
                    assert found is not None
                    jobs.cancel(found)
            return answer(Record(wanted.path, "empty"))

        jobs._desk.ask = ask  # type: ignore[method-assign]
        for _ in range(200):
            await asyncio.sleep(0.05)
            if not store.open_jobs():
                break
        await asyncio.sleep(0.05)
        assert not jobs._cancelled
        assert not jobs._held

    in_background(store, run)
    assert seen == ["first.jpg", "third.jpg"]


def test_jobs_go_on_when_the_store_can_be_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that was full once must not end the jobs for good, while /healthz says that all is well."""
    monkeypatch.setattr(jobs_module, "PAUSE_S", 0.05)
    store = Store(tmp_path)
    job, folder = store.new_folder()
    (folder / "0").write_bytes(b"x")
    store.add(job, "", ["a.jpg"], None)
    store._base.execute("PRAGMA query_only=ON")  # every write fails

    async def run(jobs: Jobs) -> None:
        await asyncio.sleep(0.3)
        store._base.execute("PRAGMA query_only=OFF")
        for _ in range(100):
            await asyncio.sleep(0.1)
            found = store.get(job)
            if found is not None and found.is_over:
                break
        assert found is not None
        assert (found.state, found.n_done) == ("finished", 1)

    in_background(store, run)
    assert "cannot be kept" in capsys.readouterr().err


def test_a_job_that_goes_on_keeps_no_copies_of_what_has_a_row(tmp_path: Path) -> None:
    """Else an archive that was seen to its end would lie unpacked on the disk."""
    store = Store(tmp_path)
    job, folder = store.new_folder()
    (folder / "0").write_bytes(zipped({f"{n}.jpg": picture(n) for n in range(6)}))
    store.add(job, "", ["a.zip"], "zip")
    for number in range(5):
        store.add_row(job, number, answer(Record(f"{number}.jpg", "empty")))
    seen: list[list[str]] = []

    async def run(jobs: Jobs) -> None:
        real = jobs._desk.ask

        async def ask(wanted: Ask) -> Answer:
            seen.append(sorted(path.name for path in folder.iterdir()))
            return await real(wanted)

        jobs._desk.ask = ask  # type: ignore[method-assign]
        for _ in range(100):
            await asyncio.sleep(0.1)
            found = store.get(job)
            if found is not None and found.is_over:
                break

    in_background(store, run)
    assert seen == [["0", "member-5"]]
