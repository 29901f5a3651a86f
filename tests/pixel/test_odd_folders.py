"""Weights folders are anybody's files: what is wrong with one is a sentence, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mai import weights as weights_on_disk
from mai.errors import WeightsError
from mai.pixel import memory
from mai.weights.session import open_session

SHIPPED = weights_on_disk.FOLDER / weights_on_disk.latest("pixel")


def changed(folder: Path, **values: Any) -> Path:
    config = {**json.loads((SHIPPED / "config.json").read_text()), **values}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    (folder / "model.onnx").write_bytes((SHIPPED / "model.onnx").read_bytes())
    return folder


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sha256": ...}, "sha256"),
        ({"sha256": None}, "sha256 is no text"),
        ({"architecture": 3}, "architecture is no text"),
        ({"engine": "torch", "architecture": "weights"}, "no session of its own"),
        ({"engine": "torch", "architecture": "nothing"}, "no session of its own"),
        ({"file": "../elsewhere"}, "lack"),
    ],
)
def test_an_odd_config_is_told(tmp_path: Path, values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        open_session(weights_on_disk.load(changed(tmp_path, **values)))


def test_a_config_of_another_network_is_told(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="a probe's own engine needs the extra 'vlm'")
    with pytest.raises(WeightsError, match="lacks what 'probe' needs"):
        open_session(weights_on_disk.load(changed(tmp_path, engine="torch", architecture="probe")))


@pytest.mark.parametrize("damage", ["empty", "short", "changed"])
def test_a_damaged_memory_is_told(tmp_path: Path, damage: str) -> None:
    data = (SHIPPED / memory.FILE).read_bytes()
    half = len(data) // 2
    bad = {"empty": b"", "short": data[:half], "changed": data[:half] + bytes(2000) + data[half + 2000 :]}
    (tmp_path / memory.FILE).write_bytes(bad[damage])
    with pytest.raises(WeightsError, match="cannot be read"):
        memory.read(tmp_path)


def test_a_network_without_that_head_is_told() -> None:
    onnx = pytest.importorskip("onnx", reason="adapting needs the extra 'train'")
    from mai.pixel.head import Head

    with pytest.raises(WeightsError, match="cannot be read as ONNX"):
        Head(b"no network")
    kernel = onnx.numpy_helper.from_array(np.zeros((1, 4, 1, 1), np.float32), "kernel")
    node = onnx.helper.make_node("Conv", ["views", "kernel"], ["logit"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, None) for name in ("views", "logit")]
    graph = onnx.helper.make_graph([node], "bare", ends[:1], ends[1:], [kernel])
    with pytest.raises(WeightsError, match="has no bias"):
        Head(onnx.helper.make_model(graph).SerializeToString())
