"""Whatever a file holds, it ends as an image or as one ImageError with a sentence; memory and time stay bounded."""

from __future__ import annotations

import io
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded, samples, scene
from PIL import Image as Pil

from mai.errors import ImageError
from mai.images.decode import Limits, decode, from_bytes, read
from mai.images.find import Found
from mai.types import STATUSES


@pytest.fixture
def in_time() -> Iterator[None]:
    """Ends the test after ten seconds: a read that waits for a pipe would wait for ever."""

    def late(*_: object) -> None:
        raise TimeoutError("still waiting after 10 s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def failure(source: Path | bytes, path: str | None = None, limits: Limits | None = None) -> ImageError:
    limits = limits or Limits()
    found = (
        Found(path or "<bytes>", data=source)
        if isinstance(source, bytes)
        else Found(path or str(source), file=source)
    )
    with pytest.raises(ImageError) as caught:
        decode(read(found, limits), limits)
    message = str(caught.value)
    assert message[0].isupper()
    assert "\n" not in message
    assert "Traceback" not in message
    return caught.value


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert failure(tmp_path / "a.jpg").status == "empty"


def test_text_named_jpg(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("Dear all,\nthe picture follows.\n")
    assert failure(tmp_path / "a.jpg").status == "not_an_image"


def test_bitmaps_are_not_texts_that_begin_with_bm() -> None:
    assert failure(b"BMW announced a car " * 9).status == "not_an_image"


def test_vanished_file(tmp_path: Path) -> None:
    assert failure(tmp_path / "gone.jpg").status == "not_found"
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert failure(tmp_path / "link.jpg").status == "not_found"
    (tmp_path / "file").touch()
    assert failure(tmp_path / "file" / "x.jpg").status == "not_found"
    assert failure(tmp_path / ("x" * 5000)).status in {"not_found", "not_readable"}
    assert failure(Path("a\0b.jpg")).status == "not_found"


def test_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to(tmp_path / "a.jpg")
    assert failure(tmp_path / "a.jpg").status == "not_readable"


def test_what_is_no_file(tmp_path: Path, in_time: None) -> None:
    assert failure(tmp_path).status == "not_a_file"
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "pipe" in str(failure(tmp_path / "pipe.jpg"))
    assert failure(tmp_path / "pipe.jpg").status == "not_a_file"
    assert failure(Path("/dev/zero")).status == "not_a_file"
    before = Path.cwd()
    os.chdir(tmp_path)  # a socket's path may have 108 bytes only
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("socket.jpg")
            assert failure(Path("socket.jpg")).status == "not_a_file"
    finally:
        os.chdir(before)


def test_file_without_rights(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(scene(), "PNG"))
    path.chmod(0)
    if os.geteuid() != 0:
        assert failure(path).status == "not_readable"
        return
    # Root reads everything, so a child gives its rights away.
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents:
        if "pytest" in folder.name and folder.stat().st_uid == 0:
            folder.chmod(0o755)
    code = """
        import os, sys
        from pathlib import Path
        from mai.errors import ImageError
        from mai.images.decode import read
        from mai.images.find import Found
        os.setgid(65534); os.setuid(65534)
        try:
            read(Found("a.png", file=Path(sys.argv[1])))
        except ImageError as error:
            print(error.status)
    """
    child = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], capture_output=True, text=True, check=False
    )
    assert child.stdout.strip() == "not_readable", child.stderr


def test_file_above_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.jpg"
    with path.open("wb") as stream:
        stream.truncate(2**40)  # sparse: a terabyte that takes no space
    error = failure(path)
    assert error.status == "too_large"
    assert "1,099,511,627,776" in str(error)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc: no file that states no size")
