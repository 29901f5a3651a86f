"""Published classifiers as detectors: labels, evidence, calibration, fusion; tiny ones are saved here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_runner import Ran, run_mai
from labelled_pictures import draw, make_set
from small_network import make_weights

pytest.importorskip("transformers", reason="hub classifiers need the extra 'vlm'")
import small_models
import torch

from mai.detectors import base
from mai.detectors._labels import side_of, sides_of
from mai.detectors.base import DetectorSettings
from mai.errors import UsageError, WeightsError
from mai.images import decode as decoding
from mai.pipeline import Scanner

Mai = Callable[..., Ran]
KINDS = [kind for kind in small_models.KINDS if kind != "dinov3"]  # DINOv3 is no classifier


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hub")
    make_set(place / "set", {"calibration": 30})
    small_models.save(place / "vit", "vit")
    teach(place / "vit")
    return place


@pytest.fixture
def at_home(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MAI_DATA", str(tmp_path / "data"))
    return folder


@pytest.fixture
def mai(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mai:
    return lambda *args: run_mai(monkeypatch, capsys, *args)


def pixels_of(seed: int, synthetic: bool) -> Any:
    return draw(seed, synthetic)


def teach(folder: Path) -> None:
    """Fit the classifier's last layer on drawn pictures, so that its answers mean something."""
    import transformers

    model = transformers.AutoModelForImageClassification.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    pictures = [(draw(5000 + i, bool(i % 2)), i % 2) for i in range(40)]
    batch = processor(images=[p for p, _ in pictures], return_tensors="pt")
    labels = torch.tensor([y for _, y in pictures])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    torch.manual_seed(0)
    for _ in range(40):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**batch).logits, labels).backward()
        optimizer.step()
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("label", "side"),
    [
        ("fake", 1), ("Real", 0), ("artificial", 1), ("human", 0), ("AI-generated", 1), ("ai_gen", 1), ("hum", 0),
        ("not_ai", 0), ("non-fake", 0), ("AiArt", 1), ("midjourney", 1), ("nature", 0), ("Realism", 0),
        ("LABEL_0", None), ("cat", None), ("AI human", None), ("maid", None), ("", None),
    ],
)  # fmt: skip
def test_words_of_labels(label: str, side: int | None) -> None:
    assert side_of(label) == side


def test_labels_that_do_not_say_are_listed() -> None:
    labels = {0: "real", 1: "sdxl", 2: "odd one", 3: "cat"}
    with pytest.raises(UsageError) as refused:
        sides_of(labels, (), "a/b")
    text = str(refused.value)
    assert "'real', 'sdxl', 'odd one', 'cat'" in text
    assert "'odd one', 'cat' do not say" in text
    assert "--synthetic-label cat" in text
    assert sides_of(labels, ("SDXL", "odd one"), "a/b") == {0: 0, 1: 1, 2: 1, 3: 0}
    with pytest.raises(UsageError, match=r"has no label 'dog'\. Its labels: 'real', 'sdxl'"):
        sides_of(labels, ("dog",), "a/b")
    with pytest.raises(UsageError, match="would mean synthetic"):
        sides_of({0: "fake", 1: "ai"}, (), "a/b")


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_classifier_answers(at_home: Path, tmp_path: Path, kind: str) -> None:
    import transformers

    place = small_models.save(tmp_path / kind, kind, labels=("human", "artificial", "sdxl"))
    detector = base.load(f"hub:{place}", DetectorSettings())
    assert detector.kind == "uncalibrated"
    pixels = draw(3, True)
    image = decoding.decode(decoding.from_bytes(png(pixels), "a.png"))
    evidence = detector.look([image])[0]
    assert evidence.status == "ok"
    assert evidence.score is None
    # The same by hand, with transformers alone.
    model = transformers.AutoModelForImageClassification.from_pretrained(place).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(place, backend="pil")
    with torch.inference_mode():
        logits = model(**processor(images=image.pixels, return_tensors="pt")).logits[0].double()
    wanted = float(torch.logsumexp(logits[1:], 0) - logits[0])
    assert evidence.logit == pytest.approx(wanted, abs=1e-4)
    assert set(evidence.details["labels"]) == {"human", "artificial", "sdxl"}


