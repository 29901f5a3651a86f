"""The detector as a whole: real files, stealth bits, agreement with others, and what the verdict makes of it."""

from __future__ import annotations

import csv
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import provenance_files as files
import pytest
from PIL import Image as Pil
from test_metadata_rules import A1111, AIGC, CASES, GRAPH, NOVELAI, TRAINED, WORKFLOW

from mai.detectors.metadata import Detector
from mai.pipeline import Scanner
from mai.provenance import containers, exif, stealth
from mai.provenance.reading import Reading
from mai.report.jsonlines import line
from mai.types import Evidence


def look(data: bytes | None) -> Evidence:
    return Detector().look([files.image(data)])[0]


# --- real files ------------------------------------------------------------------------------------------


def expected(shared: Path) -> list[dict[str, str]]:
    with (shared / "provenance" / "expected.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_real_files_declare_what_they_carry(shared: Path) -> None:
    for row in expected(shared):
        details = look((shared / "provenance" / row["file"]).read_bytes()).details
        if row["carries"].startswith("c2pa"):  # signed: another detector's
            assert details["declares"] is None, row
            continue
        assert details["declares"] == (None if row["declares"] == "none" else row["declares"]), row
        if row["declares"] == "synthetic":
            assert details["generator"] == row["carries"], row
            assert details["prompt"], row


def test_real_photographs_declare_nothing(root: Path) -> None:
    photographs = [
        p for p in (root / "examples" / "authentic").iterdir() if p.suffix in (".jpg", ".png", ".webp")
    ]
    assert photographs
    for path in photographs:
        assert look(path.read_bytes()).details["declares"] is None, path


def test_exif_reads_what_pillow_reads(shared: Path) -> None:
    names = {
        0x010F: "make",
        0x0110: "model",
        0x829A: "exposure_s",
        0x829D: "f_number",
        0x920A: "focal_length_mm",
    }
    n = 0
    for row in expected(shared):
        data = (shared / "provenance" / row["file"]).read_bytes()
        reading = containers.read(data)
        tags = Pil.open(io.BytesIO(data)).getexif()
        merged = {**tags, **tags.get_ifd(files.EXIF_IFD)}
        for tag, name in names.items():
            value = merged.get(tag)
            if isinstance(value, str):
                assert reading.camera[name] == value.split("\0")[0].strip()
                n += 1
            elif value is not None:
                assert reading.camera[name] == pytest.approx(float(value), rel=1e-5)
                n += 1
    assert n > 30


# --- stealth bits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "magic", ["stealth_pnginfo", "stealth_pngcomp", "stealth_rgbinfo", "stealth_rgbcomp"]
)
def test_stealth_bits_are_read(magic: str) -> None:
    details = look(files.stealth_png(files.novelai_text(), magic, (130, 160))).details
    assert (details["declares"], details["generator"]) == ("synthetic", "novelai")
    assert (details["prompt"], details["negative_prompt"], details["seed"]) == (
        "1girl, umbrella",
        "lowres",
        4242,
    )
    details = look(files.stealth_png(A1111, magic)).details
    assert (details["declares"], details["generator"]) == ("synthetic", "a1111")
    assert details["seed"] == 42


def test_stealth_bits_in_rgb_below_an_alpha_channel() -> None:
    details = look(files.stealth_png(A1111, "stealth_rgbcomp", opaque=True)).details
    assert details["generator"] == "a1111"


def test_stealth_text_of_an_unknown_program_declares() -> None:
    details = look(files.stealth_png('{"hello": "world"}')).details
    assert (details["declares"], details["generator"]) == ("synthetic", "stealth-pnginfo")


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}])
def test_stealth_bits_survive_in_the_alpha_channel_of_a_webp(options: dict[str, Any]) -> None:
    """libwebp keeps alpha to the last bit under lossy colours too."""
    stream = io.BytesIO()
    Pil.open(io.BytesIO(files.stealth_png(files.novelai_text()))).save(stream, "WEBP", exact=True, **options)
    details = look(stream.getvalue()).details
    assert (details["declares"], details["generator"]) == ("synthetic", "novelai")
    assert details["seed"] == 4242
    clear = io.BytesIO()
    files.pixels("RGBA").save(clear, "WEBP", exact=True, **options)
    evidence = look(clear.getvalue())
    assert (evidence.details["declares"], evidence.details.get("problems")) == (None, None)


