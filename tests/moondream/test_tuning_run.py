"""`mai train moondream` from pictures to a verdict: runs, kills, resumes, adapters saved, merged and refused."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from labelled_pictures import draw, make_set
from PIL import Image as Pil

torch = pytest.importorskip("torch", reason="Moondream needs the extra 'vlm'")
pytest.importorskip("peft", reason="LoRA needs the extra 'vlm'")

from mai import weights as weights_room  # noqa: E402
from mai.cli import group  # noqa: E402
from mai.errors import TrainingError, WeightsError  # noqa: E402
from mai.moondream import tiny  # noqa: E402
from mai.moondream.load import load  # noqa: E402
from mai.moondream.session import BASE, TorchSession, merge, open_weights  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moondream")
    tiny.build(folder / "base")
    make_set(folder / "set", {"train": 8, "validation": 6, "calibration": 24})
    return folder


def words(place: Path, output: Path, *more: str, recipe: str = "bi-lora", **values: Any) -> list[str]:
    told: dict[str, Any] = {
        "base.source": place / "base", "data.size_px": 84, "run.epochs": 2, "run.batch_size": 8,
        "run.micro_batch": 4, "run.precision": "fp32", "optimizer.lr": 0.003,
    }  # fmt: skip
    told |= {key.replace("__", "."): value for key, value in values.items()}
    settings = [word for key, value in told.items() for word in ("--set", f"{key}={value}")]
    return ["train", "moondream", "--data", str(place / "set"), "--recipe", recipe, "--output", str(output),
            "--workers", "0", "--threads", "1", *settings, *more]  # fmt: skip


def mai(*args: str) -> Result:
    done = CliRunner().invoke(group, list(args))
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def run(place: Path) -> Path:
    done = mai(*words(place, place / "run"))
    assert done.exit_code == 0, done.output
    assert "Next: mai export moondream" in done.output
    return place / "run"


@pytest.fixture(scope="module")
def adapter(place: Path, run: Path) -> Path:
    done = mai(
        "export", "moondream", str(run), "--data", str(place / "set"), "--output", str(place / "adapter")
    )
    assert done.exit_code == 0, done.output
    return place / "adapter"


def test_a_run_leaves_figures_and_curves(run: Path) -> None:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for name in ("loss", "auroc", "auroc_low", "balanced_accuracy", "ece", "images_per_s"):
        assert np.isfinite(float(rows[0][name])), name
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert (run / "curves.png").stat().st_size > 5000
    told = json.loads((run / "run.json").read_text())
    assert told["base"]["note"] == tiny.NOTE
    assert set(told["base"]["files"]) == {"model.safetensors", "tokenizer.json", "mai.json"}
    state = torch.load(run / "best.pt", weights_only=True)
    assert all(".lora_" in name for name in state["weights"]), "checkpoints hold the adapters alone"


def test_an_adapter_folder_is_whole(adapter: Path) -> None:
    names = {path.name for path in adapter.iterdir()}
    assert names == {"adapter_model.safetensors", "adapter_config.json", "config.json", "README.md"}
    told = json.loads((adapter / "config.json").read_text())
    assert told["format"] == "mai.weights/1"
    assert told["prior"] == 0.5
    assert told["base"]["revision"] == "2025-06-21"
    assert told["calibration"]["slope"] > 0
    assert told["thresholds"]["synthetic"]
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == 16
    text = (adapter / "README.md").read_text()
    for part in (
        "random weights",
        "rank 16",
        "training prior is 0.5",
        "Is this image AI-generated?",
        "AUROC",
    ):
        assert part in text, part


def test_scan_and_eval_use_it(place: Path, adapter: Path) -> None:
    Pil.fromarray(draw(5, True)).save(place / "one.png")
    done = mai("scan", str(place / "one.png"), "--detectors", "moondream", "--weights", str(adapter), "--jsonl",
               "--no-cache", "--workers", "1")  # fmt: skip
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout.strip().splitlines()[-1])
    assert row["status"] == "ok"
    evidence = row["evidence"][0]
    assert (evidence["detector"], evidence["status"]) == ("moondream", "ok")
    assert 0 <= row["score"] <= 1
    done = mai("eval", str(adapter), "--data", str(place / "set"), "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["aligned"]["n_synthetic"] == 6
    assert figures["aligned"]["auroc"][0] == figures["aligned"]["auroc"][0]


def test_saving_and_loading_changes_no_score(run: Path, adapter: Path) -> None:
    from mai import config
    from mai.moondream.export import fill
    from mai.moondream.recipe import TuneRecipe
    from mai.moondream.train import open_student

    state = torch.load(run / "best.pt", weights_only=True)
    student, _ = open_student(config.build(TuneRecipe, state["recipe"]), run)
    views = np.stack([draw(i, bool(i % 2))[:84, :84] for i in range(4)])
    before = student.score(views)
    fill(student, state["weights"])
    wanted = student.score(views)
    assert np.abs(wanted - before).max() > 1e-3, "the adapter does something"
    assert TorchSession(weights_room.load(adapter)).logits(views) == pytest.approx(wanted, abs=1e-5)


def test_a_merged_model_answers_as_base_and_adapter_do(place: Path, adapter: Path) -> None:
    done = mai("weights", "merge", str(adapter), str(place / "merged"), "--dtype", "fp32")
    assert done.exit_code == 0, done.output
    merged = load(place / "merged")
    assert "merged in" in merged.note
    from mai.moondream.recipe import SamplePlan
    from mai.moondream.student import MoondreamStudent

    views = np.stack([draw(i, bool(i % 2))[:84, :84] for i in range(4)])
    own = MoondreamStudent(merged, SamplePlan(size_px=84)).score(views)
    assert own == pytest.approx(TorchSession(weights_room.load(adapter)).logits(views), abs=1e-4)
    with pytest.raises(WeightsError, match="fp32, bf16 or fp16"):
        merge(weights_room.load(adapter), place / "x", dtype="int4")


def test_an_adapter_of_another_base_is_refused(
    place: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.build(tmp_path / "other", seed=1)
    loaded = weights_room.load(adapter)
    with pytest.raises(WeightsError, match="adapter of another base"):
        open_weights(loaded, "cpu", str(tmp_path / "other"))
    monkeypatch.setenv(BASE, str(tmp_path / "other"))
    done = mai_fails("scan", str(ROOT / "examples"), "--detectors", "moondream", "--weights", str(adapter))
    assert "adapter of another base" in done
    shutil.copytree(place / "base", tmp_path / "moved")
    monkeypatch.setenv(BASE, str(tmp_path / "moved"))
    TorchSession(loaded)  # the same base elsewhere will do
    shutil.copytree(adapter, tmp_path / "damaged")
    data = bytearray((tmp_path / "damaged" / "adapter_model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "damaged" / "adapter_model.safetensors").write_bytes(bytes(data))
    with pytest.raises(WeightsError, match="damaged or was replaced"):
        TorchSession(weights_room.load(tmp_path / "damaged"))


def mai_fails(*args: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mai", *args], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


def test_accumulated_gradients_are_those_of_the_whole_batch(place: Path, tmp_path: Path) -> None:
    """Four passes of 2 samples in place of one of 8 move the weights to the same place."""
    states = []
    for name, micro in (("one", 0), ("four", 2)):
        more = {"run__micro_batch": micro, "run__epochs": 1, "adapter__dropout": 0.0}
        assert mai(*words(place, tmp_path / name, **more)).exit_code == 0
        states.append(torch.load(tmp_path / name / "last.pt", weights_only=True)["weights"])
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=2e-5), name


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def test_killed_and_resumed_ends_as_unbroken(place: Path, tmp_path: Path) -> None:
    frequent = {"run__checkpoint_minutes": 0.00001, "run__checkpointing": "true", "run__ema": 0.9,
                "run__batch_size": 2, "run__micro_batch": 0}  # fmt: skip
    assert mai(*words(place, tmp_path / "whole", **frequent)).exit_code == 0
    command = [sys.executable, "-m", "mai", *words(place, tmp_path / "cut", **frequent)]
    process = subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 180
    while not (tmp_path / "cut" / "last.pt").exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.stderr.read().decode() if process.stderr else ""
    at = torch.load(tmp_path / "cut" / "last.pt", weights_only=True)
    assert 0 < at["epoch"] * 8 + at["step"] < 16, "killed in the middle"
    with pytest.raises(TrainingError, match="holds a run already"):
        mai(*words(place, tmp_path / "cut", **frequent))
    with pytest.raises(TrainingError, match=r"adapter\.r was 16, is 8"):
        mai(*words(place, tmp_path / "cut", "--resume", adapter__r=8, **frequent))
    assert mai(*words(place, tmp_path / "cut", "--resume", **frequent)).exit_code == 0
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True) for name in ("whole", "cut")]
    for part in ("weights", "average"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name]), name
    assert states[0]["best"] == states[1]["best"]


def test_a_loss_that_is_no_number_stops_the_run(place: Path, tmp_path: Path) -> None:
    values = {"optimizer__lr": 1e30, "run__batch_size": 2, "run__checkpoint_minutes": 0.00001}
    with pytest.raises(TrainingError, match=r"The last good checkpoint is .*last\.pt.*Lower optimizer\.lr"):
        mai(*words(place, tmp_path / "run", **values))
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert all(bool(torch.isfinite(value).all()) for value in state["weights"].values())


def test_too_little_memory_says_what_to_lower(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mai.moondream.student import MoondreamStudent

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(MoondreamStudent, "forward", full)
    with pytest.raises(TrainingError, match=r"Lower run\.micro_batch \(now 4\).*checkpointing=true"):
        mai(*words(place, tmp_path / "run"))


def test_pictures_that_cannot_be_read_are_skipped_counted_named(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "set", tmp_path / "set")
    shutil.copytree(place / "base", tmp_path / "base")
    bad = tmp_path / "set" / "train" / "fake" / "1.jpg"
    bad.write_bytes(bad.read_bytes()[:400])
    done = mai(*words(tmp_path, tmp_path / "run", run__epochs=3, data__source_power=0.0))
    assert done.exit_code == 0
    assert f"skipped, with the other of its unit: {bad}" in done.stderr
    assert done.stderr.count("skipped, with") == 1
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["n_broken"] == 1
    assert list(told["broken"]) == [str(bad)]
    assert (tmp_path / "run" / "metrics.csv").read_text().strip().splitlines()[-1].split(",")[9] == "1"


def test_a_small_model_from_scratch_goes_all_the_way(place: Path, tmp_path: Path) -> None:
    sizes = {"sizes__vision__n_layers": 1, "sizes__vision__dim": 64, "sizes__vision__ff_dim": 96,
             "sizes__vision__n_heads": 2, "sizes__text__n_layers": 1, "run__validation_pictures": 0}  # fmt: skip
    command = words(place, tmp_path / "run", recipe="tiny", **sizes, run__epochs=6, data__size_px=80)
    command = [word for word in command if "base.source" not in word]
    command = [w for i, w in enumerate(command) if not (w == "--set" and command[i + 1 : i + 2] == ["--set"])]
    assert mai(*command).exit_code == 0
    folder = tmp_path / "weights"
    done = mai(
        "export", "moondream", str(tmp_path / "run"), "--data", str(place / "set"), "--output", str(folder)
    )
    assert done.exit_code == 0, done.output
    assert {p.name for p in folder.iterdir()} == {
        "model.safetensors", "tokenizer.json", "mai.json", "config.json", "README.md",
    }  # fmt: skip
    assert "A proof of the road, not of Moondream" in (folder / "README.md").read_text()
    shutil.rmtree(tmp_path / "run")  # nothing outside the folder is needed
    views = np.stack([draw(50 + i, bool(i % 2))[:160, :160][::2, ::2] for i in range(8)])
    logits = TorchSession(weights_room.load(folder)).logits(views)
    assert logits[1::2].mean() > logits[::2].mean(), "it learnt to tell the two kinds of drawing apart"
    with pytest.raises(WeightsError, match="no adapter to merge"):
        merge(weights_room.load(folder), tmp_path / "x")


def test_another_model_from_pictures_to_a_verdict(place: Path, tmp_path: Path) -> None:
    """The same commands with a model of transformers."""
    import small_vlms

    small_vlms.build(tmp_path / "base", "qwen3_vl")
    shutil.copytree(place / "set", tmp_path / "set")
    values = {"base__back_end": "transformers", "data__size_px": 56, "run__epochs": 1, "adapter__profile": "vision",
              "run__checkpointing": "true"}  # fmt: skip
    assert mai(*words(tmp_path, tmp_path / "run", **values)).exit_code == 0
    folder = tmp_path / "adapter"
    done = mai(
        "export", "moondream", str(tmp_path / "run"), "--data", str(place / "set"), "--output", str(folder)
    )
    assert done.exit_code == 0, done.output
    assert "a qwen3_vl" in (folder / "README.md").read_text()
    Pil.fromarray(draw(5, True)).save(tmp_path / "one.png")
    done = mai("scan", str(tmp_path / "one.png"), "--detectors", "moondream", "--weights", str(folder), "--jsonl",
               "--no-cache", "--workers", "1")  # fmt: skip
    assert json.loads(done.stdout.strip().splitlines()[-1])["evidence"][0]["status"] == "ok"
    done = mai("weights", "merge", str(folder), str(tmp_path / "merged"), "--dtype", "fp32")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "merged" / "model.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_share_every_batch(place: Path, tmp_path: Path) -> None:
    one = words(place, tmp_path / "one", run__micro_batch=0, run__epochs=1, adapter__dropout=0.0)
    assert mai(*one).exit_code == 0
    two = words(place, tmp_path / "two", run__micro_batch=0, run__epochs=1, adapter__dropout=0.0)
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2",
              "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
              "-m", "mai", *two]  # fmt: skip
    done = subprocess.run(launch, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    states = [
        torch.load(tmp_path / name / "last.pt", weights_only=True)["weights"] for name in ("one", "two")
    ]
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], atol=2e-5), name
