"""What the detectors that are networks share: views -> session -> one logit a picture -> calibrated score.

Not a detector itself (its name begins with an underscore).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mai import weights as weights_on_disk
from mai.detectors.base import DetectorSettings, Kind, Needs
from mai.errors import WeightsError
from mai.images.decode import reduction
from mai.images.views import ViewPlan, by_side, native_boxes, native_views, whole_boxes, whole_views
from mai.types import Evidence, HeatMap, Image
from mai.weights.session import open_session

if TYPE_CHECKING:
    from mai.types import Pixels

FLAT = 2.0
"""Standard deviation of pixel values (of 255) under which a picture shows nothing to judge."""


class NetworkDetector:
    """A detector made of shipped weights.

    Raises:
        WeightsError: the weights are missing, damaged or of another architecture.
    """

    name: str = ""
    needs: Needs = "pixels"
    kind: Kind = "network"

    def __init__(self, settings: DetectorSettings) -> None:
        self.loaded = weights_on_disk.load(settings.weights or weights_on_disk.latest(self.name))
        if self.loaded.architecture != self.name:
            raise WeightsError(
                f"{self.loaded.folder} holds weights of '{self.loaded.architecture}', not of '{self.name}'."
            )
        self.weights: str | None = self.loaded.name
        self.plan = read_plan(self.loaded.preprocessing)
        self.session = open_session(self.loaded, settings.n_threads, settings.device)
        no_device = f"--device {settings.device} is not used by {self.weights}, which runs on the CPU only."
        self.problem = getattr(self.session, "problem", no_device if settings.device != "cpu" else None)

    def look(self, images: Sequence[Image]) -> list[Evidence]:
        """One Evidence an image; all their views run as one batch."""
        views: list[Pixels] = []
        parts: list[tuple[int, int, str | None]] = []
        for image in images:
            pixels = self._seen(image)
            problem = self._unfit(pixels)
            whole = [] if pixels is None else whole_views(pixels, self.plan)
            native = native_views(pixels, self.plan) if pixels is not None and self.plan.asks_native else []
            parts.append((len(whole), len(native), problem))
            views += whole + native
        logits = np.empty(len(views), np.float32)
        for places, batch in by_side(views):
            logits[places] = self.session.logits(batch)
        evidence: list[Evidence] = []
        start = 0
        for n_whole, n_native, problem in parts:
            whole_logits = logits[start : start + n_whole]
            native_logits = logits[start + n_whole : start + n_whole + n_native]
            start += n_whole + n_native
            evidence.append(self._evidence(whole_logits, native_logits, problem))
        return evidence

    def heat_maps(self, image: Image) -> list[HeatMap]:
        """What the network says about the places of each window that it looks at, in the order of its views.

        Empty where the network has no map, or where it would not judge the picture.
        """
        pixels, seen = image.pixels, self._seen(image)
        if "patches" not in self.session.outputs or pixels is None or seen is None or self._unfit(seen):
            return []
        height, width = pixels.shape[:2]
        boxes = [("whole", box) for box in whole_boxes(height, width, self.plan)]
        views = whole_views(seen, self.plan)  # what was judged, so that the map is that of the score
        if self.plan.asks_native:
            boxes += [("native", box) for box in native_boxes(height, width, self.plan)]
            views += native_views(seen, self.plan)
        patches: dict[int, NDArray[np.float32]] = {}
        for places, batch in by_side(views):
            made = self.session.run(batch)[1]
            assert made is not None  # it is among the outputs
            patches.update(zip(places, made, strict=True))
        return [
            HeatMap("whole" if kind == "whole" else "native", *box, patches[i])
            for i, (kind, box) in enumerate(boxes)
        ]

    def least_px(self, image: Image) -> int | None:
        """Short side that it needs of a picture, see ViewPlan.least_px."""
        return self.plan.least_px

    def _seen(self, image: Image) -> Pixels | None:
        """What its views are cut from. Always the same of one file, whoever else looks at it: a score must not hang
        on the other detectors."""
        least = self.plan.least_px
        return image.reduced.get(reduction(image, least), image.pixels) if least else image.pixels

    def _unfit(self, pixels: Pixels | None) -> str | None:
        if pixels is None:
            return "no pixels"
        height, width = pixels.shape[:2]
        if min(height, width) < self.plan.min_side_px:
            return f"the picture is {width} x {height} pixels; below {self.plan.min_side_px} nothing was measured"
        if float(pixels[:: max(1, height // 64), :: max(1, width // 64)].std()) < FLAT:
            return "the picture is all but one colour"
        return None

    def _evidence(
        self, whole: NDArray[np.float32], native: NDArray[np.float32], problem: str | None
    ) -> Evidence:
        if not len(whole) and not len(native):
            return Evidence(
                self.name, self.weights, status="failed", note="The image has no pixels to look at."
            )
        logit = self.plan.combine(whole, native)
        score = self.loaded.calibration.score(logit)
        details: dict[str, Any] = {"n_views": len(whole) + len(native)}
        if len(whole):
            details["whole_logit"] = round(float(whole.mean()), 4)
        if len(native):
            details["native_logit"] = round(float(native.mean()), 4)
        told = "under 0.01" if score < 0.01 else "over 0.99" if score > 0.99 else f"of {score:.2f}"
        note = f"The network {self.weights} gives a score {told} for synthetic."
        if problem:
            details |= {"low_quality": True, "problem": problem}
            note += f" It does not count: {problem}."
        return Evidence(
            self.name, self.weights, logit=round(logit, 6), score=round(score, 6), note=note, details=details
        )


def read_plan(values: Mapping[str, Any]) -> ViewPlan:
    """The `preprocessing` of a config.json.

    Raises:
        WeightsError: a key is missing or unknown.
    """
    try:
        return ViewPlan(**values)
    except TypeError as error:
        raise WeightsError(f"The preprocessing of these weights cannot be read: {error}.") from error
