"""Detectors as the benchmark sees them: pixels in, one number out, higher is more synthetic.

    pixel  resnet  probe  ...        a network of MAI, by its detector's name or NAME=WEIGHTS_FOLDER
    python:MODULE:FUNCTION           a function uint8 RGB (H, W, 3) -> float
    onnx:FILE.onnx                   a network with FILE.toml beside it that says how pictures are prepared
    transformers:ORG/NAME or FOLDER  an image-classification model
    hub:ORG/NAME or FOLDER           the same as `mai scan` asks it: with its calibration, if `mai calibrate` made one
    NAME='command'                   (--external) another program: paths on stdin, `path<TAB>score` on stdout

A network of MAI gives logits, calibrated with what ships beside it; others' numbers are taken as scores, and are
called synthetic from 0.5 on unless `--threshold NAME=VALUE` says otherwise.
"""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mai.errors import UnknownNameError, UsageError, require

if TYPE_CHECKING:
    from mai.types import Pixels


class Scorer(Protocol):
    """What the benchmark asks of a detector.

    Attributes:
        name: in the report.
        key: changes whenever its numbers would; part of the cache's key.
        threshold: from which number on a picture is called synthetic.
        authentic: up to which it is called authentic; None: all below `threshold`.
    """

    name: str
    key: str
    threshold: float
    authentic: float | None

    def raw(self, pixels: Pixels, view: str | None) -> float:
        """The number that is cached: a logit or a score."""
        ...

    def combine(self, raws: dict[str, list[float]]) -> float:
        """Raw numbers of a picture's files by view ('' a whole file) -> its score."""
        ...


@dataclass(slots=True)
class NetworkScorer:
    """A network of MAI through the views and the session that `mai scan` uses."""

    name: str
    weights: Any
    plan: Any
    session: Any
    key: str
    threshold: float
    authentic: float | None

    @classmethod
    def load(cls, name: str, folder: str | None) -> NetworkScorer:
        """Make it ready.

        Raises:
            UnknownNameError, WeightsError: no such network.
        """
        from mai import weights as weights_on_disk
        from mai.detectors._network import read_plan
        from mai.verdict.decide import Policy, thresholds
        from mai.weights.session import open_session

        is_one = name in weights_on_disk.available()  # pixel_v1_0, say, and not a family
        weights = weights_on_disk.load(folder or (name if is_one else weights_on_disk.latest(name)))
        point = thresholds(weights, Policy())
        key = f"{weights.name}:{weights.config['sha256'][:16]}:{weights.preprocessing}"
        assert point.synthetic is not None  # the default operating point has both
        return cls(
            name,
            weights,
            read_plan(weights.preprocessing),
            open_session(weights),
            key,
            point.synthetic,
            point.authentic,
        )

    def raw(self, pixels: Pixels, view: str | None) -> float:
        """The picture's logit; of a row that is a view, that view's."""
        from mai.images.views import by_side, native_views, whole_views

        whole = [] if view == "crop" else whole_views(pixels, self.plan)
        has_native = view == "crop" or (view != "whole" and self.plan.asks_native)
        native = native_views(pixels, self.plan) if has_native else []
        views = [*whole, *native]
        logits = np.empty(len(views))
        for places, batch in by_side(views):
            logits[places] = self.session.logits(batch)
        return float(self.plan.combine(logits[: len(whole)], logits[len(whole) :]))

    def combine(self, raws: dict[str, list[float]]) -> float:
        """Calibrated score of the picture."""
        files = [value for view, values in raws.items() if view not in ("crop", "whole") for value in values]
        logits = list(files)
        if raws.get("whole") or raws.get("crop"):
            logits.append(self.plan.combine(raws.get("whole", []), raws.get("crop", [])))
        return float(self.weights.calibration.score(float(np.mean(logits))))


@dataclass(slots=True)
class FunctionScorer:
    """Any function of pixels."""

    name: str
    key: str
    function: Callable[[Pixels], float]
    threshold: float = 0.5
    authentic: float | None = None

    def raw(self, pixels: Pixels, view: str | None) -> float:
        """What the function says."""
        return float(self.function(pixels))

    def combine(self, raws: dict[str, list[float]]) -> float:
        """Mean over the picture's files."""
        return float(np.mean([value for values in raws.values() for value in values]))


