"""`mai bench` on real files: figures, cache, kill -9, other people's detectors, sets that cannot be measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from click.testing import CliRunner
from labelled_pictures import make_set
from PIL import Image as Pil

pytest.importorskip("cv2", reason="the benchmark needs the extra 'bench'")
pytest.importorskip("sklearn", reason="the benchmark needs the extra 'bench'")

from mai.bench import sets
from mai.cli import group
from mai.errors import DataError, MaiError

REDNESS = """
import numpy as np
def redness(pixels):
    return float(1 / (1 + np.exp(-(pixels[..., 0].mean() - pixels[..., 2].mean()) / 10)))
def nothing(pixels):
    return float("nan")
"""
PROGRAM = """
import sys
from PIL import Image
for line in sys.stdin:
    path = line.rstrip("\\n")
    r, _, b = Image.open(path).convert("RGB").resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    print(f"{path}\\t{0.5 + (r - b) / 512}")
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "mine.py").write_text(REDNESS)
    (tmp_path / "program.py").write_text(PROGRAM)
    return make_set(tmp_path / "set", {"validation": 12})


def bench(*args: str | Path) -> dict:
    done = CliRunner().invoke(
        group, ["bench", "run", "--json", "--draws", "40", "--workers", "1", *map(str, args)]
    )
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def cell(report: dict, detector: str, protocol: str, perturbation: str = "none") -> dict:
    return next(
        c for c in report["detectors"][detector]["cells"]
        if (c["protocol"], c["perturbation"]) == (protocol, perturbation)
    )  # fmt: skip


