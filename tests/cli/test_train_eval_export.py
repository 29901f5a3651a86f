"""train -> export -> scan -> eval on a small set, as a person runs them; and what is said where a piece is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled_pictures import make_set

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")

Mai = Callable[..., Any]
"""The fixture of conftest.py: arguments -> code, out, err."""

KEYS = ("run.epochs=2", "run.batch_size=4", "run.ema=0.5", "run.layout=contiguous", "run.precision=fp32")
SETTINGS = (*(word for key in KEYS for word in ("--set", key)), "--workers", "0", "--threads", "1")
TRAIN = ("train", "resnet", "--data", "set")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("road")
    make_set(place / "set", {"train": 16, "validation": 6, "calibration": 30})
    (place / "set" / "validation" / "fake" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    return place


@pytest.fixture
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MAI_CACHE", str(folder / "cache"))
    return folder


def test_the_road_from_pictures_to_a_verdict(at_home: Path, mai: Mai) -> None:
    trained = mai("train", "resnet", "--data", "set", *SETTINGS)
    assert trained.code == 0, trained.err
    assert "Next: mai export resnet runs/resnet --data set" in trained.out
    assert "left out: " in trained.err
    assert "broken.jpg" in trained.err
    run = json.loads((at_home / "runs/resnet/run.json").read_text())
    assert run["n_broken"] == 1
    assert run["versions"].keys() == {"mai", "python", "torch", "numpy"}
    assert run["recipe"]["run"]["epochs"] == 2
    for name in ("curves.png", "scores.png"):
        assert (at_home / "runs/resnet" / name).stat().st_size > 10_000

    exported = mai("export", "resnet", "runs/resnet", "--data", "set")
    assert exported.code == 0, exported.err
    home = at_home / "runs/resnet/resnet_v1_0"
    assert {path.name for path in home.iterdir()} == {"model.onnx", "config.json", "README.md", "average.pt"}
    card = json.loads((home / "config.json").read_text())
    assert card["onnx_difference"] <= 1e-4
    assert card["trained"]["fingerprint"] == run["fingerprint"]
    assert card["measured"]["aligned"]["n_broken"] == 1
    assert card["thresholds"]["n_authentic"] == 30
    text = (home / "README.md").read_text()
    assert "balanced accuracy at the fixed threshold" in text
    assert str(at_home) not in text + (home / "config.json").read_text(), (
        "no path of this machine on the card"
    )

    scanned = mai("scan", "set/validation/real", "set/validation/fake", "--jsonl", "--detectors", "resnet",
                  "--weights", home, "--workers", "1")  # fmt: skip
    assert scanned.code == 1, "one picture is broken"
    rows = [json.loads(line) for line in scanned.out.splitlines()]
    assert len(rows) == 13
    broken = [row for row in rows if row["status"] != "ok"]
    assert [Path(row["path"]).name for row in broken] == ["broken.jpg"]
    scores = [
        [row["score"] for row in rows if word in row["path"] and row not in broken]
        for word in ("real", "fake")
    ]
    assert np.mean(scores[0]) < np.mean(scores[1]), (
        "blue waves and red checks are told apart after two epochs"
    )

    measured = mai("eval", home, "--data", "set", "--json", "--output", "figures")
    assert measured.code == 0, measured.err
    result = json.loads(measured.out)
    assert result == json.loads((at_home / "figures/eval.json").read_text())
    assert result["split"] == "validation"
    assert result["aligned"] == card["measured"]["aligned"], "the card's figures come out again"


def test_scan_eval_and_pytorch_see_the_same_views(at_home: Path) -> None:
    from mai import config
    from mai.data.sources import read_set
    from mai.data.store import decode_row
    from mai.detectors.base import DetectorSettings, load
    from mai.images.views import native_views, whole_views
    from mai.training import architectures, checkpoint, evaluation, start
    from mai.training.onnx_export import shipped_form
    from mai.training.recipe import Recipe
    from mai.training.shipping import session_logits
    from mai.types import Image, ImageInfo
    from mai.weights import load as load_weights

    home = at_home / "runs/resnet/resnet_v1_0"
    if not home.exists():
        pytest.skip("the road before this test did not end")
    weights = load_weights(home)
    detector = load("resnet", DetectorSettings(home))
    plan = detector.plan  # type: ignore[attr-defined]
    state = checkpoint.load(at_home / "runs/resnet/best.pt")
    model = architectures.load("resnet").build(config.build(Recipe, state["recipe"]))
    start.fill(model, state["average"], "best.pt")
    shipped = shipped_form(model)
    rows = read_set("set").select(split="calibration").rows[::10]
    scored = evaluation.score_rows(rows, session_logits(weights, 1), plan, "native", quiet=True)
    for row, picture, logit in zip(rows, scored.pictures, scored.logits(plan), strict=True):
        pixels = decode_row(row)
        info = ImageInfo("JPEG", pixels.shape[1], pixels.shape[0], None, "")
        evidence = detector.look([Image(row.file, info, None, pixels)])[0]
        assert evidence.logit == pytest.approx(logit, abs=2e-6)
        with torch.inference_mode():
            whole, native = (
                shipped(torch.from_numpy(np.stack(views))).numpy()
                for views in (whole_views(pixels, plan), native_views(pixels, plan))
            )
        assert np.abs(whole - picture.whole).max() <= 1e-4
        assert np.abs(native - picture.native).max() <= 1e-4


def test_a_folder_without_splits_is_split_the_same_way_each_time(at_home: Path, mai: Mai) -> None:
    """Trained with another seed, exported and measured without naming it: nothing learnt from is measured."""
    from mai.data.sources import read_set
    from mai.data.split import assign_splits

    make_set(at_home / "plain", {"all": 24})
    trained = mai("train", "resnet", "--data", "plain", "--output", "run3", *SETTINGS, "--set", "run.seed=3")
    assert trained.code == 0, trained.err
    exported = mai("export", "resnet", "run3", "--data", "plain", "--version", "1.2")
    assert exported.code == 0, exported.err
    for wrong in ("fast", "resnet_", "resnet_v2", "resnet_../up", "resnet-fast"):
        refused = mai("export", "resnet", "run3", "--data", "plain", "--name", wrong)
        assert refused.code == 2
        assert f"not '{wrong}'" in refused.err
    card = json.loads((at_home / "run3/resnet_v1_2/config.json").read_text())
    third = assign_splits(read_set("plain"), seed=3)
    assert card["trained"]["fingerprint"] == third.fingerprint == card["measured"]["fingerprint"]
    table = mai("eval", at_home / "run3/resnet_v1_2", "--data", "plain", "--output", "figures3")
    assert "resnet_v1_2 on plain, split validation" in table.out
    measured = json.loads((at_home / "figures3/eval.json").read_text())
    assert measured["split"] == "validation"
    assert measured["fingerprint"] == third.fingerprint
    n = third.select(split="validation").counts()
    assert measured["aligned"]["n_synthetic"] == n["synthetic"] < 24


def test_exports_the_average_of_two_runs(at_home: Path, mai: Mai) -> None:
    for seed in (5, 6):
        trained = mai("train", "resnet", "--data", "set", "--output", f"run{seed}", *SETTINGS,
                      "--set", f"run.seed={seed}", "--set", "init=runs/resnet/best.pt")  # fmt: skip
        assert trained.code == 0, trained.err
    exported = mai(
        "export", "resnet", "run5", "run6", "--data", "set", "--checkpoint", "last", "--output", "both"
    )
    assert exported.code == 0, exported.err
    card = json.loads((at_home / "both/config.json").read_text())
    assert [run["recipe"]["run"]["seed"] for run in card["trained"]["averaged"]] == [6]
    assert "30 authentic calibration pictures cannot tell a false-positive rate under" in exported.err
    assert "the average of 2 runs (2 and 2 epochs, seeds 5 and 6)" in (at_home / "both/README.md").read_text()
    apart = mai(
        "export", "resnet", "run5", "run6", "--data", "set", "--combine", "ensemble", "--output", "no"
    )
    assert (apart.code, "Networks of resnet cannot be joined" in apart.err) == (2, True), apart.err
    refused = mai("export", "resnet", "run5", "run3", "--data", "set", "--output", "no")
    assert (refused.code, "was trained on other data than run5" in refused.err) == (1, True)


def test_thresholds_rest_on_the_parts_that_runs_held_back(at_home: Path, mai: Mai) -> None:
    from mai.data.sources import read_set

    for fold in (0, 1):
        trained = mai("train", "resnet", "--data", "set", "--output", f"fold{fold}", *SETTINGS,
                      "--set", "data.n_folds=2", "--set", f"data.fold={fold}")  # fmt: skip
        assert trained.code == 0, trained.err
    exported = mai("export", "resnet", "fold0", "fold1", "--data", "set", "--output", "folds")
    assert exported.code == 0, exported.err
    card = json.loads((at_home / "folds/config.json").read_text())
    counts = [read_set("set").select(split=split).counts() for split in ("train", "calibration")]
    assert card["folds"]["n"] == counts[0]["synthetic"] + counts[0]["authentic"]
    assert card["thresholds"]["n_authentic"] == counts[0]["authentic"] + counts[1]["authentic"]
    assert "scored by a run that did not train on it" in card["thresholds"]["data"]
    twice = mai("export", "resnet", "fold0", "fold0", "--data", "set", "--output", "twice")
    assert (twice.code, "Give each run its own data.fold" in twice.err) == (1, True), twice.err


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("train", "resmet", "--data", "set"), 2, "no architecture named 'resmet'. Did you mean 'resnet'?"),
        (("train", "cli", "--data", "set"), 2, "no architecture named 'cli'"),
        (("train", "resnet", "--data", "nowhere"), 2, "There is no data at 'nowhere'"),
        (
            ("train", "resnet", "--data", "set", "--recipe", "bse"),
            2,
            "no recipe named 'bse'. Did you mean 'base'?",
        ),
        (
            ("train", "resnet", "--data", "set", "--set", "run.epoch=3"),
            2,
            "unknown key 'epoch'. Did you mean 'epochs'?",
        ),
        ((*TRAIN, "--set", "run.epochs=0"), 2, "epochs takes at least 1, not 0"),
        ((*TRAIN, "--set", "architecture=pixel"), 2, "The recipe is for 'pixel'"),
        ((*TRAIN, "--set", "run.precision=bf16"), 1, "only emulates"),
        (
            ("export", "resnet", ".", "--data", "set"),
            1,
            "There is no checkpoint best.pt: '.' is no run of mai train",
        ),
        (("eval", "resnet_v9_9", "--data", "set"), 2, "no weights named 'resnet_v9_9'"),
        (("eval", ".", "--data", "set"), 1, "'.' holds no weights: it has no config.json"),
    ],
)
def test_wrong_use_is_told(at_home: Path, mai: Mai, words: tuple[str, ...], code: int, sentence: str) -> None:
    from mai.training.device import may_bf16

    if "run.precision=bf16" in words and may_bf16("cpu"):
        pytest.skip("this processor has bf16")
    more = ("--output", "unused", "--workers", "0") if words[0] == "train" else ()
    ran = mai(*words, *more)
    assert (ran.code, sentence in ran.err) == (code, True), ran.err


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("torch", TRAIN),
        ("torch", ("export", "resnet", ".", "--data", "set")),
        ("sklearn", ("eval", "runs/resnet/resnet_v1_0", "--data", "set")),
        ("cv2", ("eval", "runs/resnet/resnet_v1_0", "--data", "set")),
    ],
)
def test_a_missing_extra_says_what_to_install(at_home: Path, package: str, words: tuple[str, ...]) -> None:
    if not (at_home / "runs/resnet/resnet_v1_0").exists():
        pytest.skip("the road before this test did not end")
    # None in sys.modules is what Python itself takes for a module that cannot be found.
    code = f"import sys; sys.modules[{package!r}] = None; from mai.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert f"needs the package '{package}'" in done.stderr
    assert "pip install 'mai-identifier[train]'" in done.stderr


def test_an_export_that_fails_leaves_no_weights(at_home: Path, mai: Mai) -> None:
    make_set(at_home / "half", {"train": 2, "validation": 2})
    failed = mai("export", "resnet", "runs/resnet", "--data", "half", "--output", "failed")
    assert failed.code == 1
    assert "half has no rows in split 'calibration'" in failed.err
    assert not (at_home / "failed").exists()
    assert not list(at_home.glob(".failed*"))


def test_a_run_that_cannot_be_exported_says_what_can(at_home: Path, mai: Mai) -> None:
    if not (at_home / "runs/resnet/last.pt").exists():
        pytest.skip("the road before this test did not end")
    foreign = mai("export", "pixel", "runs/resnet", "--data", "set", "--output", "foreign")
    assert foreign.code == 1
    assert "holds a run of 'resnet', not of 'pixel'. Run: mai export resnet runs/resnet" in foreign.err
    early = at_home / "early"
    early.mkdir()
    (early / "last.pt").write_bytes((at_home / "runs/resnet/last.pt").read_bytes())
    ran = mai("export", "resnet", "early", "--data", "set", "--output", "early/weights")
    assert ran.code == 1
    assert "There is no checkpoint early/best.pt; early holds last.pt. Take one of them" in ran.err
