"""Pictures for the report: what a detector got most wrong and most right, small."""

from __future__ import annotations

from typing import Any

from mai.bench.page import Pictures
from mai.bench.run import read_row
from mai.data.labelled import LabelledSet
from mai.errors import ImageError
from mai.report.thumbnail import jpeg

KINDS = (
    ("authentic, scored most synthetic", 0, True),
    ("synthetic, scored most authentic", 1, False),
    ("synthetic, scored most synthetic", 1, True),
)
SHOWN_PX = 160


def examples(report: dict[str, Any], labelled: LabelledSet, n: int = 6) -> Pictures:
    """The n most telling pictures of each kind, by detector and protocol, as JPEG thumbnails."""
    rows = {}
    for row in labelled.rows:
        name = labelled.relative(row.image)
        if name not in rows or row.view == "whole":
            rows[name] = row
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
                    entry = (kind, name.rsplit("/", 1)[-1], score, jpeg(pixels, SHOWN_PX))
                    shown.setdefault(protocol, {}).setdefault(detector, []).append(entry)
    return shown