def test_a_good_detector_measures_well_and_a_second_run_measures_nothing(data: Path, tmp_path: Path) -> None:
    args = ("--data", data, "--detectors", "python:mine:redness,pixel", "--sweep", "jpeg-50,blur-1",
            "--output", tmp_path / "out")  # fmt: skip
    report = bench(*args)
    for protocol in ("native", "aligned"):
        own = cell(report, "redness", protocol)
        assert own["auroc"][0] == 1.0
        assert own["n_synthetic"] == own["n_authentic"] == 12
        assert own["within_floor"] in (True, False)
        assert 0 <= cell(report, "pixel", protocol)["auroc"][0] <= 1
    assert cell(report, "redness", "aligned", "jpeg-50")["stability"]["flipped"][0] == 0
    assert report["n_measured"] == 24 * 4 * 2
    assert set(report["generator_map"]) == {"redness", "pixel"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Content-Security-Policy" in page
    assert page.count("data:image/png") >= 4
    assert "<script src" not in page
    assert "| AUROC |" in (tmp_path / "out" / "report.md").read_text()
    schema = json.loads((Path(sets.__file__).parent / "report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((tmp_path / "out" / "report.json").read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**report, "surprise": 1}, schema)
    assert page.count('alt="heat map"') >= 12, "pixel draws one for each picture that is shown"
    jpeg = cell(report, "pixel", "aligned", "jpeg-50")
    assert set(jpeg["floors"]) == {"metadata", "sharpness", "sources"} or "sources" in jpeg["floors"]
    assert jpeg["within_floor"] in (True, False)
    from mai.bench import run

    def never(*_: object) -> None:
        raise AssertionError("a repeated run decodes nothing, not for its floors either")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "work", never)
        again = bench(*args[:-2])
    assert again["n_measured"] == 0
    assert again["scores"] == report["scores"]
    other = CliRunner().invoke(group, ["bench", "compare", *[str(tmp_path / "out" / "report.json")] * 2])
    assert other.exit_code == 0
    assert "no difference shown" in other.output
    assert "better" not in other.output


def test_another_program_is_measured_like_our_own(data: Path, tmp_path: Path) -> None:
    command = f"{sys.executable} {tmp_path / 'program.py'}"
    report = bench("--data", data, "--detectors", "python:mine:redness", "--external", f"peer={command}",
                   "--threshold", "peer=0.6", "--protocols", "aligned")  # fmt: skip
    assert cell(report, "peer", "aligned")["auroc"][0] == 1.0
    assert cell(report, "peer", "aligned")["threshold"] == 0.6
    assert cell(report, "peer", "aligned")["cpu_seconds_per_file"] > 0
    with pytest.raises(MaiError, match="exit code 3"):
        bench("--data", data, "--external", f"bad={sys.executable} -c 'raise SystemExit(3)'")
    with pytest.raises(MaiError, match="answered for none"):
        bench("--data", data, "--external", f"mute={sys.executable} -c pass")


def test_an_onnx_file_with_its_preparation(data: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weight = onnx.numpy_helper.from_array(np.array([[8.0], [0.0], [-8.0]], np.float32), "w")
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        onnx.helper.make_node("Flatten", ["p"], ["f"]),
        onnx.helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    made = onnx.helper.make_graph(
        nodes, "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 64, 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1])], [weight],
    )  # fmt: skip
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "peer.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(MaiError, match=r"peer\.toml"):
        bench("--data", data, "--detectors", f"onnx:{tmp_path / 'peer.onnx'}")
    (tmp_path / "peer.toml").write_text("size_px = 64\n")
    report = bench("--data", data, "--detectors", f"onnx:{tmp_path / 'peer.onnx'}", "--protocols", "native")
    assert cell(report, "peer", "native")["auroc"][0] == 1.0


def test_a_transformers_classifier_of_a_folder(data: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=16, patch_size=8,
        id2label={0: "human", 1: "artificial"}, label2id={"human": 0, "artificial": 1},
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "tiny")
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(tmp_path / "tiny")
    spec = f"transformers:{tmp_path / 'tiny'}"
    report = bench("--data", data, "--detectors", spec, "--protocols", "native", "--no-floors")
    assert cell(report, "tiny", "native")["n_synthetic"] == 12
    assert all(0 < score < 1 for score in report["scores"]["native"]["tiny"]["scores"])
    key = report["detectors"]["tiny"]["key"]
    torch.manual_seed(1)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "tiny")
    again = bench("--data", data, "--detectors", spec, "--protocols", "native", "--no-floors")
    assert again["detectors"]["tiny"]["key"] != key, "other weights in the same folder are measured anew"
    assert again["n_measured"] == 24


def test_one_version_of_shipped_weights_is_a_network_too() -> None:
    from mai.bench import scorers
    from mai.weights import available, families

    for name in [*available(), *families()]:
        loaded = scorers.load(name)
        assert isinstance(loaded, scorers.NetworkScorer)
        assert loaded.weights.name.startswith(name)


def test_labels_of_others_are_mapped_by_their_words() -> None:
    from mai.bench.scorers import synthetic_label

    assert synthetic_label({0: "Real", 1: "Fake"}) == 1
    assert synthetic_label({0: "ai-generated", 1: "human"}) == 0
    for labels in ({0: "LABEL_0", 1: "LABEL_1"}, {0: "fake", 1: "deepfake"}):
        with pytest.raises(MaiError, match="mean synthetic"):
            synthetic_label(labels)


def test_sets_that_cannot_be_measured_say_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gave nan"):
        bench("--data", data, "--detectors", "python:mine:nothing")
    with pytest.raises(MaiError, match="gives statements, not scores"):
        bench("--data", data, "--detectors", "metadata")
    with pytest.raises(MaiError, match=r"no network named 'pixle'.*Known: .*pixel"):
        bench("--data", data, "--detectors", "pixle")
    with pytest.raises(MaiError, match="cannot be imported"):
        bench("--data", data, "--detectors", "python:mine:absent")
    with pytest.raises(MaiError, match="no rows for the protocol 'web'"):
        bench("--data", data, "--protocols", "web")
    listed = sorted(data.rglob("*.png"))
    table = tmp_path / "twice.csv"
    table.write_text("file,label\n" + "".join(f"{p},synthetic\n{p},synthetic\n" for p in listed[:1]))
    with pytest.raises(DataError, match="twice"):
        bench("--data", table)
    for path in (data / "validation" / "real").iterdir():
        path.unlink()
    (data / "validation" / "fake" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    done = CliRunner().invoke(
        group, ["bench", "run", "--data", str(data), "--detectors", "python:mine:redness"]
    )
    assert done.exit_code == 0, done.output
    assert "no authentic picture" in done.output
    assert "1 of them unreadable" in done.output
    assert "recall" in done.output
    assert "AUROC |" not in done.output


def test_kill_9_loses_at_most_what_was_in_hand(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mai", "bench", "run", "--data", str(data), "--detectors", "python:slow:redness",
               "--protocols", "native", "--no-floors", "--workers", "1", "--draws", "20", "--json"]  # fmt: skip
    (tmp_path / "slow.py").write_text(
        "import time" + REDNESS.replace("    return float(1", "    time.sleep(.15)\n    return float(1")
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    database = tmp_path / "cache" / "mai" / "bench" / "scores_v1.sqlite"

    def n_kept() -> int:
        import sqlite3

        if not database.exists():
            return 0
        try:
            with sqlite3.connect(database, timeout=5) as db:
                return db.execute("SELECT count(*) FROM scores").fetchone()[0]
        except sqlite3.OperationalError:
            return 0

    deadline = time.monotonic() + 60
    while n_kept() < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    kept = n_kept()
    assert 8 <= kept < 24
    second = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    report = json.loads(second.stdout)
    assert report["n_measured"] == 24 - kept
    assert cell(report, "redness", "native")["n_synthetic"] == 12


def test_two_workers_agree_with_one(data: Path, tmp_path: Path) -> None:
    args = (
        "--data",
        data,
        "--detectors",
        "pixel",
        "--no-floors",
        "--no-cache",
        "--sweep",
        "noise-4,crop-0.1",
    )
    one = bench(*args)
    done = CliRunner().invoke(
        group,
        ["bench", "run", "--json", "--draws", "40", *map(str, args), "--workers", "2"],
        catch_exceptions=False,
    )
    two = json.loads(done.stdout)
    assert one["scores"] == two["scores"]
    assert [c["auroc"] for c in one["detectors"]["pixel"]["cells"]] == [
        c["auroc"] for c in two["detectors"]["pixel"]["cells"]
    ]


TREES: dict[str, list[tuple[str, str, str | None]]] = {
    "genimage": [("sd5/val/ai/1.png", "synthetic", "sd5"), ("sd5/val/nature/1.JPEG", "authentic", None),
                 ("mj/imagenet_midjourney/val/ai/2.png", "synthetic", "mj")],
    "forensynths": [("progan/cat/1_fake/1.png", "synthetic", "progan"), ("progan/cat/0_real/1.png", "authentic", None),
                    ("biggan/1_fake/3.png", "synthetic", "biggan"), ("biggan/0_real/4.png", "authentic", None)],
    "synthbuster": [("synthbuster/dalle3/r1.png", "synthetic", "dalle3"), ("RAISE/r1.TIF", "authentic", None)],
    "chameleon": [("test/0_real/a.jpg", "authentic", None), ("test/1_fake/b.jpg", "synthetic", None)],
    "wildrf": [("test/reddit/0_real/a.jpg", "authentic", None), ("test/reddit/1_fake/b.jpg", "synthetic", None)],
    "community_forensics": [("fake/sdxl/x/1.png", "synthetic", "sdxl"), ("real/coco/1.jpg", "authentic", None)],
    "aigibench": [("test/flux/0_real/a.jpg", "authentic", None), ("test/flux/1_fake/b.png", "synthetic", "flux")],
    "openfake": [("fake/imagen-4/1.png", "synthetic", "imagen-4"), ("real/1.jpg", "authentic", None)],
    "sid_set": [("validation/real/1.jpg", "authentic", None), ("validation/full_synthetic/1.png", "synthetic",
                "flux.1")],
    "cifake": [("test/FAKE/1.jpg", "synthetic", "sd1.4"), ("test/REAL/1.jpg", "authentic", None)],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(TREES))
def test_layouts_of_published_sets(name: str, tmp_path: Path) -> None:
    for file, _, _ in TREES[name]:
        place = tmp_path / name / file
        place.parent.mkdir(parents=True, exist_ok=True)
        Pil.new("RGB", (40, 40), (9, 99, 199)).save(place)
    (tmp_path / name / "README.md").write_text("no picture")
    found = sets.read(sets.load(name), str(tmp_path / name))
    told = {found.relative(row.file): (row.class_name, row.generator) for row in found.rows}
    assert told == {file: (label, generator) for file, label, generator in TREES[name]}
    assert all(row.source for row in found.rows)
    assert sets.load(name).licence
    assert sets.load(name).home


def test_every_shipped_benchmark_loads_and_an_unlike_folder_is_named(tmp_path: Path) -> None:
    assert set(TREES) | {"generic", "validation"} == set(sets.names())
    with pytest.raises(DataError, match="does not look like GenImage"):
        sets.read(sets.load("genimage"), str(tmp_path))
    with pytest.raises(MaiError, match="benchmark"):
        sets.load("genimages")
    assert "licence" in CliRunner().invoke(group, ["bench", "list"]).output
