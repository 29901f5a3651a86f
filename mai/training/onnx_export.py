"""PyTorch -> ONNX: input `views` uint8 (B, S, S, 3), outputs `logit` (B,) and, if there is one, `patches` (B, h, w).

Norms are folded into the convolutions before them. Kernels and matrices are stored as fp16 and cast to fp32 when the
session is made: half the size, the speed of fp32, and the network that is measured is the rounded one.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mai.errors import TrainingError, require

if TYPE_CHECKING:
    import torch

OPSET = 18
MATRIX = 2
"""Tensors of fewer dimensions stay fp32: norms and biases weigh nothing and are the most sensitive."""


def shipped_form(model: torch.nn.Module) -> torch.nn.Module:
    """A copy with norms folded into convolutions and every matrix and kernel rounded to what fp16 can hold."""
    import torch
    from torch.fx.experimental.optimization import fuse

    folded = fuse(model.eval())
    with torch.no_grad():
        for parameter in folded.parameters():
            if parameter.ndim >= MATRIX:
                parameter.copy_(parameter.half().float())
    return folded


def export(
    model: torch.nn.Module, outputs: list[str], sides: Sequence[int], path: Path, limit: float = 1e-4
) -> float:
    """Write the ONNX file and check it against PyTorch.

    Args:
        model: made by `shipped_form`, takes uint8 (B, S, S, 3).
        outputs: names of what it returns.
        sides: the S that it will be given; with more than one, S is free in the ONNX file.
        path: file to write.
        limit: largest difference of logits allowed.

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
    _store_fp16(onnx, proto)
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


def _store_fp16(onnx: Any, proto: Any) -> None:
    graph = proto.graph
    casts = []
    for tensor in graph.initializer:
        old = tensor.name
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.ndim < MATRIX:
            continue
        half = onnx.numpy_helper.from_array(array.astype(np.float16), old + "__fp16")
        tensor.CopyFrom(half)
        casts.append(onnx.helper.make_node("Cast", [old + "__fp16"], [old], to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
    del graph.value_info[:]
