"""A run that was killed and resumed ends as the unbroken one does, bit for bit; what does not fit is refused."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from labelled_pictures import make_set

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

# One layout, so that two runs do not choose differently by a stopwatch; batches small enough to be killed between.
SETTINGS = {
    "run.epochs": "2",
    "run.batch_size": "4",
    "run.layout": "contiguous",
    "run.precision": "fp32",
    "run.checkpoint_minutes": "0.0005",
}

Command = Callable[..., list[str]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data") / "set", {"train": 12, "validation": 4})


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **one, "MAI_CACHE": str(tmp_path_factory.mktemp("cache"))}


def command(data: Path, output: Path, *more: str, start: tuple[str, ...] = (), **settings: Any) -> list[str]:
    values = SETTINGS | {f"run.{key}": str(value) for key, value in settings.items()}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    head = start or (sys.executable, "-m", "mai")
    return [*head, "train", "resnet", "--data", str(data), "--output", str(output), "--threads", "1",
            *words, *more]  # fmt: skip


def run(words: list[str], surroundings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(words, env=surroundings, capture_output=True, text=True, timeout=300, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def unbroken(data: Path, surroundings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    # Checkpoints at the ends of epochs only: that more are written must not matter either.
    done = run(command(data, output, "--workers", "0", checkpoint_minutes=60), surroundings)
    assert done.returncode == 0, done.stderr
    return output


def kill_between_steps(words: list[str], surroundings: dict[str, str], output: Path) -> dict[str, Any]:
    """Start a run, kill it (all its processes) after its first checkpoint inside an epoch, return that checkpoint."""
    process = subprocess.Popen(
        words, env=surroundings, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 120
    while not (output / "last.pt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told.decode()
    state: dict[str, Any] = torch.load(output / "last.pt", weights_only=True)
    return state


def assert_equal(one: Any, other: Any, where: str = "state") -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


@pytest.mark.parametrize("workers", ["0", "2"])
def test_killed_and_resumed_is_as_unbroken(
    data: Path, surroundings: dict[str, str], unbroken: Path, tmp_path: Path, workers: str
) -> None:
    output = tmp_path / "run"
    words = command(data, output, "--workers", workers)
    state = kill_between_steps(words, surroundings, output)
    assert (state["epoch"], state["step"]) != (0, 0)
    assert 0 < state["step"] < 6, "the kill came between two steps of an epoch of six"
    done = run([*words, "--resume"], surroundings)
    assert done.returncode == 0, done.stderr
    assert f"going on from epoch {state['epoch']}, step {state['step']}" in done.stderr
    for name in ("last.pt", "best.pt"):
        ours, theirs = (torch.load(folder / name, weights_only=True) for folder in (output, unbroken))
        for key in ("model", "average", "optimizer", "random", "epoch", "step", "best", "loss_sum"):
            assert_equal(ours[key], theirs[key], f"{name}: {key}")
    figures = [read_figures(folder / "metrics.csv") for folder in (output, unbroken)]
    assert figures[0] == figures[1]
    assert not list(output.glob(".*.tmp")), "nothing half written is left"


def read_figures(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in {"images_per_s", "seconds"}} for row in rows]


def test_a_run_leaves_its_story(unbroken: Path) -> None:
    names = {path.name for path in unbroken.iterdir()}
    wanted = {"run.json", "metrics.csv", "events", "last.pt", "best.pt", "curves.png", "scores.png"}
    assert wanted <= names
    rows = read_figures(unbroken / "metrics.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [row["step"] for row in rows] == ["6", "12"]


@pytest.fixture
def here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], surroundings: dict[str, str]
) -> Callable[[list[str]], tuple[int, str]]:
    """Run the command in this process (ten seconds of imports less); exit code and stderr."""
    from mai.cli import main

    torch.set_num_threads(1)
    monkeypatch.setenv("MAI_CACHE", surroundings["MAI_CACHE"])

    def run_here(words: list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mai", *words[3:]])
        capsys.readouterr()
        with pytest.raises(SystemExit) as done:
            main()
        assert isinstance(done.value.code, int)
        return done.value.code, capsys.readouterr().err

    return run_here


Here = Callable[[list[str]], tuple[int, str]]


def test_what_does_not_fit_is_refused(data: Path, here: Here, unbroken: Path, tmp_path: Path) -> None:
    before = (unbroken / "last.pt").stat().st_mtime_ns
    elsewhere = make_set(tmp_path / "set", {"train": 3, "validation": 2})
    for words, sentence in (
        (command(data, unbroken), "Add --resume"),
        (command(data, unbroken, "--resume", "--set", "optimizer.lr=0.5"), "optimizer.lr was 0.0003, is 0.5"),
        (command(data, unbroken, "--resume", batch_size=8), "run.batch_size was 4, is 8"),
        (command(elsewhere, unbroken, "--resume"), "another set"),
    ):
        code, told = here(words)
        assert (code, sentence in told) == (1, True), told
    assert (unbroken / "last.pt").stat().st_mtime_ns == before


def test_loss_that_is_no_number_stops_with_a_sentence(data: Path, here: Here, tmp_path: Path) -> None:
    output = tmp_path / "run"
    # RMSprop's first steps are about 10 * lr each; the activations of such weights overflow float32 in a few.
    wild = ("--set", "optimizer.lr=1e12", "--set", "optimizer.warmup=0")
    code, told = here(command(data, output, "--workers", "0", *wild))
    assert code == 1
    assert "Lower optimizer.lr" in told
    assert told.rstrip().splitlines()[-1].startswith("mai: ")
    if (output / "last.pt").exists():
        kept = torch.load(output / "last.pt", weights_only=True)
        assert all(bool(torch.isfinite(value).all()) for value in kept["model"].values())
        assert "The last good checkpoint is" in told
    else:
        assert "There is no checkpoint yet" in told


@pytest.mark.slow
def test_two_processes_train_as_one_run(
    data: Path, surroundings: dict[str, str], here: Here, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    launch = (sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
              "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "mai")  # fmt: skip
    words = command(data, output, "--workers", "0", start=launch, epochs=1)
    done = run(words, surroundings)
    assert done.returncode == 0, done.stderr
    state = torch.load(output / "last.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 0)
    assert done.stderr.count("epoch 1/1: loss") == 1, "one process speaks"
    assert [row["step"] for row in read_figures(output / "metrics.csv")] == ["6"]
    # The same samples and steps as one process takes: sums in another order, hence not bit for bit.
    code, told = here(command(data, tmp_path / "alone", "--workers", "0", epochs=1))
    assert code == 0, told
    single = torch.load(tmp_path / "alone" / "last.pt", weights_only=True)
    for name, value in single["model"].items():
        torch.testing.assert_close(state["model"][name], value, rtol=1e-2, atol=1e-4, msg=name)