def test_a_webp_without_alpha_is_not_decoded_for_hidden_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(stealth, "open_lazily", refuse)
    for options in (
        {"lossless": True},
        {"quality": 80},
        {"quality": 80, "exif": files.exif_block({"Make": "x"})},
    ):
        stream = io.BytesIO()
        files.pixels("RGB").save(stream, "WEBP", **options)
        assert look(stream.getvalue()).details["declares"] is None
    moving = io.BytesIO()
    files.pixels("RGBA").save(moving, "WEBP", save_all=True, append_images=[files.pixels("RGBA", seed=1)])
    assert look(moving.getvalue()).details["declares"] is None


def test_stealth_bits_in_a_picture_too_low_for_the_magic_in_one_column() -> None:
    details = look(files.stealth_png(files.novelai_text(), size=(160, 96))).details
    assert (details["declares"], details["generator"]) == ("synthetic", "novelai")
    text = look(files.stealth_png(A1111, "stealth_rgbcomp", size=(160, 20))).details
    assert text["generator"] == "a1111"
    wrong = files.stealth_png(A1111, "stealth_pngcomX", size=(160, 96))
    assert look(wrong).details["declares"] is None


def test_stealth_parameters_of_swarmui() -> None:
    text = json.dumps({"sui_image_params": {"prompt": "a red bridge", "model": "flux", "seed": 5}})
    details = look(files.stealth_png(text)).details
    assert (details["generator"], details["prompt"], details["seed"]) == ("swarmui", "a red bridge", 5)


def test_almost_stealth_bits_declare_nothing() -> None:
    wrong_magic = files.stealth_png(A1111, "stealth_pngcomq"[:14] + "X")
    no_gzip = files.stealth_png(A1111, "stealth_pnginfo")
    for data in (wrong_magic, _with_bit_flipped(no_gzip, 5), _rows_not_columns()):
        assert look(data).details["declares"] is None


def test_stealth_magic_with_an_impossible_length_declares_nothing() -> None:
    data = _with_bit_flipped(files.stealth_png(A1111, "stealth_pngcomp"), 121)
    evidence = look(data)
    assert evidence.details["declares"] is None
    assert "hidden text" in evidence.details["problems"][0]


def test_stealth_survives_every_png_filter() -> None:
    """Pillow chooses a filter by row; pictures of several kinds make it use all of them."""
    source = Pil.open(io.BytesIO(files.stealth_png(files.novelai_text(), size=(160, 200))))
    alpha = np.asarray(source)[:, :, 3]
    ramp = np.linspace(0, 255, 160, dtype=np.uint8)
    zero, kinds = np.zeros((200, 160), np.uint8), set()
    pictures = [np.dstack([np.tile(ramp, (200, 1)), zero, zero, alpha]), np.dstack([zero, zero, zero, alpha])]
    for smooth in (0.2, 0.5):
        noise = np.cumsum(np.random.default_rng(1).integers(-3, 4, (200, 160)), 0) * smooth
        grey = (noise % 256).astype(np.uint8)
        pictures.append(np.dstack([grey, grey, grey, alpha]))
    for picture in pictures:
        stream = io.BytesIO()
        Pil.fromarray(picture).save(stream, "PNG")
        kinds |= _filters(stream.getvalue())
        assert look(stream.getvalue()).details["generator"] == "novelai"
    assert len(kinds) >= 3, kinds


def _filters(data: bytes) -> set[int]:
    import zlib

    from mai.provenance import png

    raw = zlib.decompress(b"".join(data[at : at + n] for kind, at, n in png.chunks(data) if kind == b"IDAT"))
    return set(raw[:: 160 * 4 + 1])


