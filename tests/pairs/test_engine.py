"""Shards, leases and parts: nothing lost, nothing twice, whatever is killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pair_material import make_authentic
from slow_engine import task

from mai.errors import MaiError, UsageError
from mai.jobs import leftovers
from mai.jobs.leases import LeaseLostError, Leases
from mai.jobs.parts import give_name, temporary
from mai.jobs.work import work
from mai.pairs import registry, store
from mai.pairs.caption_pass import CaptionTask
from mai.pairs.progress import state_of
from mai.pairs.run import Pass
from mai.pairs.settings import Settings, stored_mix
from mai.pairs.start import Engine, begin, begin_generating, make_plan, run_pass
from mai.pairs.verify import verify

WORKER = Path(__file__).with_name("slow_engine.py")


def prepared(folder: Path, photos: Path, shard_rows: int, generator: str = "tiny") -> Path:
    """Planned and captioned, with words; the second pass begun."""
    from mai.pairs.caption import MeasuredWords
    from mai.pairs.plan import load

    settings = begin(folder, Settings(authentic=str(photos), captioner="words", shard_rows=shard_rows))
    assert make_plan(folder, settings, 1)
    (folder / "captions").mkdir(exist_ok=True)
    work(folder, CaptionTask(folder, settings, load(folder), MeasuredWords))
    begin_generating(folder, Settings(generators=stored_mix(registry.mix([generator]))))
    return folder


def start(folder: Path, seconds: float, lease_s: float = 60.0) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(folder), str(seconds), str(lease_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rows_in(folder: Path) -> list[str]:
    return [
        row["id"]
        for part in sorted((folder / "data").glob("*.parquet"))
        for row in store.read_rows(part, ["id"])
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authentic(tmp_path_factory.mktemp("engine") / "photos", 60)


def kill_often(folder: Path, n_kills: int, seconds: float, seed: int) -> list[int]:
    """Three workers; kill -9 of one at a drawn moment, a new one in its place, `n_kills` times. Parts at each kill."""
    rng = random.Random(seed)
    workers = [start(folder, seconds) for _ in range(3)]
    seen = []
    while not any(path.name.endswith(".parquet") for path in (folder / "data").glob("*")):
        assert any(worker.poll() is None for worker in workers)
        time.sleep(0.05)
    for _ in range(n_kills):
        time.sleep(rng.uniform(0.0, 0.4))
        victim = rng.randrange(3)
        workers[victim].send_signal(signal.SIGKILL)
        workers[victim].wait()
        seen.append(len(list((folder / "data").glob("*.parquet"))))
        workers[victim] = start(folder, seconds)
    for worker in workers:
        out, err = worker.communicate(timeout=300)
        assert worker.returncode == 0, err + out
    return seen


def test_kill_9_of_three_workers_loses_no_row_and_makes_none_twice(tmp_path: Path, photos: Path) -> None:
    folder = prepared(tmp_path / "ds", photos, 4)
    seen = kill_often(folder, 4, 0.05, seed=1)
    assert seen[0] < 15, "the kills came before the end"
    found = verify(folder)
    assert (found.n_rows, found.n_missing, found.problems) == (60, 0, [])
    assert len(set(rows_in(folder))) == len(rows_in(folder)) == 60
    assert not list((folder / "work").rglob("*.tmp")), "the last one out sweeps"


def dying(folder: Path, moment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER.with_name("dying_engine.py")), str(folder), moment]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def unfinished(folder: Path) -> list[Path]:
    return list((folder / "work").rglob("*.tmp"))


def test_what_a_killed_worker_was_writing_is_removed_at_the_next_start_and_at_the_end(
    tmp_path: Path, photos: Path
) -> None:
    folder = prepared(tmp_path / "ds", photos, 20)
    assert dying(folder, "writing").wait() == -signal.SIGKILL
    assert len(unfinished(folder)) == 1
    outcome = work(folder, task(folder, 0.0), stop=lambda: True)
    assert (outcome.n_parts, unfinished(folder)) == (0, []), "the next start sweeps, whatever it does then"
    assert dying(folder, "writing").wait() == -signal.SIGKILL
    assert work(folder, task(folder, 0.0)).n_left == 0
    assert not unfinished(folder), "and so does the last one out"
    assert verify(folder).problems == []


def test_a_kill_between_a_parts_two_names_leaves_nothing_after_the_next_run(
    tmp_path: Path, photos: Path
) -> None:
    """The last part has its name, so that the next run has nothing left to make."""
    folder = prepared(tmp_path / "ds", photos, 60)
    assert dying(folder, "named").wait() == -signal.SIGKILL
    assert len(unfinished(folder)) == len(list((folder / "data").glob("*.parquet"))) == 1
    nothing = run_pass(Pass(folder, "generate"), Engine(), lambda _: None, lambda: None)
    assert (nothing.n_parts, nothing.n_left, unfinished(folder)) == (0, 0, [])
    assert (verify(folder).n_rows, verify(folder).problems) == (60, [])


def test_the_part_of_a_living_worker_is_left_alone(tmp_path: Path, photos: Path) -> None:
    folder = prepared(tmp_path / "ds", photos, 20)
    worker = dying(folder, "waiting")
    assert worker.stdout and worker.stdout.readline() == "waiting\n"
    (its,) = unfinished(folder)
    assert work(folder, task(folder, 0.0), is_waiting=False).n_parts == 2, "the other two"
    assert unfinished(folder) == [its], "neither a start nor an end takes what a living one writes"
    # The other pass, begun anew and swept.
    assert run_pass(Pass(folder, "caption"), Engine(), lambda _: None, lambda: None).n_left == 0
    assert unfinished(folder) == [its]
    (folder / "go").touch()
    out, _ = worker.communicate(timeout=60)
    assert (worker.returncode, "n_parts=1" in out, unfinished(folder)) == (0, True, []), out
    assert (verify(folder).n_rows, verify(folder).problems) == (60, [])


def test_of_a_worker_elsewhere_only_its_silence_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(tmp_path / "leases-generate", lease_s=30.0)
    monkeypatch.setattr(leftovers, "machine", lambda: "elsewhere")
    lease = leases.take(3, None)
    assert lease is not None
    its = leftovers.unfinished(tmp_path, "generate", lease)
    monkeypatch.undo()
    its.write_bytes(b"PAR1")
    old = time.time() - 100
    os.utime(its, (old, old))
    leftovers.clear(tmp_path, "generate", leases)
    assert its.exists(), "it beats: its lease is fresh, however long a part takes to grow"
    lease.release()
    os.utime(its)
    leftovers.clear(tmp_path, "generate", leases)
    assert its.exists(), "its lease is gone, and it still writes"
    os.utime(its, (old, old))
    leftovers.clear(tmp_path, "caption", leases)
    assert its.exists(), "the other pass is not asked"
    leftovers.clear(tmp_path, "generate", leases)
    assert not its.exists()


@pytest.mark.soak
def test_kill_9_again_and_again(tmp_path: Path, photos: Path) -> None:
    for seed in range(6):
        folder = prepared(tmp_path / f"ds{seed}", photos, 3)
        kill_often(folder, 15, 0.03, seed)
        found = verify(folder)
        assert (found.n_rows, found.n_missing, found.problems) == (60, 0, [])


def test_a_kill_costs_at_most_the_shard_in_hand(tmp_path: Path, photos: Path) -> None:
    folder = prepared(tmp_path / "ds", photos, 10)
    worker = start(folder, 0.02)
    while len(list((folder / "data").glob("*.parquet"))) < 2:
        time.sleep(0.02)
    worker.kill()
    worker.wait()
    parts = {path.name: path.stat().st_mtime_ns for path in (folder / "data").glob("*.parquet")}
    left = 6 - len(parts)
    outcome = work(folder, task(folder, 0.0))  # the dead worker's lease is known to be stale at once
    assert (outcome.n_parts, outcome.n_left) == (left, 0)
    for name, changed in parts.items():
        assert (folder / "data" / name).stat().st_mtime_ns == changed, "what was finished is not done again"


def test_a_finished_set_ends_at_once(tmp_path: Path, photos: Path) -> None:
    folder = prepared(tmp_path / "ds", photos, 30)
    assert work(folder, task(folder, 0.0)).n_parts == 2
    outcome = work(folder, task(folder, 1e9))
    assert (outcome.n_parts, outcome.n_left, outcome.is_stopped) == (0, 0, False)


def test_ctrl_c_finishes_the_row_and_the_next_run_goes_on_from_it(tmp_path: Path, photos: Path) -> None:
    folder = prepared(tmp_path / "ds", photos, 60)
    worker = start(folder, 0.2)
    leases = Leases(folder / "work" / "leases-generate")
    while not any(lease.owner for lease in leases.held().values()):
        time.sleep(0.05)
    time.sleep(2)
    worker.send_signal(signal.SIGINT)
    out, err = worker.communicate(timeout=60)
    assert "is_stopped=True" in out, err
    assert not rows_in(folder), "an unfinished part has no finished name"
    partial = folder / "work" / "generate-00000.partial"
    done = {row["id"]: row["synthetic"] for row in store.read_rows(partial)}
    assert 1 <= len(done) < 60
    assert state_of(folder, "generate").n_kept == len(done)
    assert work(folder, task(folder, 0.0)).n_left == 0
    again = {row["id"]: row["synthetic"] for row in store.rows_of(folder, only_pairs=False)}
    assert len(again) == 60
    assert all(again[name] == data for name, data in done.items())
    assert not partial.exists()


def test_a_silent_worker_of_another_machine_is_taken_over_and_drops_its_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = Leases(tmp_path / "leases", lease_s=1.0)
    monkeypatch.setattr("mai.jobs.leases.machine", lambda: "elsewhere")
    first = leases.take(3, None)
    monkeypatch.undo()
    assert first is not None
    assert leases.take(3, None) is None, "only one can have it"
    held = leases.held()[3]
    assert not held.is_stale(1.0), "its process is of another machine: nothing is known but its silence"
    old = time.time() - 5
    os.utime(first.path, (old, old))
    held = leases.held()[3]
    assert held.is_stale(1.0)
    second = leases.take(3, held)
    assert second is not None
    assert leases.take(3, held) is None
    with pytest.raises(LeaseLostError):
        first.check()
    second.check()
    second.release()
    assert leases.held() == {}


def test_a_dead_process_of_this_machine_is_known_at_once(tmp_path: Path) -> None:
    code = (
        "from mai.jobs.leases import Leases; from pathlib import Path\n"
        f"Leases(Path({str(tmp_path)!r})).take(0, None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Leases(tmp_path).held()[0].is_stale(1e9)


def test_a_name_is_given_once(tmp_path: Path) -> None:
    for text, wanted in (("first", True), ("second", False)):
        part = temporary(tmp_path)
        part.write_text(text)
        assert give_name(part, tmp_path / "x.parquet") is wanted
        assert not part.exists()
    assert (tmp_path / "x.parquet").read_text() == "first"


def test_a_full_disk_says_so_and_keeps_what_is_finished(tmp_path: Path, photos: Path) -> None:
    """The kernel refuses to write more than the limit, as a full disk does; then there is room again."""
    folder = prepared(tmp_path / "ds", photos, 20)
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"sys.path.insert(0, {str(WORKER.parent)!r})\n"
        "from slow_engine import task; from mai.jobs.work import work; from mai.errors import MaiError\n"
        f"folder = Path({str(folder)!r}); job = task(folder, 0.0)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    work(folder, job)\n"
        "except MaiError as error:\n    print(error); sys.exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "no room left" in done.stdout
    assert "run the same command again" in done.stdout
    assert not list((folder / "data").glob("*"))
    assert not list((folder / "work").rglob("*.tmp"))
    assert work(folder, task(folder, 0.0)).n_left == 0
    assert verify(folder).n_rows == 60


def test_a_full_file_system_is_a_full_disk(tmp_path: Path, photos: Path) -> None:
    """A real one, of half a megabyte, where this user may mount it."""
    folder = tmp_path / "ds"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        prepared(folder, photos, 20)
        with pytest.raises(MaiError, match="no room left"):
            work(folder, task(folder, 0.0))
        subprocess.run(["mount", "-o", "remount,size=50m", str(folder)], check=True)
        assert work(folder, task(folder, 0.0)).n_left == 0
        assert verify(folder).n_rows == 60
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path, photos: Path) -> None:
    begin(tmp_path / "ds", Settings(authentic=str(photos), captioner="words"))
    with pytest.raises(UsageError, match="started with captioner 'words', not 'txt'"):
        begin(tmp_path / "ds", Settings(authentic=str(photos), captioner="txt"))
    (tmp_path / "killed").mkdir()
    temporary(tmp_path / "killed").write_text(
        "{"
    )  # of a start that ended in the middle, or of one beside this
    begin(tmp_path / "killed", Settings(authentic=str(photos), captioner="words"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="holds other files"):
        begin(tmp_path / "mine", Settings(authentic=str(photos), captioner="words"))