@dataclass(frozen=True, slots=True)
class External:
    """Another program: run on files, in batches; see mai/bench/external.py.

    Attributes:
        name: in the report.
        command: split as a shell would, run without one.
        threshold: from which score on a picture is called synthetic.
    """

    name: str
    command: str
    threshold: float = 0.5
    authentic: float | None = field(default=None)

    @property
    def key(self) -> str:
        """Hash of the command."""
        return f"external:{hashlib.sha256(self.command.encode()).hexdigest()[:16]}"

    def combine(self, raws: dict[str, list[float]]) -> float:
        """Mean over the picture's files."""
        return float(np.mean([value for values in raws.values() for value in values]))


def load(spec: str) -> Scorer:
    """Make a detector ready by its name; see the head of this module.

    Raises:
        UsageError: it is none of these kinds, or has no score.
        UnknownNameError: no network of that name.
    """
    if spec.startswith("python:"):
        return _python(spec)
    if spec.startswith("onnx:"):
        return _onnx(Path(spec.removeprefix("onnx:")))
    if spec.startswith("transformers:"):
        return _transformers(spec.removeprefix("transformers:"))
    if spec.startswith("hub:"):
        return _hub(spec)
    from mai import weights as weights_on_disk
    from mai.detectors import base

    name, _, folder = spec.partition("=")
    if name in base.names():
        # pixel_fast, say, names weights and no detector
        architectures = weights_on_disk.families().intersection(base.names())
        if not folder and name not in architectures:
            raise UsageError(
                f"The detector '{name}' gives statements, not scores of pixels; the benchmark measures networks: "
                f"{', '.join(sorted(architectures))}, or NAME=WEIGHTS_FOLDER."
            )
    elif not folder and name not in (known := {*weights_on_disk.families(), *weights_on_disk.available()}):
        raise UnknownNameError("network", name, known)
    return NetworkScorer.load(name, folder or None)


def _python(spec: str) -> FunctionScorer:
    parts = spec.split(":")
    if len(parts) != 3:
        raise UsageError(f"'{spec}': write python:MODULE:FUNCTION.")
    try:
        module = importlib.import_module(parts[1])
        function = getattr(module, parts[2])
    except (ImportError, AttributeError) as error:
        raise UsageError(f"'{spec}' cannot be imported: {error}. Is the module on PYTHONPATH?") from error
    source = getattr(module, "__file__", None)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16] if source else ""
    return FunctionScorer(parts[2], f"{spec}:{digest}", function)


@dataclass(frozen=True, slots=True)
class Preparation:
    """FILE.toml beside an ONNX file: how a picture becomes its input.

    Attributes:
        size_px: side of the square input.
        resize: `short` (short side to resize_px, then a centre crop) or `squash`.
        resize_px: side that the short side becomes; 0: size_px.
        mean: of each channel on 0..1, taken off.
        std: of each channel on 0..1, divided by.
        layout: `NCHW` or `NHWC`.
        output: `logit` (one number), `score`, or `softmax` (one number a class).
        synthetic_index: of `softmax`, which class is synthetic.
        threshold: from which score on a picture is called synthetic.
    """

    size_px: int
    resize: str = "short"
    resize_px: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    layout: str = "NCHW"
    output: str = "logit"
    synthetic_index: int = 1
    threshold: float = 0.5


def prepare(pixels: Pixels, how: Preparation) -> Any:
    """uint8 RGB (H, W, 3) -> float32 (1, 3, S, S) or (1, S, S, 3)."""
    from PIL import Image

    image = Image.fromarray(pixels)
    if how.resize == "squash":
        image = image.resize((how.size_px, how.size_px), Image.Resampling.BILINEAR)
    else:
        scale = (how.resize_px or how.size_px) / min(image.size)
        image = image.resize(
            (max(how.size_px, round(image.width * scale)), max(how.size_px, round(image.height * scale))),
            Image.Resampling.BILINEAR,
        )
        left, top = (image.width - how.size_px) // 2, (image.height - how.size_px) // 2
        image = image.crop((left, top, left + how.size_px, top + how.size_px))
    x = (np.asarray(image, np.float32) / 255 - np.asarray(how.mean, np.float32)) / np.asarray(
        how.std, np.float32
    )
    return (x.transpose(2, 0, 1) if how.layout == "NCHW" else x)[None]


