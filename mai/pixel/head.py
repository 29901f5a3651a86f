"""The linear head of an exported network: read its features, change its numbers, without PyTorch.

The network ends in a 1x1 convolution (1, 1280, 1, 1) over the trunk's features, whose mean over all places is the
logit. So the logit is linear in the mean feature, and a picture's logit in the weighted mean of its views' features.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mai.errors import WeightsError, require
from mai.images.views import ViewPlan, by_side

FEATURES = "features"

Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""uint8 views (B, S, S, 3) -> their mean features float32 (B, D)."""


class Head:
    """The head of an ONNX file and the features before it.

    Args:
        model: the ONNX file's bytes.

    Raises:
        WeightsError: it does not end in a linear head.
        MissingExtraError: `onnx` is not installed.
    """

    def __init__(self, model: bytes) -> None:
        self._onnx = require("onnx", "train", "Adapting")
        try:
            self._proto = self._onnx.load_from_string(model)
        except Exception as error:  # protobuf's errors share no base with ours
            raise WeightsError(f"The network cannot be read as ONNX: {error}") from error
        made_by = {name: node for node in self._proto.graph.node for name in node.output}
        held = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        for node in reversed(self._proto.graph.node):
            if node.op_type == "Conv":
                break
        else:
            raise WeightsError("This network has no convolution that could be its head.")
        if len(node.input) < 3 or node.input[2] not in held:
            raise WeightsError("The last convolution of this network has no bias; it is no head of pixel's.")
        kernel = node.input[1]
        if kernel not in held and kernel in made_by and made_by[kernel].op_type == "Cast":
            kernel = made_by[kernel].input[0]  # stored as fp16
        if kernel not in held or list(held[kernel].dims)[:1] != [1] or list(held[kernel].dims)[2:] != [1, 1]:
            raise WeightsError("This network does not end in a linear head over its places.")
        self._kernel, self._bias, self._input = held[kernel], held[node.input[2]], node.input[0]
        self.weight = self._array(self._kernel).astype(np.float64).ravel()
        self.bias = float(self._array(self._bias).ravel()[0])

    def _array(self, tensor: Any) -> NDArray[Any]:
        array: NDArray[Any] = np.asarray(self._onnx.numpy_helper.to_array(tensor))
        return array

    def features(self, n_threads: int = 1) -> Features:
        """A function from uint8 views (B, S, S, 3) to their mean features float32 (B, D)."""
        import onnxruntime as ort

        onnx, proto = self._onnx, self._onnx.ModelProto()
        proto.CopyFrom(self._proto)
        proto.graph.node.append(
            onnx.helper.make_node("GlobalAveragePool", [self._input], [FEATURES], name=FEATURES)
        )
        proto.graph.output.append(
            onnx.helper.make_tensor_value_info(
                FEATURES, onnx.TensorProto.FLOAT, ["B", len(self.weight), 1, 1]
            )
        )
        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])

        def run(views: NDArray[np.uint8]) -> NDArray[np.float32]:
            (found,) = session.run([FEATURES], {"views": views})
            return np.asarray(found, np.float32)[:, :, 0, 0]

        return run

    def with_numbers(self, weight: NDArray[np.float64], bias: float) -> bytes:
        """The ONNX file with another head.

        Args:
            weight: (D,).
            bias: added to the product.
        """
        proto = self._onnx.ModelProto()
        proto.CopyFrom(self._proto)
        new = {
            self._kernel.name: weight.reshape(tuple(self._kernel.dims)),
            self._bias.name: np.array([bias]).reshape(tuple(self._bias.dims)),
        }
        for tensor in proto.graph.initializer:
            if tensor.name in new:
                old = self._array(tensor)
                values = new[tensor.name].astype(old.dtype)
                tensor.CopyFrom(self._onnx.numpy_helper.from_array(values, tensor.name))
        data: bytes = proto.SerializeToString()
        return data


def picture_feature(
    run: Features, whole: list[NDArray[np.uint8]], native: list[NDArray[np.uint8]], plan: ViewPlan
) -> NDArray[np.float64]:
    """The feature (D,) whose product with the head is the picture's logit (ViewPlan.combine, which is linear)."""
    means: list[NDArray[np.float64]] = []
    for views in (whole, native):
        found = [run(batch) for _, batch in by_side(views)]
        if found:
            means.append(np.concatenate(found).astype(np.float64).mean(0))
    if not means:
        raise ValueError("no views")
    if len(means) == 1:
        return means[0]
    return plan.whole_weight * means[0] + (1 - plan.whole_weight) * means[1]
