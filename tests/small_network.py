"""Real weights for tests, made in a moment: a small ONNX network that looks at red, and its card."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

from mai.measure.calibrate import operating_table

PREPROCESSING: dict[str, Any] = {
    **{"size_px": 32, "n_whole": 2, "whole_share": 1.0, "n_native": 0, "native_px": 0},
    **{"whole_weight": 1.0, "min_side_px": 24},
}
"""One or two whole windows of 32 pixels, see mai/images/views.py."""


def make_weights(
    folder: Path,
    architecture: str = "resnet",
    *,
    slope: float = 0.1,
    n: int = 500,
    fpr: float = 0.01,
    has_patches: bool = False,
) -> Path:
    """Weights whose logit is slope * (mean of red - 127.5), calibrated on n drawn scores a class.

    With has_patches a second output `patches` (B, 4, 4): the same of each sixteenth of the view.
    """
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
    outputs = [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["B"])]
    if has_patches:
        size = PREPROCESSING["size_px"]
        values.append(helper.make_tensor("one_channel", TensorProto.INT64, [4], [-1, 1, size, size]))
        values.append(helper.make_tensor("channels", TensorProto.INT64, [1], [1]))
        nodes += [
            helper.make_node("Reshape", ["float", "one_channel"], ["plane"]),
            helper.make_node("AveragePool", ["plane"], ["places"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Squeeze", ["places", "channels"], ["means"]),
            helper.make_node("Sub", ["means", "shift"], ["shifted"]),
            helper.make_node("Mul", ["shifted", "slope"], ["patches"]),
        ]
        outputs.append(helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["B", 4, 4]))
    graph = helper.make_graph(
        nodes,
        "red",
        [helper.make_tensor_value_info("views", TensorProto.UINT8, ["B", "H", "W", 3])],
        outputs,
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    data = model.SerializeToString()
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.normal(2, 2, n), rng.normal(-2, 2, n)])
    table = operating_table(1 / (1 + np.exp(-logits)), [1] * n + [0] * n, "drawn scores")
    name = f"{architecture}_v1_0"
    config = {
        "format": "mai.weights/1",
        "name": name,
        "architecture": architecture,
        "sha256": hashlib.sha256(data).hexdigest(),
        "preprocessing": PREPROCESSING,
        "calibration": {"slope": 1.0, "offset": 0.0},
        "thresholds": table.to_dict(),
        "default": {"fpr": fpr, "fnr": 0.05},
    }
    home = folder / name
    home.mkdir(parents=True)
    (home / "model.onnx").write_bytes(data)
    (home / "config.json").write_text(json.dumps(config))
    (home / "README.md").write_text(f"# {name}\n\nIt looks at red, for tests.\n")
    return home


def picture(red: int = 200, form: str = "PNG", size: int = 48, **save: Any) -> bytes:
    """An encoded picture whose red channel has about this mean; not flat, so that a network will judge it."""
    rng = np.random.default_rng(red)
    pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
    pixels[..., 0] = np.clip(red + rng.integers(-5, 6, (size, size)), 0, 255)
    stream = io.BytesIO()
    Pil.fromarray(pixels).save(stream, form, **save)
    return stream.getvalue()