def png(pixels: Any) -> bytes:
    import io

    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_uncalibrated_it_is_shown_and_not_weighed(at_home: Path, mai: Mai) -> None:
    ran = mai("scan", "set/calibration/fake/0.png", "--jsonl", "--detectors", "hub:vit", "--workers", "1")
    assert ran.code == 0, ran.err
    row = json.loads(ran.out)
    assert (row["label"], row["reason"], row["score"]) == ("inconclusive", "low_evidence", None)
    (evidence,) = row["evidence"]
    assert evidence["detector"] == "hub:vit"
    assert evidence["weights"].startswith("vit@")
    assert "Shown, not weighed: run `mai calibrate hub:vit --data DATA`" in evidence["note"]
    refused = mai("scan", "set", "--detectors", "hub:vit", "--fpr", "0.05")
    assert (refused.code, "no network is among" in refused.err) == (2, True)


def test_calibrated_it_decides_like_a_network(at_home: Path, mai: Mai) -> None:
    done = mai("calibrate", "hub:vit", "--data", "set", "--with", "")
    assert done.code == 0, done.err
    assert "hub:vit: AUROC" in done.out
    assert "on 30 synthetic and 30 authentic pictures" in done.out
    assert "calibration split, aligned protocol, 60 sources" in done.out
    ran = mai("scan", "set", "--jsonl", "--detectors", "hub:vit", "--workers", "1")
    assert ran.code == 0, ran.err
    rows = [json.loads(line) for line in ran.out.splitlines()]
    scores = {name: [r["score"] for r in rows if f"/{name}/" in r["path"]] for name in ("real", "fake")}
    assert np.mean(scores["fake"]) > 0.6
    assert np.mean(scores["real"]) < 0.4
    assert {"synthetic", "authentic"} <= {row["label"] for row in rows}
    assert rows[0]["thresholds"]["fpr"] > 0.01, "thirty pictures cannot tell 1 in 100"
    # The same numbers under another name are the same weights; other labels are not.
    shutil.copytree(at_home / "vit", at_home / "copy", dirs_exist_ok=True)
    assert Scanner(["hub:copy"]).weights["hub:copy"].table == Scanner(["hub:vit"]).weights["hub:vit"].table
    turned = Scanner(["hub:vit"], synthetic_labels=["real"])
    assert not turned.weights
    wrong = mai("calibrate", "hub:vit", "--data", "set", "--with", "", "--synthetic-label", "real")
    assert wrong.code == 1
    assert "does not rise with the label" in wrong.err


def test_it_is_weighed_beside_another_network(at_home: Path, mai: Mai, tmp_path: Path) -> None:
    from mai import weights as weights_on_disk

    if "pixel" not in weights_on_disk.families():
        pytest.skip("no shipped network to weigh it beside")
    done = mai("calibrate", "hub:vit", "--data", "set")
    assert done.code == 0, done.err
    assert "pixel + hub:vit: AUROC" in done.out
    both = Scanner(["pixel", "hub:vit"])
    if "adds nothing" in done.out:
        assert not both.fusions
        return
    record = both.scan("set/calibration/fake/0.png")
    logits = {e.weights: e.logit for e in record.evidence}
    fusion = json.loads((Path(os.environ["MAI_DATA"]) / "fusion.json").read_text())
    (entry,) = fusion.values()
    z = entry["offset"] + sum(entry["coefficients"][name] * logits[name] for name in entry["coefficients"])
    assert record.score == pytest.approx(1 / (1 + np.exp(-z)), abs=1e-6)
    assert "cross-fitted by source" in both.measured.table.data  # type: ignore[union-attr]


def test_a_network_is_calibrated_into_a_copy(at_home: Path, mai: Mai, tmp_path: Path) -> None:
    home = make_weights(tmp_path / "w", "resnet")
    done = mai("calibrate", home, "--data", "set", "--output", tmp_path / "own")
    assert done.code == 0, done.err
    before, after = (json.loads((place / "config.json").read_text()) for place in (home, tmp_path / "own"))
    assert after["sha256"] == before["sha256"]
    assert after["thresholds"]["data"].startswith("set, calibration split")
    assert after["calibration"] != before["calibration"]
    again = mai("calibrate", home, "--data", "set", "--output", tmp_path / "own")
    assert (again.code, "exists" in again.err) == (2, True)


def test_a_set_without_pictures_to_calibrate_on_is_refused(at_home: Path, mai: Mai, tmp_path: Path) -> None:
    make_set(tmp_path / "other", {"train": 2, "validation": 2})
    ran = mai("calibrate", "hub:vit", "--data", tmp_path / "other")
    assert ran.code == 2
    assert "has splits and none is 'calibration'" in ran.err


