"""Fuzz one parser of foreign bytes, led by coverage: mutates real blocks of its kind for a fixed time.

    pip install atheris                                        (Linux; not a dependency of MAI)
    python tests/fuzz/parsers.py exif --seconds 600
    python tests/fuzz/parsers.py --list

A parser may stop at damage only with the errors that `mai.provenance.containers.read` turns into a problem; a whole
file never raises at all. One input may take MAX_S processor seconds, and the process 1 GB. Results: docs/log.md.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit" / "detectors"))

import atheris

with atheris.instrument_imports(include=["mai"]):
    from mai.detectors import _c2pa_store, metadata
    from mai.provenance import (
        boxes,
        comfyui,
        containers,
        exif,
        generation,
        gif,
        iptc,
        rules,
        samsung,
        stealth,
        values,
        xmp,
    )
    from mai.provenance.reading import MAX_TOTAL, Reading, clean

import provenance_files as files

MAX_S = 5.0
EXPECTED = (struct.error, IndexError, ValueError)
Parser = Callable[[bytes], object]


def part(read: Callable[[bytes, Reading], object]) -> Parser:
    """A parser of one block, with what it may raise."""

    def run(data: bytes) -> None:
        reading = Reading()
        try:
            read(data, reading)
        except EXPECTED:
            return
        assert reading.n_bytes_left >= 0
        assert sum(len(f.value) for f in reading.fields) <= 4 * MAX_TOTAL

    return run


def whole(data: bytes) -> None:
    """A file through the detector: never raises, and gives nothing that could do anything."""
    (evidence,) = metadata.Detector().look([files.image(data)])
    assert evidence.status in ("ok", "absent"), evidence
    assert all(char.isprintable() for char in evidence.note), evidence.note
    json.dumps(evidence.details)


def texts(data: bytes) -> None:
    """The text at every place where a rule looks: rules, prompt graphs, notes."""
    text = data.decode("utf-8", "replace")
    reading = Reading("PNG")
    for key in sorted({key for rule in rules.RULES for key in (*rule.fields, *(rule.also or ((),))[0])}):
        reading.add(*key.split(":", 1), text)
    for name in sorted({str(s.generator) for s in rules.judge(reading)} | set(generation._READERS)):
        told = generation.read(reading, {name}).to_dict()
        assert all(str(v).isprintable() for v in told.values()), told
    comfyui.read(reading)
    values.aigc(text)
    clean(text, 100)


def c2pa_store(data: bytes) -> None:
    """Where a manifest would be, and whether it is too much; the library itself: test_c2pa_fuzz.py."""
    store = _c2pa_store.find(data)
    if store is not None and store.data is not None:
        _c2pa_store.too_much(store.data)


FIELDS = {
    "Iptc4xmpExt:DigitalSourceType": files.SOURCE_TYPE + "trainedAlgorithmicMedia",
    "xmp:CreatorTool": "Krea",
}
TAGS = {"Make": "Canon", "Model": "A40", "UserComment": "x\nSteps: 4, CFG scale: 1", "Software": "NovelAI"}


SIZE = (16, 16)
"""Pixels of a seed's picture. With 64 x 160 of noise a TIFF had 31 KB, its fields 2 KB."""


def blocks_exif() -> list[bytes]:
    """EXIF blocks of both byte orders."""
    block = files.exif_block(TAGS)
    big = (
        b"MM\0*\0\0\0\x08\0\x02\x01\x0f\0\x02\0\0\0\x06\0\0\0\x26\x01\x31\0\x02\0\0\0\x04abc\0\0\0\0\0Canon\0"
    )
    return [block, block.removeprefix(b"Exif\0\0"), big]


def blocks_iptc() -> list[bytes]:
    """Photoshop resources with IPTC in them."""
    return [files.iptc_segment({110: b"Made with Google AI", 65: b"Krea"})[4 + 14 :]]


def containers_of(*names: str) -> Callable[[], list[bytes]]:
    """Real files of some containers, hardly larger than what is read of them: what is changed should matter."""

    def made() -> list[bytes]:
        found = [files.encoded(n, exif=TAGS, xmp=FIELDS, size=SIZE) for n in names]
        if "PNG" in names:
            texts = {"parameters": TAGS["UserComment"], "prompt": "{}"}
            found.append(files.encoded("PNG", png=texts, xmp=FIELDS, size=SIZE))
        if "JPEG" in names:
            extended = files.extended_xmp(files.xmp_packet(FIELDS), part=400)
            found.append(files.jpeg_with(*extended, size=SIZE))
            others = files.iptc_segment({110: b"x"}), files.jpeg_segment(0xFE, b"a comment")
            found.append(files.jpeg_with(*others, size=SIZE))
        return found

    return made


