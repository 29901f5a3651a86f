"""Bombs, damage and noise: bounded time and memory, never an exception, and what stands before the damage counts."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

import provenance_files as files
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mai.detectors.metadata import Detector
from mai.provenance import boxes, exif, gif, iptc, samsung, xmp
from mai.provenance.reading import MAX_BLOCK, Reading, clean

MAX_S = 2.0
"""Seconds that the worst file may take on a busy machine."""
MAX_MEMORY = 160 << 20
"""Bytes that reading it may allocate at once, the file itself not counted."""


def look(data: bytes) -> Any:
    """The evidence; the time that it takes is held to its bound."""
    before = time.process_time()
    evidence = Detector().look([files.image(data)])[0]
    assert time.process_time() - before < MAX_S
    assert evidence.status in ("ok", "absent")
    return evidence


def look_and_weigh(data: bytes) -> Any:
    """The evidence; the memory that it takes is held to its bound too."""
    picture = files.image(data)
    tracemalloc.start()
    try:
        Detector().look([picture])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MAX_MEMORY
    return look(data)


TRAINED = {"Iptc4xmpExt:DigitalSourceType": files.SOURCE_TYPE + "trainedAlgorithmicMedia"}


def directory(entries: list[tuple[int, int, int, int]], at: int = 8, follow: int = 0) -> bytes:
    """A little-endian EXIF block of one directory: (tag, type, count, value or offset)."""
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return (
        b"II*\0" + struct.pack("<I", at) + struct.pack("<H", len(entries)) + rows + struct.pack("<I", follow)
    )


def test_a_compressed_text_that_unpacks_to_gigabytes() -> None:
    deflate = zlib.compressobj(9)
    body = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(64)) + deflate.flush()
    chunk = files.png_chunk(b"zTXt", b"parameters\0\0" + body)
    evidence = look_and_weigh(files.png_with(chunk * 20))  # 1.3 GB
    assert evidence.details["declares"] is None
    assert "unpacks to more than the limit" in evidence.details["problems"][0]


def test_a_text_behind_a_bomb_still_counts() -> None:
    bomb = files.png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(MAX_BLOCK + 1), 9))
    text = files.png_chunk(b"tEXt", b"parameters\0x\nSteps: 4, Sampler: Euler, Seed: 2")
    assert look(files.png_with(bomb + text)).details["declares"] == "synthetic"


def test_a_chunk_that_states_gigabytes() -> None:
    data = files.encoded("PNG")
    huge = (
        struct.pack(">I", 0x7FFFFFFF) + b"iTXt" + b"XML:com.adobe.xmp\0\0\0\0\0" + files.xmp_packet(TRAINED)
    )
    assert look(data[:-12] + huge).details["declares"] is None


def test_xmp_megabytes_into_the_file() -> None:
    """Behind 40 MB of other chunks and segments, where a reader of the first megabyte would not look."""
    xmp_chunk = files.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + files.xmp_packet(TRAINED))
    filler = files.png_chunk(b"teSt", bytes(1 << 20)) * 40
    assert look(files.png_with(filler + xmp_chunk)).details["declares"] == "synthetic"
    segment = files.jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + files.xmp_packet(TRAINED))
    icc = files.jpeg_segment(0xE2, b"ICC_PROFILE\0" + bytes(65_000)) * 600
    assert look(files.jpeg_with(icc, segment)).details["declares"] == "synthetic"
    webp = files.encoded("WEBP", xmp=TRAINED)
    size = struct.pack("<I", 20 << 20)
    wide = webp[:30] + b"JUNK" + size + bytes(20 << 20) + webp[30:]
    wide = wide[:4] + struct.pack("<I", len(wide) - 8) + wide[8:]
    assert look(wide).details["declares"] == "synthetic"


def test_xmp_of_megabytes() -> None:
    padding = "<xmpMM:x>" + "A" * (3 << 20) + "</xmpMM:x>"
    packet = files.xmp_packet(TRAINED, padding)
    assert look(files.encoded("PNG", xmp=packet)).details["declares"] == "synthetic"
    too_large = packet + b" " * MAX_BLOCK
    evidence = look_and_weigh(files.encoded("PNG", xmp=too_large))
    assert evidence.details["declares"] is None
    assert evidence.details["problems"]


def test_extended_xmp_counts_when_its_parts_fit() -> None:
    packet = files.xmp_packet(TRAINED, "<xmpMM:x>" + "A" * 300_000 + "</xmpMM:x>")
    parts = files.extended_xmp(packet)
    assert look(files.jpeg_with(*parts)).details["declares"] == "synthetic"
    assert look(files.jpeg_with(*parts[:-1])).details["declares"] is None
    alone = files.jpeg_with(*parts[1:])  # no main packet names it
    assert look(alone).details["declares"] is None
    other = [part.replace(part[39:71], b"0" * 32) if at else part for at, part in enumerate(parts)]
    assert look(files.jpeg_with(*other)).details["declares"] is None


def test_extended_xmp_that_states_gigabytes() -> None:
    main = files.extended_xmp(b"x")[0]
    guid = main[main.index(b"HasExtendedXMP>") + 15 :][:32]
    body = b"http://ns.adobe.com/xmp/extension/\0" + guid + struct.pack(">II", 0xFFFFFFFF, 0) + bytes(60_000)
    evidence = look(files.jpeg_with(main, files.jpeg_segment(0xE1, body) * 300))
    assert "over the limit" in evidence.details["problems"][0]


@pytest.mark.parametrize(
    "packet",
    [
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;">]><x:xmpmeta xmlns:x="adobe:ns:meta/">&b;</x:xmpmeta>',
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><x/>',
        files.xmp_packet({}, "<xmpMM:x/>" * 400_000),
        files.xmp_packet({}, "<xmpMM:x>" * 300_000),
        files.xmp_packet({}, "<xmpMM:x " + " ".join(f'a{n}="1"' for n in range(200_000)) + "/>"),
        files.xmp_packet(TRAINED)[:-80],
        files.xmp_packet(TRAINED).replace(b"trained", b"trained\xff\xfe"),
        files.xmp_packet(TRAINED).replace(
            b'<?xpacket begin="\xef\xbb\xbf"', b'<?xml version="1.0" encoding="nope"?><?x b=""'
        ),
    ],
    ids=["entities", "external", "elements", "depth", "attributes", "cut", "utf-8", "encoding"],
)
def test_hostile_xmp_says_nothing(packet: bytes) -> None:
    chunk = files.png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)
    evidence = look(files.png_with(chunk))
    assert evidence.details["declares"] is None
    assert any("XMP" in problem for problem in evidence.details.get("problems", ())) or b"a1=" in packet


@pytest.mark.parametrize(
    "block",
    [
        directory([(0x8769, 4, 1, 8)], follow=8),  # the Exif directory is the first one
        directory([(0x010F, 2, 100, 8)], follow=8),  # the next directory is the first one
        directory([(0x010F, 2, 0xFFFFFFFF, 8)]),
        directory([(0x010F, 2, 50, 0xFFFFFFF0)]),
        directory([(0x8769, 4, 1, 0xFFFFFFFF)]),
        directory([(0x8769, 2, 1, 9)]),
        directory([], at=0),
        directory([], at=0xFFFFFFFF),
        directory([(tag, 7, 60_000, 8) for tag in range(5_000)]),
        directory([(0x010E, 2, 60_000, 8)] * 5_000),
        directory([(0x829A, 5, 1, 8)] * 3),
        b"II*\0",
        b"II\x2b\0\x08\0\0\0" + b"\xff" * 8,
        b"Exif\0\0",
        b"XX*\0\x08\0\0\0",
    ],
)
def test_malformed_exif_says_nothing(block: bytes) -> None:
    data = files.png_with(files.png_chunk(b"eXIf", block.ljust(60_100, b"\xff")))
    assert look(data).details["declares"] is None
    assert (
        look(files.jpeg_with(files.jpeg_segment(0xE1, b"Exif\0\0" + block[:60_000]))).details["declares"]
        is None
    )


def test_filler_entries_do_not_hide_a_real_one() -> None:
    """Where a reader stops at a total of bytes, values that all point at one place use it up."""
    rows = [(tag, 7, 60_000, 8) for tag in range(1, 271)] + [(0x010F, 2, 12, 60_012)]
    block = directory(rows).ljust(60_012, b"\xff") + b"Ideogram AI\0"
    assert look_and_weigh(files.png_with(files.png_chunk(b"eXIf", block))).details["generator"] == "ideogram"


def test_one_broken_entry_leaves_the_others() -> None:
    block = directory([(0x010E, 2, 90, 0xFFFFFFF0), (0x010F, 2, 12, 38)]) + b"Ideogram AI\0"
    evidence = look(files.png_with(files.png_chunk(b"eXIf", block)))
    assert evidence.details["generator"] == "ideogram"
    assert evidence.details["problems"]


def test_many_small_parts_end() -> None:
    chunks = files.png_with(files.png_chunk(b"teSt", b"") * 60_000)
    assert "chunks" in look(chunks).details["problems"][0]
    segments = files.jpeg_with(files.jpeg_segment(0xE5, b"") * 60_000)
    assert "segments" in look(segments).details["problems"][0]
    texts = files.png_with(files.png_chunk(b"tEXt", b"a\0b") * 20_000)
    assert "fields" in look(texts).details["problems"][0]
    riff = b"RIFF" + struct.pack("<I", 4 + 8 * 60_000) + b"WEBP" + b"JUNK\0\0\0\0" * 60_000
    assert "chunks" in look(riff).details["problems"][0]


def test_json_that_is_deep_or_large_says_nothing() -> None:
    for text in ('{"a":' * 100_000, '{"1": ' + "9" * 100_000 + "}", "{" + '"a": 1, ' * 2_000_000):
        chunk = files.png_chunk(b"tEXt", b"prompt\0" + text.encode())
        assert look(files.png_with(chunk)).details["declares"] is None


def test_a_graph_that_is_a_circle_ends() -> None:
    nodes = ", ".join(
        f'"{n}": {{"class_type": "KSampler", "inputs": {{"positive": ["{n + 1}", 0], "model": ["{n}", 0],'
        f' "latent_image": ["1", 0], "seed": ["{n}", 0]}}}}'
        for n in range(2_500)
    )
    chunk = files.png_chunk(b"tEXt", b"prompt\0{" + nodes.encode() + b"}")
    assert look(files.png_with(chunk)).details["generator"] == "comfyui"


def test_a_damaged_chunk_says_nothing() -> None:
    chunk = files.png_chunk(b"tEXt", b"parameters\0x\nSteps: 4, Sampler: Euler, Seed: 2")
    evidence = look(files.png_with(chunk[:-1] + bytes((chunk[-1] ^ 1,))))
    assert evidence.details["declares"] is None
    assert "checksum" in evidence.details["problems"][0]


def test_an_item_that_lies_everywhere() -> None:
    """An AVIF whose XMP item is 60,000 times the whole file."""
    data = bytearray(files.encoded("AVIF", xmp=TRAINED))
    assert look(bytes(data)).details["declares"] == "synthetic"
    infe = b"\2\0\0\0\0\1\0\0mime\0application/rdf+xml\0\0"
    infe = struct.pack(">I4s", 8 + len(infe), b"infe") + infe
    iinf = struct.pack(">I4sIH", 14 + len(infe), b"iinf", 0, 1) + infe
    rows = struct.pack(">II", 0, 1 << 20) * 60_000
    iloc_body = struct.pack(">IBBHHHH", 0, 0x44, 0, 1, 1, 0, 60_000) + rows
    iloc = struct.pack(">I4s", 8 + len(iloc_body), b"iloc") + iloc_body
    meta = struct.pack(">I4sI", 12 + len(iinf) + len(iloc), b"meta", 0) + iinf + iloc
    hostile = bytes(data[: struct.unpack_from(">I", data)[0]]) + meta + bytes(1 << 20)
    evidence = look_and_weigh(hostile)
    assert evidence.details["declares"] is None
    assert "over the limit" in evidence.details["problems"][0]


def test_extents_that_take_no_room_are_not_counted_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths of zero: 65,535 extents an item cost a file no byte, and the reader 30 ms."""
    data = bytearray(files.encoded("AVIF", exif={"Make": "Ideogram AI"}, size=(16, 16)))
    assert look(bytes(data)).details["declares"] == "synthetic"
    at = data.index(b"iloc") + 8
    data[at : at + 4] = b"\0\0\xff\xff"
    for row in range(at + 4, at + 28, 6):
        data[row + 4 : row + 6] = b"\xff\xff"
    monkeypatch.setattr(boxes, "MAX_PARTS", 100)
    evidence = look(bytes(data))
    assert evidence.details["declares"] is None
    assert "damaged" in evidence.details["problems"][0], "it stopped at the end of the box, not at the limit"