def broken_copy(at_home: Path, tmp_path: Path, how: str) -> Path:
    place = tmp_path / "broken"
    shutil.copytree(at_home / "vit", place)
    weights = place / "model.safetensors"
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "no weights":
        weights.unlink()
    elif how == "shard":
        index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
        weights.unlink()
        (place / "model.safetensors.index.json").write_text(json.dumps(index))
    elif how == "no config":
        (place / "config.json").unlink()
    elif how == "backbone":
        from safetensors.torch import load_file, save_file

        kept = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier")}
        save_file(kept, weights, {"format": "pt"})
    return place


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("cut", "damaged or a partial download"),
        ("no weights", "holds no weights"),
        ("shard", "partial download: model-00001-of-00002.safetensors missing"),
        ("no config", "holds no config.json"),
        ("backbone", "lacks 2 of the network's weights, the first is 'classifier.bias'"),
    ],
)
def test_a_folder_that_is_not_whole_is_told(
    at_home: Path, mai: Mai, tmp_path: Path, how: str, sentence: str
) -> None:
    ran = mai("scan", "set", "--detectors", f"hub:{broken_copy(at_home, tmp_path, how)}")
    assert (ran.code, sentence in ran.err) == (1, True), ran.err


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does where a repository is gated, absent, or breaks off."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        code, error = (403, "GatedRepo") if "gated" in self.path else (404, "RepoNotFound")
        if "refused" in self.path:
            code, error = 401, "RepoNotFound"
        self.send_response(code)
        self.send_header("X-Error-Code", error)
        self.send_header("X-Error-Message", "no")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


SCRIPT = """
import sys
from mai.detectors import base
from mai.errors import MaiError
for name in sys.argv[1:]:
    try:
        base.load(name)
    except MaiError as error:
        print(type(error).__name__, error)
"""


def ask_hub(tmp_path: Path, *names: str, **environment: str) -> list[str]:
    """What is said of each name in a process of its own: the hub's library reads its settings when it is loaded."""
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DOWNLOAD_TIMEOUT": "3", **environment}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        capture_output=True,
        text=True,
        env=env,
        timeout=300,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines()


def test_gated_and_absent_repositories_are_told(hub: str, tmp_path: Path) -> None:
    gated, absent, refused = ask_hub(
        tmp_path, "hub:org/gated", "hub:org/absent", "hub:org/refused", HF_ENDPOINT=hub
    )
    assert "WeightsError 'org/gated' is gated: accept its terms" in gated
    assert "hf auth login" in gated
    for said in (absent, refused):
        assert "The hub has no model 'org/a" in said or "The hub has no model 'org/r" in said
        assert "it is private" in said


def test_no_network_and_offline_are_told(tmp_path: Path) -> None:
    (closed,) = ask_hub(tmp_path, "hub:org/name", HF_ENDPOINT="http://127.0.0.1:9")
    assert closed.startswith("WeightsError 'org/name' is not on this machine and the hub cannot be reached.")
    (offline,) = ask_hub(tmp_path, "hub:org/name", HF_HUB_OFFLINE="1")
    assert offline.startswith("WeightsError 'org/name' is not on this machine and HF_HUB_OFFLINE is set.")


def test_the_benchmark_asks_it_as_a_scan_does(at_home: Path, mai: Mai) -> None:
    from mai.bench import scorers

    bare = scorers.load("hub:vit")
    assert (bare.threshold, bare.authentic) == (0.5, None)
    assert mai("calibrate", "hub:vit", "--data", "set", "--with", "").code == 0
    own = scorers.load("hub:vit")
    assert own.key != bare.key
    scanner = Scanner(["hub:vit"])
    image = decoding.decode(
        decoding.from_bytes((at_home / "set/calibration/fake/0.png").read_bytes(), "0.png")
    )
    assert image.pixels is not None
    assert own.raw(image.pixels, None) == pytest.approx(
        scanner.scan("set/calibration/fake/0.png").score, abs=1e-5
    )
    assert scanner.thresholds is not None
    assert own.threshold == scanner.thresholds.synthetic


def test_a_model_with_code_of_its_own_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked: whoever pipes `yes` into a scan has not said that he trusts a stranger's code."""
    place = shutil.copytree(folder / "vit", tmp_path / "code")
    config = json.loads((place / "config.json").read_text())
    code = {"AutoConfig": "code.Config", "AutoModelForImageClassification": "code.Model"}
    (place / "config.json").write_text(json.dumps({**config, "model_type": "code", "auto_map": code}))
    (place / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(WeightsError, match="custom code"):
        base.load(f"hub:{place}", DetectorSettings())
    assert not (tmp_path / "ran").exists()