def gifs() -> list[bytes]:
    """A comment, and XMP as it stands there: behind its name, before a trailer of 258 bytes."""
    return [
        files.gif_with(comment="a\nSteps: 4, Sampler: Euler a, CFG scale: 1", xmp=files.xmp_packet(FIELDS))
    ]


def words() -> list[bytes]:
    """What generators write."""
    from mai.provenance.xmp import AIGC_NAMES

    graph = {"3": {"class_type": "KSampler", "inputs": {"seed": 7, "positive": ["6", 0], "latent_image": ["5", 0]}},
             "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a bridge"}}}  # fmt: skip
    listed = [
        "a cat\nNegative prompt: dog\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42, Model: \"a, b\"",
        json.dumps(graph), "prompt:" + json.dumps(graph), json.dumps({"sui_image_params": {"prompt": "a", "seed": 1}}),
        json.dumps(dict.fromkeys(AIGC_NAMES, "1")), json.dumps({"AIGC": json.dumps({"Label": "1", "ProduceID": "x"})}),
        '"a red bridge [fog]" -s 50 -S 123 -W 512', "a --v 7 Job ID: 429271da-a844-45fa-96b4-9fb98b053164",
        json.dumps({"model_weights": "x", "image": {"prompt": [{"prompt": "a [b]"}], "seed": 9}}),
        "Signature: " + "Ab9+/" * 20, json.dumps({"genAIType": 2, "a": '{"genAIType": "1"}'}), files.novelai_text(),
    ]  # fmt: skip
    return [text.encode() for text in listed]


PARSERS: dict[str, tuple[Parser, Callable[[], Iterable[bytes]]]] = {
    "exif": (part(exif.read), blocks_exif),
    "tiff": (part(exif.read_tiff), containers_of("TIFF")),
    "xmp": (part(xmp.read), lambda: [files.xmp_packet(FIELDS), files.xmp_packet({}, "<a><b/></a>")]),
    "iptc": (part(iptc.read_resources), blocks_iptc),
    "iim": (part(iptc.read), lambda: [b"\x1c\x02\x6e\0\x01x\x1c\x02\x41\x80\x02\0\x03abc"]),
    "samsung": (part(samsung.read), lambda: [files.samsung_trailer(samsung.WANTED[0], '{"genAIType": 1}')]),
    "boxes": (part(boxes.read), containers_of("AVIF", "HEIF")),
    "png": (part(lambda data, r: containers.read(data)), containers_of("PNG")),
    "jpeg": (part(lambda data, r: containers.read(data)), containers_of("JPEG")),
    "webp": (part(lambda data, r: containers.read(data)), containers_of("WEBP")),
    "gif": (part(gif.read), gifs),
    "stealth": (part(stealth.read), lambda: [files.stealth_png("{}", magic.decode()) for magic in stealth.MAGICS]),
    "texts": (texts, words),
    "c2pa-store": (c2pa_store, containers_of("PNG", "JPEG", "WEBP", "TIFF", "AVIF")),
    "files": (whole, containers_of("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "HEIF")),
}  # fmt: skip


def main() -> None:
    """Run one parser; libFuzzer stops the process with a report when something is found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", nargs="?", choices=sorted(PARSERS))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    if asked.list or not asked.name:
        print("\n".join(sorted(PARSERS)))
        return
    run, seeds = PARSERS[asked.name]

    def one(data: bytes) -> None:
        before = time.process_time()
        run(data)
        took = time.process_time() - before
        assert took < MAX_S, f"{took:.1f} s for {len(data)} bytes"

    corpus = Path(tempfile.mkdtemp(prefix=f"mai-fuzz-{asked.name}-"))
    for number, seed in enumerate(seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={asked.seconds}", "-rss_limit_mb=1024", "-timeout=300", "-print_final_stats=1",
               "-max_len=65536", f"-artifact_prefix={corpus}{os.sep}found-"]  # fmt: skip
    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
