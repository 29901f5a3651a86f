"""`hub:ORG/NAME` or `hub:FOLDER`: any published image classifier of transformers as a detector.

    picture -> its own PIL image processor -> network -> logit = logsumexp(synthetic labels) - logsumexp(authentic)

Until `mai calibrate hub:ORG/NAME --data DATA` was run, its number is shown and not weighed: nobody knows what it is
worth, or which threshold means which error rate. Afterwards it is a network like the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai import weights as weights_on_disk
from mai.detectors._labels import sides_of
from mai.detectors.base import DetectorSettings, Kind, Needs
from mai.errors import UsageError, require
from mai.training.hub import load_model, load_processor, state_digest
from mai.types import Evidence, Image
from mai.weights.user import calibration_folder

if TYPE_CHECKING:
    from mai.types import Pixels

PREFIX = "hub:"
LEAST_SIDE_PX = 32
FLAT = 2.0
"""Standard deviation of pixel values (of 255) under which a picture shows nothing to judge."""


class HubDetector:
    """One classifier, loaded; see the head of this module.

    Args:
        name: `hub:ORG/NAME`, `hub:ORG/NAME@REVISION` or `hub:FOLDER`.
        settings: synthetic_labels, n_threads.

    Raises:
        UsageError: its labels do not say what they mean.
        WeightsError: it cannot be had.
        MissingExtraError: torch or transformers is not installed.
    """

    needs: Needs = "pixels"

    def __init__(self, name: str, settings: DetectorSettings) -> None:
        torch = require("torch", "vlm", f"The detector {name}")
        transformers = require("transformers", "vlm", f"The detector {name}")
        self.name = name
        place = name.removeprefix(PREFIX)
        if not place:
            raise UsageError("Name a classifier: hub:ORG/NAME, or hub:FOLDER.")
        repo, _, revision = (place, "", "") if Path(place).is_dir() else place.partition("@")
        torch.set_num_threads(settings.n_threads)
        self._model = load_model(transformers.AutoModelForImageClassification, repo, revision)
        self._processor = load_processor(repo, revision)
        labels = {int(i): str(label) for i, label in self._model.config.id2label.items()}
        self.labels: Mapping[int, str] = dict(sorted(labels.items()))
        self.sides = sides_of(self.labels, settings.synthetic_labels, place)
        self.sha256 = state_digest(self._model)
        synthetic = sorted(self.labels[i] for i, side in self.sides.items() if side)
        self.calibration_name = f"hub-{self.sha256[:16]}-{'+'.join(synthetic)}"
        # A folder goes by its last part: the same numbers elsewhere are the same weights.
        called = Path(place).resolve().name if Path(place).is_dir() else place
        self.weights: str | None = f"{called}@{self.sha256[:12]}"
        self.loaded: weights_on_disk.Weights | None = None
        self.kind: Kind = "uncalibrated"
        folder = calibration_folder(self.calibration_name)
        if (folder / "config.json").is_file():
            self.loaded = weights_on_disk.load(folder)
            self.weights, self.kind = self.loaded.name, "network"

    def look(self, images: Sequence[Image]) -> list[Evidence]:
        """One Evidence an image."""
        return [self._look(image) for image in images]

    def _look(self, image: Image) -> Evidence:
        if image.pixels is None:
            return Evidence(self.name, self.weights, "failed", note="The image has no pixels to look at.")
        values = self.outputs(image.pixels)
        logit = self.logit_of(values)
        if not math.isfinite(logit):
            return Evidence(self.name, self.weights, "failed", note=f"It gave {logit}, which is no number.")
        details: dict[str, Any] = {"labels": self._shares(values)}
        problem = _unfit(image.pixels)
        if problem:
            details |= {"low_quality": True, "problem": problem}
        if self.loaded is None:
            own = 1 / (1 + math.exp(-min(max(logit, -60), 60)))
            side = "synthetic" if logit > 0 else "authentic"
            note = (
                f"It leans {side} ({own:.2f} by its own word). Shown, not weighed: run `mai calibrate {self.name} "
                "--data DATA` first."
            )
            return Evidence(self.name, self.weights, "ok", round(logit, 6), None, note, details)
        score = self.loaded.calibration.score(logit)
        note = f"The classifier {self.name.removeprefix(PREFIX)} gives a score of {score:.2f} for synthetic."
        if problem:
            note += f" It does not count: {problem}."
        return Evidence(self.name, self.weights, "ok", round(logit, 6), round(score, 6), note, details)

    def outputs(self, pixels: Pixels) -> NDArray[np.float64]:
        """The classifier's own logits, float64 (number of labels,), of uint8 RGB (H, W, 3)."""
        import torch
        from PIL import Image as PILImage

        with torch.inference_mode():
            given = self._processor(images=PILImage.fromarray(pixels), return_tensors="pt")
            values: NDArray[np.float64] = self._model(**given).logits[0].double().numpy()
        return values

    def logit(self, pixels: Pixels) -> float:
        """One logit, > 0 leans synthetic, of uint8 RGB (H, W, 3)."""
        return self.logit_of(self.outputs(pixels))

    def logit_of(self, values: NDArray[np.float64]) -> float:
        """Log odds of the synthetic labels against the authentic ones."""
        if len(values) == 1:
            return float(values[0]) if self.sides[0] else -float(values[0])
        synthetic = [float(values[i]) for i, side in self.sides.items() if side]
        authentic = [float(values[i]) for i, side in self.sides.items() if not side]
        return float(np.logaddexp.reduce(synthetic) - np.logaddexp.reduce(authentic))

    def _shares(self, values: NDArray[np.float64]) -> dict[str, float]:
        if len(values) == 1:
            return {self.labels[0]: round(float(1 / (1 + np.exp(-values[0]))), 4)}
        e = np.exp(values - values.max())
        order = np.argsort(-e)[:5]
        return {self.labels[int(i)]: round(float(e[i] / e.sum()), 4) for i in order}


def _unfit(pixels: Pixels) -> str | None:
    height, width = pixels.shape[:2]
    if min(height, width) < LEAST_SIDE_PX:
        return f"the picture is {width} x {height} pixels; below {LEAST_SIDE_PX} nothing was measured"
    if float(pixels[:: max(1, height // 64), :: max(1, width // 64)].std()) < FLAT:
        return "the picture is all but one colour"
    return None
