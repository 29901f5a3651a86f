"""Every format and variety comes out as the right colours, upright, 8-bit RGB."""

from __future__ import annotations

import hashlib
import io
import struct
import threading
import time
import warnings
import zlib

import numpy as np
import pytest
from pictures import HAS_HEIF, encoded, exif_of, scene
from PIL import Image as Pil
from PIL import ImageCms

from mai.errors import ImageError, UsageError
from mai.images import colour as colours
from mai.images.decode import (
    Limits,
    decode,
    decode_reduced,
    from_array,
    from_bytes,
    from_pil,
    reduction,
    small,
)
from mai.types import Image

# Largest difference to the picture that was encoded, in levels: a lossy codec's own.
KINDS = {
    "jpeg": ("JPEG", 12),
    "jpeg-cmyk": ("JPEG", 12),
    "png": ("PNG", 0),
    "webp": ("WEBP", 16),
    "webp-lossless-alpha": ("WEBP", 0),
    "webp-animated": ("WEBP", 16),
    "avif": ("AVIF", 16),
    "gif": ("GIF", 40),
    "gif-animated": ("GIF", 40),
    "tiff": ("TIFF", 0),
    "tiff-lzw": ("TIFF", 0),
    "tiff-jpeg": ("TIFF", 30),
    "bmp": ("BMP", 0),
    "mpo": ("MPO", 12),
    "jp2": ("JPEG2000", 0),
}


def pixels_of(data: bytes, path: str = "<bytes>") -> np.ndarray:
    image = decode(from_bytes(data, path))
    assert image.pixels is not None
    assert image.pixels.dtype == np.uint8
    assert image.pixels.shape == (image.info.height, image.info.width, 3)
    assert image.pixels.flags.c_contiguous
    return image.pixels


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b.astype(int)).max())


@pytest.mark.parametrize("name", KINDS)
def test_each_format_shows_its_first_frame(files: dict[str, bytes], name: str) -> None:
    kind, tolerance = KINDS[name]
    image = from_bytes(files[name])
    assert image.pixels is None
    assert (image.info.format, image.info.width, image.info.height) == (kind, 48, 32)
    assert image.info.n_bytes == len(files[name])
    assert image.info.sha256 == hashlib.sha256(files[name]).hexdigest()
    assert difference(pixels_of(files[name]), np.asarray(scene())) <= tolerance


@pytest.mark.skipif(not HAS_HEIF, reason="pillow-heif is not installed (extra heif)")
def test_heic(files: dict[str, bytes]) -> None:
    assert from_bytes(files["heic"]).info.format == "HEIF"
    assert difference(pixels_of(files["heic"]), np.asarray(scene())) <= 24


@pytest.mark.skipif(not HAS_HEIF, reason="pillow-heif is not installed (extra heif)")
def test_heic_that_was_turned_is_upright() -> None:
    import pillow_heif

    # As a phone writes it: a rotation box, and the same in EXIF, which counts for nothing in HEIF.
    stored = scene().transpose(Pil.Transpose.ROTATE_90)
    file = pillow_heif.from_bytes("RGB", stored.size, stored.tobytes())
    file.info["exif"] = exif_of(6).tobytes()
    stream = io.BytesIO()
    file.save(stream, quality=90)
    data = stream.getvalue()
    assert b"irot" in data
    info = from_bytes(data).info
    assert (info.width, info.height) == (48, 32)
    assert difference(pixels_of(data), np.asarray(scene())) <= 24


