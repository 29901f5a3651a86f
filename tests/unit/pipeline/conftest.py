"""Detectors for tests: real plug-in files in a folder of their own, a real ONNX network, real weights."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import mai.detectors
from mai.detectors import base
from mai.measure.calibrate import operating_table

NETWORK = '''
"""The mean of the red channel, by an ONNX network: above one half leans synthetic."""
import numpy as np
from mai import weights
from mai.types import Evidence

class Detector:
    name, needs, kind = "{name}", "pixels", "network"

    def __init__(self, settings):
        import onnxruntime
        self._weights = weights.load(settings.weights or "{name}")
        self.weights = self._weights.name
        self._session = onnxruntime.InferenceSession(self._weights.model_bytes())

    def look(self, images):
        if any(image.pixels[0, 0].tolist() == [66, 66, 66] for image in images):
            raise ZeroDivisionError("a mistake of its own")
        views = np.stack([image.pixels[:8, :8] for image in images])
        logits = self._session.run(["logit"], {{"views": views}})[0]
        return [
            Evidence(self.name, self.weights, "ok", float(z), self._weights.calibration.score(float(z)))
            for z in logits
        ]
'''

STATEMENT = '''
"""What a PNG text chunk `Says` declares."""
import io
from PIL import Image
from mai.types import Evidence

class Detector:
    name, needs, kind, weights = "statement", "bytes", "statement", None

    def __init__(self, settings):
        self.asked = 0

    def look(self, images):
        self.asked += len(images)
        return [self._look(image) for image in images]

    def _look(self, image):
        if image.data is None:
            return Evidence(self.name, status="absent")
        said = Image.open(io.BytesIO(image.data)).info.get("Says")
        if said is None:
            return Evidence(self.name, status="absent", note="It declares nothing.")
        details = {"declares": said, "reason": "declared_metadata", "state": "unsigned"}
        return Evidence(self.name, note=f"It says {said}.", details=details)
'''


def make_network(folder: Path, name: str, slope: float = 0.1) -> Path:
    """A folder of weights with a real network: logit = slope * (mean of red - 127.5)."""
    import onnx
    from onnx import TensorProto, helper

    values = [
        helper.make_tensor("channel", TensorProto.INT64, [1], [0]),
        helper.make_tensor("shift", TensorProto.FLOAT, [], [127.5]),
        helper.make_tensor("slope", TensorProto.FLOAT, [], [slope]),
    ]
    nodes = [
        helper.make_node("Gather", ["views", "channel"], ["red"], axis=3),
        helper.make_node("Cast", ["red"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Sub", ["mean", "shift"], ["centred"]),
        helper.make_node("Mul", ["centred", "slope"], ["logit"]),
    ]
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("views", TensorProto.UINT8, ["B", 8, 8, 3])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["B"])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(2, 2, 500), rng.normal(-2, 2, 500)])
    table = operating_table(1 / (1 + np.exp(-logits)), [1] * 500 + [0] * 500, "drawn scores")
    config = {
        "format": "mai.weights/1",
        "name": f"{name}_v1_0",
        "architecture": name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocessing": {},
        "calibration": {"slope": 1.0, "offset": 0.0},
        "thresholds": table.to_dict(),
        "default": {"fpr": 0.01, "fnr": 0.05},
    }
    home = folder / f"{name}_v1_0"
    home.mkdir(parents=True)
    (home / "model.onnx").write_bytes(data)
    (home / "config.json").write_text(json.dumps(config))
    return home


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The detectors `red`, `crimson` (networks, weights among the shipped ones) and `statement`."""
    from mai import weights

    folder = tmp_path / "detectors"
    folder.mkdir()
    for name in ("red", "crimson"):
        (folder / f"{name}.py").write_text(NETWORK.format(name=name))
        make_network(tmp_path / "weights", name, 0.1 if name == "red" else -0.1)
    (folder / "statement.py").write_text(STATEMENT)
    (folder / "base.py").write_text("")
    monkeypatch.setattr(mai.detectors, "__path__", [*mai.detectors.__path__, str(folder)])
    monkeypatch.setattr(base, "__file__", str(folder / "base.py"))
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    yield tmp_path
    for name in ("red", "crimson", "statement"):
        sys.modules.pop(f"mai.detectors.{name}", None)