def _with_bit_flipped(data: bytes, number: int) -> bytes:
    pixels = np.asarray(Pil.open(io.BytesIO(data))).copy()
    pixels[number % pixels.shape[0], number // pixels.shape[0], 3] ^= 1
    stream = io.BytesIO()
    Pil.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _rows_not_columns() -> bytes:
    """The same bits written row by row, as no program does."""
    pixels = np.asarray(Pil.open(io.BytesIO(files.stealth_png(A1111, size=(160, 160)))))
    stream = io.BytesIO()
    Pil.fromarray(pixels.swapaxes(0, 1).copy()).save(stream, "PNG")
    return stream.getvalue()


# --- agreement with sd-parsers ---------------------------------------------------------------------------

THEIR_NAMES = {
    "AUTOMATIC1111": "a1111",
    "ComfyUI": "comfyui",
    "InvokeAI": "invokeai",
    "NovelAI": "novelai",
    "Fooocus": "fooocus",
}


NOT_THEIRS = ("fooocus-a1111", "novelai-webp")
"""What sd-parsers takes for another program's, the second in some runs and not in others."""


def same(text: str | None) -> str:
    return " ".join((text or "").split())


def agree(data: bytes, name: str) -> bool:
    """True if both read the file; what they read is then compared."""
    sd_parsers = pytest.importorskip("sd_parsers", reason="sd-parsers is in the extra dev")
    theirs = sd_parsers.ParserManager(eagerness=sd_parsers.Eagerness.EAGER).parse(io.BytesIO(data))
    if theirs is None:
        return False
    ours: dict[str, Any] = dict(look(data).details)
    assert THEIR_NAMES[theirs.generator.value] == ours["generator"], name
    prompts = [same(prompt.value) for prompt in theirs.prompts]
    if prompts and ours.get("prompt"):
        assert same(ours["prompt"]).rstrip("…") in " ".join(prompts), name
    negative = [same(prompt.value) for prompt in theirs.negative_prompts]
    if negative and ours.get("negative_prompt"):
        assert same(ours["negative_prompt"]).rstrip("…") in " ".join(negative), name
    models = [s.model.name for s in theirs.samplers if s.model and isinstance(s.model.name, str)]
    if models and ours.get("model"):
        assert ours["model"] in models or ours["model"].startswith(models[0]), name
    seeds = {str(s.parameters.get("seed")) for s in theirs.samplers} - {"None"}
    if seeds and all(seed.isdigit() for seed in seeds):
        assert str(ours["seed"]) in seeds, name
    return True


def test_agrees_with_sd_parsers_on_made_files() -> None:
    both = 0
    for name, case in CASES.items():
        if case.generator in THEIR_NAMES.values() and name not in NOT_THEIRS:
            both += agree(case.file("PNG" if case.png else "JPEG"), name)
    both += agree(files.stealth_png(A1111), "stealth")
    both += agree(files.stealth_png(files.novelai_text()), "stealth novelai")
    assert both >= 9


def test_agrees_with_sd_parsers_on_real_files(shared: Path) -> None:
    rows = [row for row in expected(shared) if row["carries"] in THEIR_NAMES.values()]
    both = sum(agree((shared / "provenance" / row["file"]).read_bytes(), row["file"]) for row in rows)
    assert both >= 6


# --- evidence and verdict --------------------------------------------------------------------------------


def test_a_declaration_decides_and_says_that_anybody_could_write_it() -> None:
    record = Scanner(["metadata"]).scan(CASES["a1111"].file("PNG"))
    assert (record.label, record.reason) == ("synthetic", "declared_metadata")
    assert "anybody" in record.evidence[0].note
    json.loads(line(record))


def test_a_declared_edit_leaves_the_label_open() -> None:
    record = Scanner(["metadata"]).scan(CASES["google-edit"].file("JPEG"))
    assert record.verdict is not None
    assert (record.label, record.reason, record.verdict.edited) == ("inconclusive", "declared_edit", True)


def test_a_camera_is_context_and_proves_nothing() -> None:
    data = files.encoded("JPEG", exif={"Make": "Canon", "Model": "EOS R5"})
    record = Scanner(["metadata"]).scan(data)
    assert (record.label, record.reason) == ("inconclusive", "low_evidence")
    assert record.evidence[0].status == "ok"
    assert record.evidence[0].details["camera"] == {"make": "Canon", "model": "EOS R5"}
    claimed = Scanner(["metadata"]).scan(CASES["iptc-capture"].file("JPEG"))
    assert (claimed.label, claimed.reason) == ("inconclusive", "low_evidence")


def test_synthesis_outweighs_an_edit_or_capture_in_the_same_file() -> None:
    capture = {"Iptc4xmpExt:DigitalSourceType": files.SOURCE_TYPE + "digitalCapture"}
    details = look(files.encoded("PNG", png={"parameters": A1111}, xmp=capture)).details
    assert details["declares"] == "synthetic"
    assert {each["declares"] for each in details["statements"]} == {"synthetic", "capture"}


def test_nothing_said_is_absent_and_means_nothing() -> None:
    evidence = look(files.encoded("PNG"))
    assert evidence.status == "absent"
    assert "means nothing" in evidence.note
    assert look(None).status == "skipped"


def test_fields_are_read_beside_one_another() -> None:
    """Several generators in one file: all are told."""
    data = files.encoded(
        "PNG", png={"prompt": GRAPH, "workflow": WORKFLOW, "parameters": A1111, "AIGC": AIGC, **NOVELAI}
    )
    found = {each["generator"] for each in look(data).details["statements"]}
    assert found == {"comfyui", "a1111", "aigc-label", "novelai"}


def test_late_and_compressed_texts_are_read() -> None:
    import zlib

    body = b"parameters\0\0" + zlib.compress(A1111.encode())
    assert look(files.png_with(files.png_chunk(b"zTXt", body))).details["generator"] == "a1111"
    wide = b"parameters\0\1\0en\0\0" + zlib.compress(("é " + A1111).encode())
    assert look(files.png_with(files.png_chunk(b"iTXt", wide))).details["prompt"].startswith("é a lovely")
    assert look(files.png_with(files.png_chunk(b"zTXt", body), "behind")).details["declares"] is None


def test_raw_profiles_are_read() -> None:
    """ImageMagick's way: the JPEG block as hexadecimal text."""
    packet = files.xmp_packet({"Iptc4xmpExt:DigitalSourceType": TRAINED})
    text = f"\nxmp\n{len(packet):8d}\n{packet.hex()}\n"
    chunk = files.png_chunk(b"tEXt", b"Raw profile type xmp\0" + text.encode())
    assert look(files.png_with(chunk)).details["declares"] == "synthetic"


def test_iptc_credit_is_read_beside_the_source_type() -> None:
    packet = files.xmp_packet({"Iptc4xmpExt:DigitalSourceType": TRAINED})
    segment = files.jpeg_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)
    data = files.jpeg_with(segment, files.iptc_segment({110: b"Made with Google AI"}))
    assert look(data).details["generator"] == "google"


