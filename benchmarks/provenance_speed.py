"""How long the detector `metadata` takes a file, beside reading the file's header and decoding it, in one run.

    python benchmarks/provenance_speed.py [FOLDER] [--repeats 15]

Without a folder, files of every container are made here: 1024 x 1024 pixels of noise with EXIF and XMP in them. With
one, its own files are measured. Times are medians of the repeats, in processor milliseconds of one core.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image as Pil
from PIL.PngImagePlugin import PngInfo

from mai.detectors.metadata import Detector
from mai.images import decode as decoding
from mai.images import kinds

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">'
    "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    "</Iptc4xmpExt:DigitalSourceType></rdf:Description></rdf:RDF></x:xmpmeta>" + " " * 2048
)
PARAMETERS = "a lovely cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42"


def made() -> Iterator[tuple[str, bytes]]:
    """A file of every container that this machine can write."""
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 4), np.uint8)
    picture = Pil.fromarray(noise)
    exif = Pil.Exif()
    exif[0x010F], exif[0x0110], exif[0x0131] = "Canon", "EOS R5", "Ver 1.0"
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + PARAMETERS.encode("utf-16-be")
    info = PngInfo()
    info.add_text("parameters", PARAMETERS)
    info.add_itxt("XML:com.adobe.xmp", XMP)
    tiff = {700: XMP.encode(), 271: "Canon"}
    shared = {"exif": exif.tobytes(), "xmp": XMP.encode()}
    rows = [
        ("made.png", "PNG", "RGB", {"pnginfo": info, "exif": exif.tobytes(), "compress_level": 1}),
        ("made-alpha.png", "PNG", "RGBA", {"pnginfo": info, "compress_level": 1}),
        ("made.jpg", "JPEG", "RGB", {**shared, "quality": 90}),
        ("made.webp", "WEBP", "RGB", {**shared, "quality": 80}),
        ("made.avif", "AVIF", "RGB", {**shared, "quality": 60, "speed": 10}),
        ("made.tif", "TIFF", "RGB", {"tiffinfo": tiff}),
    ]
    for name, container, mode, options in rows:
        stream = io.BytesIO()
        picture.convert(mode).save(stream, container, **options)
        yield name, stream.getvalue()
    try:
        import pillow_heif
    except ModuleNotFoundError:
        print("HEIC is left out: it needs the extra heif.")
        return
    stream = io.BytesIO()
    pillow_heif.from_pillow(picture.convert("RGB")).save(stream, quality=50, **shared)
    yield "made.heic", stream.getvalue()


def found(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures of a folder."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and kinds.of_bytes(path.read_bytes()[: kinds.HEAD_BYTES]) in kinds.OPENABLE:
            yield path.name, path.read_bytes()


def milliseconds(work: Callable[[], object], repeats: int) -> float:
    """Median processor time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    asked = parser.parse_args()
    detector = Detector()
    rows = []
    print(f"{'file':40} {'MB':>6} {'metadata ms':>12} {'decode ms':>10} {'share':>7}")
    for name, data in made() if asked.folder is None else found(asked.folder):
        image = decoding.from_bytes(data, name)
        own = milliseconds(lambda image=image: detector.look([image]), asked.repeats)
        whole = milliseconds(lambda image=image: decoding.decode(image), 3)
        rows.append((own, own / whole))
        print(f"{name[:40]:40} {len(data) / 1e6:6.2f} {own:12.3f} {whole:10.1f} {own / whole:7.1%}")
    if rows:
        median = statistics.median(own for own, _ in rows)
        share = statistics.median(part for _, part in rows)
        print(f"\n{len(rows)} files: median {median:.3f} ms, largest {max(rows)[0]:.3f} ms")
        print(f"median {share:.1%} of decoding the same file")


if __name__ == "__main__":
    main()
