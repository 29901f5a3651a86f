"""train -> export -> adapt -> scan, as a person with a few dozen pictures runs them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_pictures import draw, make_set
from PIL import Image as Pil

pytest.importorskip("scipy", reason="adapting needs the extra 'train'")
pytest.importorskip("onnx", reason="adapting needs the extra 'train'")

from mai.data.sources import read_set
from mai.images.views import ViewPlan, native_views, whole_views
from mai.measure.calibrate import fit_platt
from mai.pixel import adapt, memory
from mai.pixel.head import Head, picture_feature
from mai.pixel.train import remember
from mai.weights import load
from mai.weights.session import Session

Mai = Callable[..., Any]


@pytest.fixture(scope="module")
def home() -> Path:
    """The shipped weights."""
    return load("pixel").folder


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    return tmp_path


def greenish(seed: int) -> Pil.Image:
    """A generator that the set does not have: authentic hues, a green cast and coarse stripes."""
    pixels = draw(seed, synthetic=False).astype(np.float64)
    pixels[..., 1] += 40
    pixels += 25 * (np.arange(pixels.shape[1]) // 6 % 2)[None, :, None]
    return Pil.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def test_the_head_read_from_onnx_is_the_head(home: Path) -> None:
    """features . weight + bias is the network's logit, and so is a picture's; other numbers give other logits."""
    weights = load(home)
    plan = ViewPlan(**weights.preprocessing)
    head, session = Head(weights.model_bytes()), Session(weights)
    pixels = draw(77, synthetic=True)
    whole, native = whole_views(pixels, plan), native_views(pixels, plan)
    run = head.features()
    logits = [session.logits(np.stack(views)) if views else np.zeros(0) for views in (whole, native)]
    for views, wanted in zip((whole, native), logits, strict=True):
        if not views:  # the plan may have one kind alone
            continue
        features = run(np.stack(views))
        assert features.shape == (len(views), len(head.weight))
        assert features @ head.weight + head.bias == pytest.approx(wanted, abs=2e-4)
    feature = picture_feature(run, whole, native, plan)
    assert feature @ head.weight + head.bias == pytest.approx(plan.combine(*logits), abs=2e-4)

    import onnxruntime as ort

    changed = ort.InferenceSession(
        head.with_numbers(-2 * head.weight, 0.5), providers=["CPUExecutionProvider"]
    )
    got = changed.run(["logit"], {"views": np.stack(whole)})[0]
    assert got == pytest.approx(-2 * (logits[0] - head.bias) + 0.5, abs=5e-3)  # kernels are stored as fp16


def test_memory_is_what_was_calibrated_on(home: Path) -> None:
    weights = load(home)
    kept = memory.read(home)["calibration"]
    n_synthetic = int(kept.labels.sum())
    head = Head(weights.model_bytes())
    logits = kept.features @ head.weight + head.bias
    fitted = fit_platt(logits, kept.labels)
    assert fitted.slope == pytest.approx(weights.calibration.slope, rel=0.05)  # a byte a number
    assert fitted.offset == pytest.approx(weights.calibration.offset, abs=0.1)
    assert 0 < n_synthetic < len(kept.labels)
    assert (home / memory.FILE).stat().st_size < 4_000_000


def test_memory_is_made_of_a_set(home: Path, tmp_path: Path) -> None:
    make_set(tmp_path / "set", {"train": 3, "calibration": 4})
    for name in ("model.onnx", "config.json"):
        shutil.copy(home / name, tmp_path)
    weights = load(tmp_path)
    remember(weights, read_set(tmp_path / "set"))
    kept = memory.read(tmp_path)
    assert kept["train"].labels.tolist().count(1) == 3
    assert sorted(kept["calibration"].labels.tolist()) == [0] * 4 + [1] * 4
    assert kept["train"].features.shape == (6, len(Head(weights.model_bytes()).weight))


def test_without_training_pictures_there_is_no_memory(home: Path, tmp_path: Path) -> None:
    """As in `mai bench leave-out pixel`, which exports with the calibration split alone."""
    make_set(tmp_path / "set", {"calibration": 4})
    for name in ("model.onnx", "config.json"):
        shutil.copy(home / name, tmp_path)
    remember(load(tmp_path), read_set(tmp_path / "set"))
    assert not (tmp_path / memory.FILE).exists()


def test_adapting_finds_the_new_generator_and_keeps_the_old(home: Path, at_home: Path, mai: Mai) -> None:
    """The shipped weights, two dozen pictures of a generator that nobody has."""
    for name, first in (("new", 0), ("unseen", 500)):
        (at_home / name / "synthetic").mkdir(parents=True, exist_ok=True)
        for i in range(24):
            greenish(9000 + first + i).save(at_home / name / "synthetic" / f"{i}.jpg", quality=75 + i)
    ran = mai("adapt", "pixel", "--data", "new", "--weights", home, "--output", "tuned", "--json")
    assert ran.code == 0, ran.err
    figures = json.loads(ran.out)
    assert figures["after"]["new_caught"] > figures["before"]["new_caught"]
    assert figures["after"]["known_auroc"] >= figures["before"]["known_auroc"] - 0.01
    assert figures["after"]["known_recall"] >= figures["before"]["known_recall"] - 0.02

    def called(weights: Path, place: str) -> int:
        out = mai("scan", place, "--weights", weights, "--detectors", "pixel", "--jsonl", "--no-cache").out
        return sum(json.loads(line)["label"] == "synthetic" for line in out.splitlines())

    assert called(at_home / "tuned", "unseen") > called(home, "unseen"), "pictures that the head never saw"
    assert json.loads((at_home / "tuned/config.json").read_text())["name"] == f"{load(home).name}_adapted"
    again = mai("adapt", "pixel", "--data", "new/synthetic", "--label", "synthetic", "--weights", "tuned",
                "--output", "tuned")  # fmt: skip
    assert again.code in (0, 1), again.err  # in place, from its own result: another step or nothing to gain
    assert "your synthetic pictures (cross-validated)" in again.out


def test_wrong_use_is_told(home: Path, at_home: Path, mai: Mai) -> None:
    few = at_home / "few" / "synthetic"
    few.mkdir(parents=True, exist_ok=True)
    for i in range(3):
        greenish(i).save(few / f"{i}.png")
    ran = mai("adapt", "pixel", "--data", "few", "--weights", home)
    assert (ran.code, "3 pictures can be read; adapting needs at least 8" in ran.err) == (1, True), ran.err
    shutil.copytree(home, at_home / "bare", dirs_exist_ok=True)
    (at_home / "bare" / memory.FILE).unlink()
    ran = mai("adapt", "pixel", "--data", "few", "--weights", "bare")
    assert (ran.code, "bare has no memory.npz" in ran.err) == (1, True), ran.err
    (at_home / "bare" / memory.FILE).write_bytes(b"no archive")
    ran = mai("adapt", "pixel", "--data", "few", "--weights", "bare")
    assert (ran.code, "memory.npz cannot be read" in ran.err) == (1, True), ran.err


def test_a_strength_of_zero_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    x, memory_features = rng.normal(size=(20, 5)), rng.normal(size=(40, 5))
    y, weight = (rng.random(20) < 0.5).astype(float), rng.normal(size=5)
    fitter = adapt.Fitter(x, y, memory_features, weight, 0.3)
    assert fitter.fit(np.ones(20, bool), 0.0) == (weight, 0.3)
    moved, bias = fitter.fit(np.ones(20, bool), 10.0)
    z, old = x @ moved + bias, x @ weight + 0.3
    assert np.logaddexp(0, z * (1 - 2 * y)).mean() < np.logaddexp(0, old * (1 - 2 * y)).mean()


@pytest.mark.parametrize("n", [12, 60])
def test_the_head_is_the_minimum_of_what_is_told(n: int) -> None:
    """Fewer rows than features and more: the sum at the head of adapt.py, minimised as it stands there."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    x, held, weight = rng.normal(size=(n, 30)), rng.normal(size=(50, 30)), rng.normal(size=30)
    x[1] = x[0]  # the same picture twice
    y, chosen, strength = (np.arange(n) % 3 == 0).astype(float), np.arange(n) % 4 > 0, 3.0
    one, m = np.hstack([x, np.ones((n, 1))])[chosen], np.hstack([held, np.ones((50, 1))])
    share = strength / np.where(y == 1, (y[chosen] == 1).sum(), (y[chosen] == 0).sum())[chosen] / 2

    def loss(change: np.ndarray) -> float:
        z = one @ (np.append(weight, 0.3) + change)
        new = share @ (np.logaddexp(0, z) - y[chosen] * z)
        return float(new + ((m @ change) ** 2).mean() / 2 + adapt.RIDGE * change @ change / 2)

    moved, bias = adapt.Fitter(x, y, held, weight, 0.3).fit(chosen, strength)
    found = np.append(moved - weight, bias - 0.3)
    wanted = minimize(loss, np.zeros(31), options={"gtol": 1e-8})
    assert loss(found) <= wanted.fun + 1e-6
    assert found == pytest.approx(wanted.x, abs=2e-3)