@pytest.mark.parametrize("order", ["little", "big", "bom"])
def test_user_comments_of_either_byte_order(order: str) -> None:
    coded = {"little": "utf-16-le", "big": "utf-16-be", "bom": "utf-16"}[order]
    reading = Reading()
    block = files.exif_block({"UserComment": b"UNICODE\0" + A1111.encode(coded)})
    exif.read(block, reading)
    assert [field.value for field in reading.fields] == [A1111]


def test_user_comment_in_the_first_directory_is_read() -> None:
    """Where Pillow's `exif[0x9286] = ...` puts it."""
    block = Pil.Exif()
    block[files.USER_COMMENT] = A1111
    stream = io.BytesIO()
    files.pixels().save(stream, "JPEG", exif=block.tobytes())
    assert look(stream.getvalue()).details["generator"] == "a1111"


def test_it_is_quick() -> None:
    """5 ms a file at the median is asked; the pixels of a large PNG are not touched."""
    stream = io.BytesIO()
    files.pixels("RGBA", (1024, 1024)).save(stream, "PNG", compress_level=1)
    made = [
        stream.getvalue(),
        *(case.file(kind) for case in CASES.values() for kind in case.containers if kind != "HEIF"),
    ]
    detector, seconds = Detector(), []
    detector.look([files.image(data) for data in made])
    for data in made:
        picture = files.image(data)
        start = time.process_time()
        detector.look([picture])
        seconds.append(time.process_time() - start)
    assert statistics.median(seconds) < 0.005
    assert max(seconds) < 0.05