def test_file_that_states_no_size() -> None:
    assert failure(Path("/proc/self/maps")).status == "not_an_image"
    assert failure(Path("/proc/self/maps"), limits=Limits(max_bytes=100)).status == "too_large"


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def patched(data: bytes, at: int, *values: int, form: str) -> bytes:
    changed = bytearray(data)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def entry_of(tiff: bytes, tag: int) -> int:
    """Where a little-endian TIFF's first directory holds the 12 bytes of a tag."""
    start = struct.unpack_from("<I", tiff, 4)[0]
    count = struct.unpack_from("<H", tiff, start)[0]
    entries = [start + 2 + 12 * index for index in range(count)]
    return next(at for at in entries if struct.unpack_from("<H", tiff, at)[0] == tag)


def bombs() -> dict[str, bytes]:
    """Small files whose headers claim 60,000 x 60,000 pixels or as many as the format can."""
    jpeg, gif, bmp, tiff, webp = (encoded(scene(), kind) for kind in ("JPEG", "GIF", "BMP", "TIFF", "WEBP"))
    animated = encoded(scene(), "WEBP", save_all=True, append_images=[scene().rotate(9)])
    jp2 = encoded(scene(), "JPEG2000")
    box, code = jp2.index(b"ihdr") + 4, jp2.index(b"\xff\x4f\xff\x51")
    tiled = patched(tiff, entry_of(tiff, 278), 322, 4, 1, 2**28, form="<HHII")
    tiled = patched(tiled, entry_of(tiff, 284), 323, 4, 1, 2**28, form="<HHII")
    lossless = encoded(scene(), "WEBP", lossless=True)
    return {
        "png": png_header(60_000, 60_000),
        "png-header-alone": png_header(60_000, 60_000)[:33],
        "jpeg": patched(jpeg, jpeg.index(b"\xff\xc0") + 5, 60_000, 60_000, form=">HH"),
        "gif": patched(gif, 6, 60_000, 60_000, form="<HH"),
        "bmp": patched(bmp, 18, 60_000, 60_000, form="<ii"),
        "tiff": patched(tiff, entry_of(tiff, 256), 256, 4, 1, 4_000_000_000, form="<HHII"),
        "tiff-tiles": tiled,
        "webp": patched(webp, webp.index(b"\x9d\x01\x2a") + 3, 16383, 16383, form="<HH"),
        "webp-canvas": patched(animated, 24, 0xFFFF, 0xFF, 0xFFFF, form="<HBH"),
        "webp-lossless": patched(lossless, 21, 0x0FFFFFFF, form="<I"),
        "jp2-box": patched(jp2, box, 60_000, 60_000, form=">II"),
        "jp2-codestream": patched(jp2, code + 8, 60_000, 60_000, form=">II"),
    }


def test_a_png_that_ends_behind_its_header_is_told_without_the_parsers_words() -> None:
    error = failure(png_header(40, 30)[:33])
    assert error.status == "truncated"
    assert "buffer" not in str(error)
    assert "The PNG breaks off before its end (a field has too few bytes)" in str(error)