def test_a_gif_of_endless_blocks_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gif, "MAX_PARTS", 100)
    many = files.gif_with()[:-1] + b"\x21\xfe\x01a\0" * 200 + b";"
    evidence = look(many)
    assert evidence.details["problems"] == ["It has more than 100 blocks; the rest was not read."]
    cut = files.gif_with(comment="x" * 300, xmp=files.xmp_packet(TRAINED))
    for end in range(6, len(cut)):
        assert look(cut[:end]).details["declares"] in (None, "synthetic")


def test_foreign_text_comes_out_harmless_and_short() -> None:
    nasty = "cat \x1b[2J\x07 \u202egpj.exe \u200b<script>alert(1)</script>" + "x" * 50_000
    text = f"{nasty}\nSteps: 4, Sampler: Euler, Seed: 2, Model: m\x1b[31m"
    evidence = look(files.encoded("PNG", png={"parameters": text}))
    for shown in (evidence.note, evidence.details["prompt"], evidence.details["model"]):
        assert len(shown) <= 1_200
        assert not any(char in shown for char in "\x1b\x07\u202e\u200b\n")
    assert clean("a\0b\r\nc\ud800", 99) == "a b c"


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"\xff\xd8\xff", bytes(4096)]
)
def test_hardly_a_file_says_nothing(data: bytes) -> None:
    assert look(data).details["declares"] is None


