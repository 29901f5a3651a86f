"""Pictures for the report: what a detector got most wrong and most right, small, with its heat map where it has one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mai.bench.page import Pictures, Shown
from mai.bench.work import read_row
from mai.data.labelled import LabelledSet, Row
from mai.errors import ImageError, MaiError
from mai.report import heatmap
from mai.report.thumbnail import jpeg
from mai.types import Image, ImageInfo

if TYPE_CHECKING:
    from mai.types import Pixels

KINDS = (
    ("authentic, scored most synthetic", 0, True),
    ("synthetic, scored most authentic", 1, False),
    ("synthetic, scored most synthetic", 1, True),
    ("authentic, scored most authentic", 0, False),
)
SHOWN_PX = 160
HEAT_OPACITY = 0.65


def examples(
    report: dict[str, Any], labelled: LabelledSet, specs: Sequence[str] = (), n: int = 6
) -> Pictures:
    """The n most telling pictures of each kind, by protocol and detector, as JPEG thumbnails.

    The stored picture is shown, its whole view where it has views, whatever the protocol made of it.

    Args:
        report: what `Run.result` returned.
        labelled: the set.
        specs: detectors of the run (scorers.load); the networks among them draw heat maps.
        n: pictures of each kind.
    """
    rows: dict[str, Row] = {}
    for row in labelled.rows:
        name = labelled.relative(row.image)
        if name not in rows or row.view == "whole":
            rows[name] = row
    mappers = {spec.partition("=")[0]: found for spec in specs if (found := _mapper(spec)) is not None}
    shown: Pictures = {}
    for protocol, detectors in report["scores"].items():
        for detector, own in detectors.items():
            listed = list(zip(own["images"], own["labels"], own["scores"], strict=True))
            for kind, label, high in KINDS:
                mine = sorted(
                    (x for x in listed if x[1] == label), key=lambda x: (-x[2] if high else x[2], x[0])
                )
                for name, _, score in mine[:n]:
                    try:
                        pixels = read_row(rows[name])[0]
                    except (ImageError, KeyError):
                        continue
                    heat = _heated(pixels, mappers[detector]) if detector in mappers else None
                    entry = Shown(kind, name.rsplit("/", 1)[-1], score, jpeg(pixels, SHOWN_PX), heat)
                    shown.setdefault(protocol, {}).setdefault(detector, []).append(entry)
    return shown


def _mapper(spec: str) -> Any:
    """The detector of a spec if it draws heat maps, else None."""
    from mai import weights as weights_on_disk
    from mai.detectors import base
    from mai.detectors._network import NetworkDetector
    from mai.detectors.base import DetectorSettings

    name, _, folder = spec.partition("=")
    if name not in base.names():
        return None
    try:
        loaded = weights_on_disk.load(folder).folder if folder else None
        detector = base.load(name, DetectorSettings(loaded))
    except MaiError:
        return None
    return detector if isinstance(detector, NetworkDetector) else None


def _heated(pixels: Pixels, detector: Any) -> bytes | None:
    """The picture with the network's map over it, None where it draws none."""
    from PIL import Image as Pil

    height, width = pixels.shape[:2]
    maps = detector.heat_maps(Image("", ImageInfo("", width, height, None, ""), None, pixels))
    if not maps:
        return None
    drawn = Pil.open(io.BytesIO(heatmap.layer(maps, detector.loaded.calibration, height, width)))
    over = drawn.resize((width, height), Pil.Resampling.NEAREST)
    over.putalpha(over.getchannel("A").point(lambda value: value * HEAT_OPACITY))
    under = Pil.fromarray(pixels).convert("RGBA")
    return jpeg(_rgb(Pil.alpha_composite(under, over)), SHOWN_PX)


def _rgb(picture: Any) -> Pixels:
    import numpy as np

    return np.asarray(picture.convert("RGB"))