def _onnx(path: Path) -> FunctionScorer:
    from mai import config

    if not path.is_file() or not path.with_suffix(".toml").is_file():
        raise UsageError(
            f"'{path}' needs two files: the network, and {path.with_suffix('.toml').name} that says how pictures are "
            "prepared (docs/benchmark.md)."
        )
    how = config.read(Preparation, path.with_suffix(".toml"))
    ort = require("onnxruntime", "bench", "Running an ONNX file")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def function(pixels: Pixels) -> float:
        out = np.asarray(session.run(None, {name: prepare(pixels, how)})[0], np.float64).reshape(-1)
        if how.output == "softmax":
            e = np.exp(out - out.max())
            return float(e[how.synthetic_index] / e.sum())
        value = float(out[0])
        return value if how.output == "score" else 1 / (1 + math.exp(-max(min(value, 60), -60)))

    digest = hashlib.sha256(path.read_bytes() + path.with_suffix(".toml").read_bytes()).hexdigest()[:16]
    return FunctionScorer(path.stem, f"onnx:{digest}", function, how.threshold)


def _hub(spec: str) -> FunctionScorer:
    """A `hub:` detector at its own thresholds; uncalibrated, its own word from 0.5 on."""
    from mai.detectors._hub import HubDetector
    from mai.detectors.base import DetectorSettings
    from mai.measure.calibrate import Calibration
    from mai.verdict.decide import Policy, thresholds

    detector = HubDetector(spec, DetectorSettings())
    own = detector.loaded
    calibration = own.calibration if own else Calibration(1.0, 0.0)
    key = f"{spec}:{detector.sha256}:{own.config_digest if own else ''}"
    scorer = FunctionScorer(spec, key, lambda pixels: calibration.score(detector.logit(pixels)))
    if own:
        point = thresholds(own, Policy())
        assert point.synthetic is not None  # the default operating point has both
        scorer.threshold, scorer.authentic = point.synthetic, point.authentic
    return scorer


SYNTHETIC_WORDS = ("synthetic", "fake", "ai", "artificial", "generated", "ai-generated", "deepfake", "aigc")
AUTHENTIC_WORDS = ("authentic", "real", "human", "hum", "natural", "photo", "nature")


def synthetic_label(labels: dict[int, str]) -> int:
    """Which of a classifier's two labels is ours.

    Raises:
        UsageError: the names do not say; they are listed.
    """
    words = {i: set(name.lower().replace("_", " ").replace("-", " ").split()) for i, name in labels.items()}
    found = [i for i, own in words.items() if own & set(SYNTHETIC_WORDS) and not own & set(AUTHENTIC_WORDS)]
    if len(found) == 1:
        return found[0]
    raise UsageError(f"None or several of the labels {', '.join(map(repr, labels.values()))} mean synthetic.")


def _transformers(name: str) -> FunctionScorer:
    transformers = require("transformers", "vlm", "Running a transformers classifier")
    torch = require("torch", "vlm", "Running a transformers classifier")
    processor = transformers.AutoImageProcessor.from_pretrained(name, use_fast=False, trust_remote_code=False)
    model = transformers.AutoModelForImageClassification.from_pretrained(name, trust_remote_code=False).eval()
    index = synthetic_label({int(i): label for i, label in model.config.id2label.items()})

    def function(pixels: Pixels) -> float:
        with torch.inference_mode():
            logits = model(**processor(images=pixels, return_tensors="pt")).logits
        return float(logits.softmax(-1)[0, index])

    # Of a folder the files' own hash, of the hub the commit: other weights under the same name are measured anew.
    made = getattr(model.config, "_commit_hash", None) or _digest(Path(name))
    return FunctionScorer(Path(name).name, f"transformers:{name}:{made}", function)


def _digest(folder: Path) -> str:
    """Of a folder's weights and settings."""
    found = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.json"), *folder.glob("*.bin"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
