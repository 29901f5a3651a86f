"""PyTorch -> ONNX: input `views` uint8 (B, S, S, 3), outputs `logit` (B,) and, if there is one, `patches` (B, h, w).

Norms are folded into the convolutions before them. Kernels and matrices are stored as fp16, or as int8 with a scale
for each output channel, and made fp32 when the session is made: a half or a quarter of the size, the speed of fp32, and
the network that is measured is the rounded one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from mai.errors import TrainingError, require

if TYPE_CHECKING:
    import torch

OPSET = 18
MATRIX = 2
"""Tensors of fewer dimensions stay fp32: norms and biases weigh nothing and are the most sensitive."""


Storage = Literal["fp16", "int8"]


def shipped_form(model: torch.nn.Module, storage: Storage = "fp16") -> torch.nn.Module:
    """A copy with norms folded into convolutions and every matrix and kernel rounded to what its storage can hold."""
    import torch
    from torch.fx.experimental.optimization import fuse

    folded = fuse(model.eval())
    with torch.no_grad():
        for parameter in folded.parameters():
            if parameter.ndim >= MATRIX:
                parameter.copy_(parameter.half().float())
                if storage == "int8" and len(parameter) > 1:  # a head with one output stays fp16
                    scale = _scales(parameter.numpy())
                    levels = torch.from_numpy(np.rint(parameter.numpy() / scale))
                    parameter.copy_(levels * torch.from_numpy(scale))
    return folded


def _scales(kernel: NDArray[Any]) -> NDArray[np.float32]:
    """What one step of int8 is worth in each output channel, (O, 1, ...)."""
    highest = np.abs(kernel).max(axis=tuple(range(1, kernel.ndim)), keepdims=True)
    scales: NDArray[np.float32] = np.maximum(highest / 127, np.finfo(np.float32).tiny).astype(np.float32)
    return scales


def export(
    model: torch.nn.Module,
    outputs: list[str],
    sides: Sequence[int],
    path: Path,
    limit: float = 1e-4,
    storage: Storage = "fp16",
) -> float:
    """Write the ONNX file and check it against PyTorch.

    Args:
        model: made by `shipped_form`, takes uint8 (B, S, S, 3).
        outputs: names of what it returns.
        sides: the S that it will be given; with more than one, S is free in the ONNX file.
        path: file to write.
        limit: largest difference of logits allowed.
        storage: of kernels and matrices, as given to `shipped_form`.

    Returns:
        Largest absolute difference of logits between PyTorch and onnxruntime on random views.

    Raises:
        TrainingError: they differ by more than the limit.
    """
    import torch

    onnx = require("onnx", "train", "Exporting")
    require("onnxscript", "train", "Exporting")
    ort = require("onnxruntime", "train", "Exporting")
    model.eval()
    rng = np.random.default_rng(0)
    samples = [torch.from_numpy(rng.integers(0, 256, (2, side, side, 3), np.uint8)) for side in sides]
    free: dict[int, Any] = {0: torch.export.Dim("B", min=1, max=4096)}
    if len(sides) > 1:
        free |= {1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it warns of every operator of torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (samples[0],), dynamo=True, optimize=True, opset_version=OPSET, input_names=["views"],
            output_names=outputs, dynamic_shapes={"views": free}, verbose=False,
        )  # fmt: skip
    assert program is not None
    proto = program.model_proto
    _store(onnx, proto, storage)
    del proto.metadata_props[:]
    for node in proto.graph.node:  # the exporter writes this machine's paths into the nodes
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    difference = 0.0
    for views in samples:
        got = session.run(["logit"], {"views": views.numpy()})[0]
        with torch.inference_mode():
            wanted = model(views)
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        difference = max(difference, float(np.abs(got - wanted.numpy()).max()))
    if difference > limit:
        raise TrainingError(
            f"The exported network differs from PyTorch by {difference:.2e} (limit {limit:g})."
        )
    return difference


def _store(onnx: Any, proto: Any, storage: Storage) -> None:
    graph, helper, arrays = proto.graph, onnx.helper, onnx.numpy_helper
    restored: list[Any] = []
    scales: list[Any] = []
    for tensor in graph.initializer:
        old = tensor.name
        array = arrays.to_array(tensor)
        if array.dtype != np.float32 or array.ndim < MATRIX:
            continue
        if storage == "int8" and len(array) > 1:
            scale = _scales(array)
            tensor.CopyFrom(arrays.from_array(np.rint(array / scale).astype(np.int8), old + "__int8"))
            scales.append(arrays.from_array(scale, old + "__scale"))
            restored += [
                helper.make_node("Cast", [old + "__int8"], [old + "__levels"], to=onnx.TensorProto.FLOAT),
                helper.make_node("Mul", [old + "__levels", old + "__scale"], [old]),
            ]
        else:
            tensor.CopyFrom(arrays.from_array(array.astype(np.float16), old + "__fp16"))
            restored.append(helper.make_node("Cast", [old + "__fp16"], [old], to=onnx.TensorProto.FLOAT))
    graph.initializer.extend(scales)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(restored + nodes)
    del graph.value_info[:]