# --- fuzz ------------------------------------------------------------------------------------------------


@cache
def seeds() -> tuple[bytes, ...]:
    """A file of each container with fields in it, small."""
    exif_tags = {"Make": "Canon", "Software": "Krea", "UserComment": "x\nSteps: 4, Sampler: Euler"}
    made = [
        files.encoded(kind, exif=exif_tags, xmp=TRAINED) for kind in ("PNG", "JPEG", "WEBP", "AVIF", "TIFF")
    ]
    made.append(
        files.encoded("PNG", png={"parameters": "x\nSteps: 4, Sampler: Euler", "AIGC": '{"Label": "1"}'})
    )
    made.append(
        files.jpeg_with(
            *files.extended_xmp(files.xmp_packet(TRAINED)), files.iptc_segment({110: b"Made with Google AI"})
        )
    )
    made.append(files.encoded("JPEG") + files.samsung_trailer("PhotoEditor_Re_Edit_Data", '{"genAIType": 1}'))
    made.append(files.stealth_png(files.novelai_text()))
    return tuple(made)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real file with bytes changed, parts removed, doubled or moved, or its end cut."""
    data = bytearray(draw(st.sampled_from(seeds())))
    # Most of a file is pixels: aim at its beginning, where the structure is.
    place = st.one_of(st.integers(0, min(2_000, len(data) - 1)), st.integers(0, len(data) - 1))
    for _ in range(draw(st.integers(1, 6))):
        at, kind = min(draw(place), max(len(data) - 1, 0)), draw(st.integers(0, 4))
        if kind == 0:
            data[at : at + 1] = bytes((draw(st.integers(0, 255)),))
        elif kind == 1:
            data[at : at + 4] = draw(
                st.sampled_from((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x08"))
            )
        elif kind == 2:
            del data[at : at + draw(st.integers(1, 64))]
        elif kind == 3:
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        else:
            del data[at:]
    return bytes(data)


PARSERS: dict[str, Callable[[bytes, Reading], object]] = {
    "exif": exif.read,
    "tiff": exif.read_tiff,
    "xmp": xmp.read,
    "iptc": iptc.read_resources,
    "iim": iptc.read,
    "samsung": samsung.read,
    "boxes": boxes.read,
}
HEADS = {
    "exif": (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"Exif\0\0II\x2b\0\x08\0\0\0\x10\0\0\0\0\0\0\0"),
    "tiff": (b"II*\0\x08\0\0\0",),
    "xmp": (b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>", b""),
    "iptc": (b"8BIM\x04\x04\0\0",),
    "iim": (b"\x1c\x02\x6e",),
    "samsung": (b"SEFH",),
    "boxes": (b"\0\0\0\x18ftypavif\0\0\0\0avifmif1mif1",),
}


def run_files(data: bytes) -> None:
    before = time.process_time()
    (evidence,) = Detector().look([files.image(data)])
    assert time.process_time() - before < MAX_S
    assert evidence.status in ("ok", "absent")
    assert len(evidence.note) < 2_000


def run_parser(name: str, body: bytes) -> None:
    """A parser may stop at damage only by what containers.read turns into a problem; it never hangs."""
    for head in HEADS[name]:
        before = time.process_time()
        with suppress(struct.error, IndexError, ValueError):
            PARSERS[name](head + body, Reading())
        assert time.process_time() - before < MAX_S


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(damaged())
def test_damaged_files_never_raise(data: bytes) -> None:
    run_files(data)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60, deadline=None)
@given(body=st.binary(max_size=400))
@example(body=b"")
def test_noise_never_hangs_a_parser(name: str, body: bytes) -> None:
    run_parser(name, body)


@pytest.mark.soak
@pytest.mark.parametrize("name", ["files", *PARSERS])
def test_soak_ten_minutes_of_noise(name: str) -> None:
    """Each parser on its own, and damaged files through the whole detector."""
    end = time.monotonic() + 600
    count = 0

    @settings(max_examples=2_000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged() if name == "files" else st.binary(max_size=2_000))
    def round_of_noise(data: bytes) -> None:
        nonlocal count
        count += 1
        if name == "files":
            run_files(data)
        else:
            run_parser(name, data)

    while time.monotonic() < end:
        round_of_noise()
    print(f"{name}: {count} inputs")
