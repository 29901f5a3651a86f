"""Shipped weights at work: onnxruntime on any CPU, a GPU if its package is installed and asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mai.errors import WeightsError

if TYPE_CHECKING:
    from mai.weights import Weights


Device = Literal["cpu", "cuda", "tensorrt"]

PROVIDERS: dict[str, tuple[str, ...]] = {
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
"""What onnxruntime calls them, the best first."""


class Runs(Protocol):
    """A network ready to run: a Session, or what an architecture's own engine makes."""

    @property
    def outputs(self) -> Sequence[str]:
        """Names of what it gives: `logit`, and `patches` where it has a map."""
        ...

    def run(self, views: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits (B,) and the map of patch logits (B, h, w) or None, of uint8 RGB views (B, S, S, 3)."""
        ...

    def logits(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 (B,) of uint8 views (B, S, S, 3)."""
        ...


def open_session(weights: Weights, n_threads: int = 1, device: Device = "cpu") -> Runs:
    """Make weights ready to run: by onnxruntime, or by torch where config.json says `"engine": "torch"`.

    Raises:
        WeightsError: they are damaged, or of an engine that this MAI does not know.
        MissingExtraError: the engine's package is not installed.
    """
    engine = weights.config.get("engine", "onnx")
    if engine == "onnx":
        return Session(weights, n_threads, device)
    if engine != "torch" or not weights.architecture.isidentifier():
        raise WeightsError(
            f"The weights {weights.name} need an engine {engine!r}, which this MAI does not know."
        )
    name = f"mai.{weights.architecture}.session"
    try:
        made = importlib.import_module(name).TorchSession
    except (ModuleNotFoundError, AttributeError) as error:
        if isinstance(error, ModuleNotFoundError) and not name.startswith(error.name or "?"):
            raise  # the engine's own package is not installed
        raise WeightsError(
            f"The weights {weights.name} are of '{weights.architecture}', which has no session of its own."
        ) from error
    try:
        return cast(Runs, made(weights, n_threads))
    except (KeyError, TypeError) as error:
        raise WeightsError(
            f"{weights.folder}/config.json lacks what '{weights.architecture}' needs: {error!r}."
        ) from error


class Session:
    """One network ready to run.

    Args:
        weights: what to run; its hash is checked.
        n_threads: of one run.
        device: where it runs; what cannot be had is told in `problem`, and the CPU is used.

    Attributes:
        outputs: names of the network's outputs.
        problem: a sentence on why the device is not used, None if it is.

    Raises:
        WeightsError: the file is damaged or onnxruntime cannot read it.
    """

    def __init__(self, weights: Weights, n_threads: int = 1, device: Device = "cpu") -> None:
        import onnxruntime as ort

        data = weights.model_bytes()
        options = ort.SessionOptions()
        options.intra_op_num_threads = n_threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.problem: str | None = None
        self._session: Any = None if device == "cpu" else self._on_device(ort, data, options, device)
        if self._session is None:
            try:
                self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            except Exception as error:
                raise WeightsError(
                    f"onnxruntime {ort.__version__} cannot run {weights.model}: {error}"
                ) from error
        self.outputs = [output.name for output in self._session.get_outputs()]

    def _on_device(self, ort: Any, data: bytes, options: Any, device: Device) -> Any:
        """A session on the device, None if there can be none; then `problem` says why."""
        wanted = PROVIDERS[device]
        has = ort.get_available_providers()
        if wanted[0] not in has:
            self.problem = (
                f"--device {device} is not used, the CPU is: onnxruntime {ort.__version__} here has no {wanted[0]}. "
                "Install onnxruntime-gpu in place of onnxruntime."
            )
            return None
        try:
            session = ort.InferenceSession(
                data, options, providers=[*(one for one in wanted if one in has), "CPUExecutionProvider"]
            )
        except Exception as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            self.problem = f"--device {device} is not used, the CPU is: it could not be started: {said}."
            return None
        if session.get_providers()[0] != wanted[0]:  # onnxruntime goes on without what it could not load
            self.problem = (
                f"--device {device} is not used: {wanted[0]} could not be loaded (are driver, CUDA and cuDNN there?); "
                f"{session.get_providers()[0]} is used."
            )
        return session

    def run(self, views: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Logits and, where the network has one, the map of patch logits.

        Args:
            views: uint8 RGB (B, S, S, 3).

        Returns:
            logits float32 (B,), patches float32 (B, h, w) or None.
        """
        results: list[Any] = self._session.run(None, {"views": views})
        named = dict(zip(self.outputs, results, strict=True))
        return named["logit"], named.get("patches")

    def logits(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 (B,) of uint8 views (B, S, S, 3)."""
        return self.run(views)[0]
