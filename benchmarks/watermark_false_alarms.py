"""How often authentic pictures match a known watermark by accident, and how fast the decoder is.

    python benchmarks/watermark_false_alarms.py ../shared/corpus/manifest.csv PHOTOS...

Arguments are folders, files, or a CSV with the columns file, label, view: of a CSV the authentic rows count, by view.
Prints, for each group and message: pictures looked at, the mean and the highest number of bits that agree, and how
many reach the threshold; then the time a megapixel on one core. Each picture is read once, as `mai scan` reads it.
"""

from __future__ import annotations

import csv
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mai.detectors.watermark import MESSAGES, MIN_PIXELS, block_bits, matching, read_bits
from mai.errors import ImageError
from mai.images import decode

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".avif"}


def pictures(argument: Path) -> Iterator[tuple[str, Path]]:
    """Group and path of each picture."""
    if argument.suffix == ".csv":
        with argument.open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                if row["label"] == "authentic":
                    yield f"{argument.parent.name}, {row['view']}", argument.parent / row["file"]
    elif argument.is_dir():
        yield from (
            (str(argument), path) for path in sorted(argument.rglob("*")) if path.suffix.lower() in SUFFIXES
        )
    else:
        yield "files", argument


def main(arguments: list[str]) -> None:
    """Measure and print."""
    matches: dict[str, list[list[int]]] = defaultdict(list)
    too_small: dict[str, int] = defaultdict(int)
    seconds, megapixels = 0.0, 0.0
    for argument in arguments:
        for group, path in pictures(Path(argument)):
            try:
                pixels = decode.decode(decode.from_bytes(path.read_bytes(), path.name)).pixels
            except ImageError:
                continue
            if pixels is None or pixels.shape[0] * pixels.shape[1] < MIN_PIXELS:
                too_small[group] += 1
                continue
            start = time.process_time()
            scores = block_bits(pixels)
            found = [matching(read_bits(scores, len(m.bits)), m.bits) for m in MESSAGES]
            seconds += time.process_time() - start
            megapixels += pixels.shape[0] * pixels.shape[1] / 1e6
            matches[group].append(found)
    for group, rows in matches.items():
        table = np.array(rows)
        print(f"{group}: n = {len(table):,} ({too_small[group]:,} more are smaller than 256 x 256 pixels)")
        for number, message in enumerate(MESSAGES):
            column = table[:, number]
            print(
                f"  {message.generator:22s} {len(message.bits):3d} bits: mean {column.mean():5.1f}, "
                f"99.9 % {np.quantile(column, 0.999):5.1f}, highest {column.max():3d}, "
                f"threshold {message.min_match:3d}, reached by {(column >= message.min_match).sum()}"
            )
    print(f"{1e3 * seconds / megapixels:.1f} ms a megapixel ({megapixels:,.0f} MP, one core)")


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit(__doc__))