def test_heic_without_the_extra_says_what_to_install(
    files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    with pytest.raises(ImageError, match=r"pip install 'mai-identifier\[heif\]'") as caught:
        from_bytes(files.get("heic", head))
    assert caught.value.status == "unsupported"


# How each orientation stores the upright scene: the inverse of what sets it upright.
STORED = {
    1: None,
    2: Pil.Transpose.FLIP_LEFT_RIGHT,
    3: Pil.Transpose.ROTATE_180,
    4: Pil.Transpose.FLIP_TOP_BOTTOM,
    5: Pil.Transpose.TRANSPOSE,
    6: Pil.Transpose.ROTATE_90,
    7: Pil.Transpose.TRANSVERSE,
    8: Pil.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_exif_orientation(kind: str, orientation: int) -> None:
    turn = STORED[orientation]
    stored = scene().transpose(turn) if turn is not None else scene()
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, kind, exif=exif_of(orientation), **options)
    info = from_bytes(data).info
    assert (info.width, info.height) == (48, 32)
    assert difference(pixels_of(data), np.asarray(scene())) <= (16 if kind in {"JPEG", "AVIF", "MPO"} else 0)


def test_exif_behind_the_pixels_of_a_png() -> None:
    data = encoded(scene().transpose(Pil.Transpose.ROTATE_90), "PNG")
    body = exif_of(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    at = data.index(b"IEND") - 4
    data = data[:at] + chunk + data[at:]
    assert (from_bytes(data).info.width, from_bytes(data).info.height) == (48, 32)
    assert difference(pixels_of(data), np.asarray(scene())) == 0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    values = np.array([[0, 256, 257, 32768], [40000, 65278, 65535, 128]], np.uint16)
    values = np.kron(values, np.ones((8, 8), np.uint16))  # JPEG 2000 wants more than a few pixels
    pixels = pixels_of(encoded(Pil.fromarray(values), kind))
    assert difference(pixels[..., 0], np.rint(values / 257.0)) == 0
    assert (pixels[..., 0] == pixels[..., 2]).all()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    rest = chunk(extra[:4], extra[4:]) if extra else b""
    body = chunk(b"IHDR", head) + rest + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_16_bit_rgb_png() -> None:
    values = [(0, 30000, 65535), (65535, 257, 12850)]
    row = b"\0" + b"".join(struct.pack(">3H", *value) for value in values)
    pixels = pixels_of(png(2, 1, 16, 2, row))
    assert difference(pixels[0], np.array([[0, 117, 255], [255, 1, 50]])) <= 1  # libpng's rule: the high byte


def test_transparent_colour_of_a_16_bit_png_is_white() -> None:
    row = b"\0" + struct.pack(">6H", 1000, 30000, 65535, 65535, 257, 12850)
    pixels = pixels_of(png(2, 1, 16, 2, row, b"tRNS" + struct.pack(">3H", 1000, 30000, 65535)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[0, 1].tolist() == [255, 1, 50]
    grey = b"\0" + struct.pack(">2H", 1000, 40000)
    assert pixels_of(png(2, 1, 16, 0, grey, b"tRNS" + struct.pack(">H", 1000)))[0, :, 0].tolist() == [
        255,
        156,
    ]


def test_tiff_of_floats() -> None:
    share = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    assert difference(pixels_of(encoded(Pil.fromarray(share), "TIFF"))[..., 0], np.rint(share * 255)) == 0
    measured = share * 5000 - 1000
    measured[0, 0] = np.nan
    pixels = pixels_of(encoded(Pil.fromarray(measured), "TIFF"))
    assert pixels.max() == 255
    assert pixels[7, 7, 0] > pixels[4, 4, 0] > pixels[1, 1, 0]


def test_floats_are_scaled_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in one piece and row by row, with what is no number as 0."""
    values = np.linspace(-3, 900, 96, dtype=np.float32).reshape(12, 8)
    values[5, 3], values[7, 1] = np.nan, np.inf
    stream = io.BytesIO()
    Pil.fromarray(values).save(stream, "TIFF")
    whole = decode(from_bytes(stream.getvalue())).pixels
    monkeypatch.setattr(colours, "STRIP_PIXELS", 8)
    rows = decode(from_bytes(stream.getvalue())).pixels
    assert whole is not None
    assert rows is not None
    assert np.array_equal(whole, rows)
    assert whole[0, 0, 0] == 0
    assert whole[-1, -1, 0] == 255


def test_tiff_whose_zero_is_white() -> None:
    values = np.array([[0, 65535], [257, 25700]], np.uint16)
    data = bytearray(encoded(Pil.fromarray(values), "TIFF"))
    tag = data.index(struct.pack("<HHI", 262, 3, 1))
    struct.pack_into("<H", data, tag + 8, 0)
    assert pixels_of(bytes(data))[..., 0].tolist() == [[255, 0], [254, 155]]


def test_ycck_jpeg_is_not_a_negative() -> None:
    # Adobe's marker with transform 2 makes libjpeg read YCCK; Pillow writes transform 0, as CMYK is stored.
    cmyk = Pil.new("CMYK", (32, 32), (0, 255, 255, 0))
    pixels = pixels_of(encoded(cmyk, "JPEG", quality=95))
    assert pixels[16, 16, 0] > 240
    assert pixels[16, 16, 1:].max() < 15
    data = bytearray(encoded(Pil.new("CMYK", (32, 32), (0, 0, 0, 200)), "JPEG", quality=95))
    adobe = data.index(b"Adobe")
    data[adobe + 11] = 2
    assert from_bytes(bytes(data)).info.format == "JPEG"
    assert pixels_of(bytes(data)).shape == (32, 32, 3)


def test_alpha_lies_over_white() -> None:
    picture = Pil.new("RGBA", (4, 1))
    for x, colour in enumerate([(200, 100, 0, 0), (200, 100, 0, 128), (200, 100, 0, 255), (0, 0, 0, 51)]):
        picture.putpixel((x, 0), colour)
    expected = [[255, 255, 255], [227, 177, 127], [200, 100, 0], [204, 204, 204]]
    for kind in ("PNG", "TIFF"):
        assert difference(pixels_of(encoded(picture, kind))[0], np.array(expected)) <= 1
    grey = Pil.new("LA", (2, 1), (0, 0))
    grey.putpixel((1, 0), (100, 255))
    assert pixels_of(encoded(grey, "PNG"))[0].tolist() == [[255] * 3, [100] * 3]


def test_palette_with_transparency() -> None:
    picture = Pil.new("P", (3, 1))
    picture.putpalette([10, 20, 30, 200, 0, 0, 0, 0, 250] + [0] * (253 * 3))
    for x in range(3):
        picture.putpixel((x, 0), x)
    white, red, blue = [255, 255, 255], [200, 0, 0], [0, 0, 250]
    assert pixels_of(encoded(picture, "PNG", transparency=0))[0].tolist() == [white, red, blue]
    table = pixels_of(encoded(picture, "PNG", transparency=bytes([0, 255, 128])))[0]
    assert difference(table, np.array([white, red, [127, 127, 252]])) <= 1
    assert pixels_of(encoded(picture, "GIF", transparency=1))[0].tolist() == [[10, 20, 30], white, blue]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit(kind: str) -> None:
    picture = Pil.fromarray(np.eye(9, dtype=np.uint8) * 255).convert("1")
    pixels = pixels_of(encoded(picture, kind))
    assert (pixels[..., 1] == np.eye(9, dtype=np.uint8) * 255).all()


def test_lab_and_ycbcr_tiff() -> None:
    lab = Pil.merge("LAB", [Pil.new("L", (4, 4), 255), Pil.new("L", (4, 4), 128), Pil.new("L", (4, 4), 128)])
    white = pixels_of(encoded(lab, "TIFF"))
    assert white.min() > 240  # Pillow's own convert() has no way from LAB
    ycbcr = Pil.new("RGB", (4, 4), (200, 40, 40)).convert("YCbCr")
    assert difference(pixels_of(encoded(ycbcr, "TIFF"))[0, 0], np.array([200, 40, 40])) <= 3


def test_first_page_of_a_tiff() -> None:
    pages = [Pil.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert pixels_of(data)[0, 0].tolist() == [255, 0, 0]


# --- colour profiles -------------------------------------------------------------------------------------------


def matrix_profile(colours: dict[bytes, tuple[float, float, float]], gamma: float) -> bytes:
    """An ICC v2 display profile of three colorants (XYZ at D50) and one gamma. Source: ICC.1:2001-04."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    white = (0.9642, 1.0, 0.8249)
    text = b"test profile\0"
    blocks = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78),
        b"wtpt": b"XYZ " + bytes(4) + b"".join(map(fixed, white)),
        **{name: b"XYZ " + bytes(4) + b"".join(map(fixed, xyz)) for name, xyz in colours.items()},
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body = b"", b""
    start = 128 + 4 + 12 * len(blocks)
    for name, block in blocks.items():
        block += bytes(-len(block) % 4)
        table += name + struct.pack(">II", start + len(body), len(block))
        body += block
    head = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + b"".join(map(fixed, white)) + bytes(48)
    return head + struct.pack(">I", len(blocks)) + table + body


# Colorants at D50, from the sRGB profile of the ICC (sRGB2014) and from Apple's Display P3.
SRGB = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}
P3 = {
    b"rXYZ": (0.5151, 0.2412, -0.0011),
    b"gXYZ": (0.2920, 0.6922, 0.0419),
    b"bXYZ": (0.1571, 0.0666, 0.7841),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_wide_colours_are_brought_to_srgb(kind: str) -> None:
    # (200, 100, 100) in P3 with gamma 2.2 has more red in sRGB: by the matrices of both, (213, 95, 97).
    options = {"quality": 100} if kind in {"JPEG", "AVIF"} else {"lossless": True} if kind == "WEBP" else {}
    picture = Pil.new("RGB", (16, 16), (200, 100, 100))
    data = encoded(picture, kind, icc_profile=matrix_profile(P3, 2.2), **options)
    assert difference(pixels_of(data)[8, 8], np.array([213, 95, 97])) <= 4


def test_linear_profile_brightens() -> None:
    data = encoded(Pil.new("RGB", (4, 4), (55, 55, 55)), "PNG", icc_profile=matrix_profile(SRGB, 1.0))
    assert difference(pixels_of(data)[0, 0], np.array([128, 128, 128])) <= 2  # sRGB of a linear 55/255


def test_alpha_survives_a_profile() -> None:
    picture = Pil.new("RGBA", (2, 1), (55, 55, 55, 255))
    picture.putpixel((1, 0), (55, 55, 55, 0))
    pixels = pixels_of(encoded(picture, "PNG", icc_profile=matrix_profile(SRGB, 1.0)))
    assert difference(pixels[0], np.array([[128] * 3, [255] * 3])) <= 2


def test_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert difference(pixels_of(encoded(scene(), "PNG", icc_profile=profile)), np.asarray(scene())) == 0


@pytest.mark.parametrize("profile", [b"junk", b"\0" * 200, matrix_profile(P3, 2.2)[:150], b"x" * (5 * 2**20)])
def test_broken_profile_is_ignored(profile: bytes) -> None:
    data = encoded(scene(), "TIFF", icc_profile=profile)
    assert difference(pixels_of(data), np.asarray(scene())) == 0


def test_profile_of_another_colour_space_is_ignored() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for picture in (scene(), scene().convert("L")):
        pixels = pixels_of(encoded(picture, "PNG", icc_profile=lab))
        assert difference(pixels, np.asarray(picture.convert("RGB"))) == 0
    grey = pixels_of(encoded(scene().convert("L"), "PNG", icc_profile=matrix_profile(P3, 2.2)))
    assert difference(grey, np.asarray(scene().convert("L").convert("RGB"))) == 0


# --- the Python API --------------------------------------------------------------------------------------------


def test_arrays() -> None:
    array = np.asarray(scene()).copy()
    image = from_array(array)
    assert (image.info.format, image.info.width, image.info.height, image.info.n_bytes) == (
        "array",
        48,
        32,
        None,
    )
    array[:] = 0
    assert difference(image.pixels, np.asarray(scene())) == 0  # the caller's later changes do not reach it
    assert decode(image) is image
    assert from_array(np.full((3, 2), 7, np.uint8)).pixels.tolist() == [[[7] * 3] * 2] * 3
    assert from_array(np.full((3, 2, 1), 7, np.uint8)).pixels.shape == (3, 2, 3)
    assert from_array(np.zeros((1, 1, 4), np.uint8)).pixels.tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((0, 4, 3), np.uint8)]
)
def test_other_arrays_are_wrong_use(bad: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"array"):
        from_array(bad)


def test_pil_images(files: dict[str, bytes]) -> None:
    opened = Pil.open(io.BytesIO(files["jpeg-progressive"]))
    turned = from_pil(opened)
    assert turned.pixels.shape == (48, 32, 3)
    assert difference(turned.pixels, pixels_of(files["jpeg-progressive"])) == 0
    assert from_pil(Pil.new("RGBA", (2, 2))).pixels.min() == 255
    with pytest.raises(ImageError) as caught:
        from_pil(Pil.open(io.BytesIO(files["jpeg"][:-60])))
    assert caught.value.status == "truncated"


def test_warnings_stay_inside_and_filters_as_they_were(
    files: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    # 'Corrupt EXIF data' is what Pillow warns of here.
    exif = exif_of(6).tobytes()
    data = encoded(scene(), "JPEG", exif=exif[:-6])
    bad_tiff = files["tiff"][:4] + files["tiff"][4:].replace(
        struct.pack("<HH", 258, 3), struct.pack("<HH", 258, 9)
    )
    before = list(warnings.filters)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(20):
                decode(from_bytes(data))
                try:
                    decode(from_bytes(bad_tiff))
                except ImageError:
                    continue
        except BaseException as error:
            failures.append(error)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inside = list(warnings.filters)
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(warnings.filters) == inside
    assert not failures
    assert [str(warning.message) for warning in caught] == []
    assert list(warnings.filters) == before
    assert capfd.readouterr().err == ""


def test_limits_are_per_call_and_leave_pillow_alone() -> None:
    picture = Pil.new("L", (100, 100))
    data = encoded(picture, "PNG")
    with pytest.raises(ImageError, match="100 x 100 pixels") as caught:
        from_bytes(data, limits=Limits(max_pixels=9_999))
    assert caught.value.status == "too_large"
    assert from_bytes(data, limits=Limits(max_pixels=10_000)).info.width == 100
    with pytest.raises(ImageError) as caught:
        from_bytes(data, limits=Limits(max_bytes=20))
    assert caught.value.status == "too_large"
    image = from_bytes(data)
    with pytest.raises(ImageError) as caught:
        decode(image, Limits(max_pixels=9_999))
    assert caught.value.status == "too_large"


def test_a_picture_above_pillows_own_limit_opens_if_ours_allows() -> None:
    # 200 MP of 1-bit white: Pillow's Image.open would raise DecompressionBombError above 179 MP.
    data = encoded(Pil.new("1", (20_000, 10_000), 1), "PNG")
    info = from_bytes(data, limits=Limits(max_pixels=250_000_000)).info
    assert info.width * info.height == 200_000_000


def test_image_from_another_room_without_anything_is_told() -> None:
    info = from_array(np.zeros((2, 2, 3), np.uint8)).info
    with pytest.raises(ImageError):
        decode(Image("x", info, None, None))


def test_decoding_costs_no_more_than_pillow_itself() -> None:
    """Medians of turns taken one by one; 1.3 leaves room for a busy machine (measured alone: below 1.0)."""
    noise = np.random.default_rng(0).normal(0, 6, (1024, 1024, 3))
    picture = np.clip(np.asarray(scene(1024, 1024)) + noise, 0, 255).astype(np.uint8)
    data = encoded(Pil.fromarray(picture), "JPEG", quality=90)

    def bare() -> np.ndarray:
        return np.asarray(Pil.open(io.BytesIO(data)).convert("RGB"))

    def ours() -> np.ndarray:
        return pixels_of(data)

    assert difference(bare(), ours()) == 0
    times: dict[object, list[float]] = {bare: [], ours: []}
    for _ in range(15):
        for way, taken in times.items():
            start = time.perf_counter()
            way()  # type: ignore[operator]
            taken.append(time.perf_counter() - start)
    assert np.median(times[ours]) <= 1.3 * np.median(times[bare])


def test_a_jpeg_at_a_part_of_its_size() -> None:
    """As near to the whole one made small as the views' own first step is; the facts stay those of the file."""
    coarse = Pil.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8))
    exif = Pil.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    coarse.resize((904, 1200), Pil.Resampling.BICUBIC).save(stream, "JPEG", quality=90, exif=exif)
    image = from_bytes(stream.getvalue())
    assert (image.info.width, image.info.height) == (1200, 904)
    found = [reduction(image, least) for least in (113, 114, 226, 227, 452, 453, 2000)]
    assert found == [8, 4, 4, 2, 2, 1, 1]
    whole = decode(image).pixels
    assert whole is not None
    for n in (2, 4, 8):
        small = decode_reduced(image, reduction=n)
        assert small.pixels is None
        assert small.is_decoded
        assert small.info == image.info
        assert small.reduced[n].shape == (904 // n, 1200 // n, 3)
        means = np.asarray(Pil.fromarray(whole).reduce(n), np.int16)
        assert np.abs(small.reduced[n].astype(np.int16) - means).mean() < 1.5
        assert decode_reduced(small, reduction=n) is small


def test_what_is_no_jpeg_file_is_not_decoded_smaller() -> None:
    stream = io.BytesIO()
    Pil.new("RGB", (900, 900), "red").save(stream, "PNG")
    assert reduction(from_bytes(stream.getvalue()), 64) == 1
    assert reduction(from_array(np.zeros((900, 900, 3), np.uint8)), 64) == 1


def test_a_jpeg_that_breaks_off_is_truncated_at_any_size() -> None:
    stream = io.BytesIO()
    Pil.fromarray(np.random.default_rng(0).integers(0, 256, (800, 800, 3), np.uint8)).save(stream, "JPEG")
    image = from_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    for n in (2, 4, 8):
        with pytest.raises(ImageError) as caught:
            decode_reduced(image, reduction=n)
        assert caught.value.status == "truncated"


def lossless_jpeg(grey: np.ndarray) -> bytes:
    """A JPEG of process 14 (ITU-T T.81, annex H): each difference to the value before, by Huffman's code of 4 bits."""
    before = np.concatenate([grey[:, :1], grey[:, :-1]], 1).astype(int)
    before[1:, 0], before[0, 0] = grey[:-1, 0], 128
    bits = ""
    for difference in map(int, (grey - before).ravel()):
        n = abs(difference).bit_length()
        told = difference if difference > 0 else difference + (1 << n) - 1
        bits += f"{n:04b}" + (f"{told:0{n}b}" if n else "")
    bits += "1" * (-len(bits) % 8)

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body

    frame = struct.pack(">BHHB", 8, *grey.shape, 1) + b"\x01\x11\x00"
    table = bytes([0, 0, 0, 0, 9, *[0] * 12, *range(9)])
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    head = segment(0xC3, frame) + segment(0xC4, table) + segment(0xDA, b"\x01\x01\x00\x01\x00\x00")
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def test_a_lossless_jpeg_which_the_decoder_cannot_scale() -> None:
    """libjpeg refuses to scale it; it is decoded whole, then made small."""
    steps = np.random.default_rng(0).integers(-9, 10, (90, 120))
    grey = np.clip(128 + steps.cumsum(1), 0, 255).astype(np.uint8)
    image = from_bytes(lossless_jpeg(grey))
    try:
        whole = decode(image).pixels
    except ImageError as error:
        pytest.skip(f"this Pillow's libjpeg reads no lossless JPEG: {error}")
    assert whole is not None
    assert np.array_equal(whole[..., 0], grey)
    for n in (2, 4, 8):
        means = np.asarray(Pil.fromarray(whole).reduce(n))
        assert np.array_equal(decode_reduced(image, reduction=n).reduced[n], means)
    assert np.array_equal(small(image), whole)