@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_before_anything_is_allocated(name: str) -> None:
    data = bombs()[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert failure(data).status == "too_large"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB on Linux, bytes on macOS
    assert grown < (64 * 2**10 if sys.platform == "linux" else 64 * 2**20)


def test_gif_whose_frame_is_larger_than_its_screen() -> None:
    data = encoded(scene(), "GIF")
    at = data.index(b"\x2c", 13 + 3 * 2 ** ((data[10] & 7) + 1))
    assert failure(patched(data, at + 5, 60_000, 60_000, form="<HH")).status == "too_large"


@pytest.mark.parametrize("name", samples())
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_files_that_break_off(files: dict[str, bytes], name: str, share: float) -> None:
    data = files[name][: max(int(len(files[name]) * share), 40)]
    try:
        image = decode(from_bytes(data))
    except ImageError as error:
        assert error.status == "truncated", f"{error.status}: {error}"
    else:
        # An animation or MPO may break off behind its first frame, a JPEG in its last bytes.
        assert name in {"gif-animated", "mpo"}, name
        assert image.pixels is not None


@pytest.mark.parametrize(
    ("data", "path"),
    [
        (b'<?xml version="1.0"?>\n<!-- made by hand -->\n<svg xmlns="http://www.w3.org/2000/svg"/>', "a.svg"),
        (b"8BPS\0\1" + bytes(40), "a.psd"),
        (b"%PDF-1.7\n", "a.pdf"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(40), "a.cr2"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "a.cr3"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a.mp4"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "a.webm"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "a.eps"),
        (b"\0\0\x01\0\x01\0\x10\x10\0\0\1\0\x20\0", "a.ico"),
        (b"P6\n2 2\n255\n" + bytes(12), "a.ppm"),
        (b"\xff\x0a" + bytes(20), "a.jxl"),
    ],
)
def test_other_kinds_are_named(data: bytes, path: str) -> None:
    assert failure(data, path).status == "unsupported"


def test_camera_raw_that_looks_like_tiff() -> None:
    thumbnail = encoded(scene(), "TIFF")
    assert failure(thumbnail, "DSC_0001.NEF").status == "unsupported"
    dng = encoded(scene(), "TIFF", tiffinfo={50706: b"\x01\x04\0\0"})
    assert failure(dng, "a.tif").status == "unsupported"


def test_damage_inside_is_told_from_a_cut() -> None:
    data = bytearray(encoded(scene(), "PNG"))
    at = data.index(b"IDAT") + 20
    data[at : at + 8] = bytes(8)
    error = failure(bytes(data))
    assert error.status == "truncated"
    assert "damaged" in str(error)


def test_the_animation_canvas_is_what_counts() -> None:
    frames = [Pil.new("RGB", (32, 32), colour) for colour in ("red", "blue", "green")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    assert failure(data, limits=Limits(max_pixels=1000)).status == "too_large"


def test_found_error_is_the_row() -> None:
    told = ImageError("not_readable", "The folder may not be read: no permission.")
    with pytest.raises(ImageError) as caught:
        read(Found("x", error=told))
    assert caught.value is told


FUZZ_LIMITS = Limits(max_bytes=2**20, max_pixels=4_000_000)


def survives(data: bytes) -> None:
    """Only ImageError comes out; pixels, if any, are within the limits."""
    try:
        image = decode(from_bytes(data, limits=FUZZ_LIMITS), FUZZ_LIMITS)
    except ImageError as error:
        assert error.status in STATUSES
        assert str(error)
    else:
        assert image.pixels is not None
        height, width = image.pixels.shape[:2]
        assert (width, height) == (image.info.width, image.info.height)
        assert width * height <= FUZZ_LIMITS.max_pixels


SAMPLES = samples()
FUZZ = settings(
    max_examples=int(os.environ.get("MAI_FUZZ_EXAMPLES", "40")),
    deadline=5000,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize("name", SAMPLES)
@FUZZ
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=6)), min_size=1, max_size=12
    ),
    keep=st.floats(0.02, 1.0),
    in_head=st.booleans(),
)
def test_mutations(name: str, edits: list[tuple[int, bytes]], keep: float, in_head: bool) -> None:
    original = SAMPLES[name]
    data = bytearray(original)
    span = min(len(data), 400 if in_head else len(data))
    for at, value in edits:
        at %= span
        data[at : at + len(value)] = value
    survives(bytes(data[: max(int(len(data) * keep), 1)]))


@FUZZ
@given(data=st.binary(max_size=300), name=st.sampled_from(sorted(SAMPLES)))
def test_right_beginnings_with_wrong_ends(data: bytes, name: str) -> None:
    survives(SAMPLES[name][:40] + data)


def test_no_codec_writes_on_stderr(files: dict[str, bytes], capfd: pytest.CaptureFixture[str]) -> None:
    for data in files.values():
        for at in range(20, len(data), max(len(data) // 40, 1)):
            survives(data[:at] + b"\xff\0\x55" + data[at + 3 :])
            survives(data[:at])
    assert capfd.readouterr().err == ""


def test_same_bytes_from_stream_and_file(tmp_path: Path, files: dict[str, bytes]) -> None:
    path = tmp_path / "a.webp"
    path.write_bytes(files["webp"])
    assert read(Found("x", file=path)).info == from_bytes(files["webp"]).info
    assert io.BytesIO(files["webp"]).read() == read(Found("x", file=path)).data
