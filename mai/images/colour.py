"""Any picture that Pillow has decoded -> uint8 RGB (H, W, 3), sRGB, upright, over white."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pil
from PIL import ImageCms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mai.types import Pixels

MAX_PROFILE_BYTES = 4 * 2**20
"""An ICC profile above this is ignored: the largest press profiles have 3 MB."""

_TURNS: dict[int, Pil.Transpose] = {
    2: Pil.Transpose.FLIP_LEFT_RIGHT,
    3: Pil.Transpose.ROTATE_180,
    4: Pil.Transpose.FLIP_TOP_BOTTOM,
    5: Pil.Transpose.TRANSPOSE,
    6: Pil.Transpose.ROTATE_270,
    7: Pil.Transpose.TRANSVERSE,
    8: Pil.Transpose.ROTATE_90,
}
"""EXIF orientation -> what sets it upright. Source: Exif 2.3 (CIPA DC-008), tag 0x0112."""


def to_pixels(picture: Pil.Image, orientation: int = 1) -> Pixels:
    """Make the pixels that detectors look at.

    The order is: depth to 8 bits, palette and alpha apart, ICC profile to sRGB, alpha over white, upright.

    Args:
        picture: loaded, any mode; it is not changed.
        orientation: EXIF orientation 1..8, any other value is taken for 1.

    Returns:
        uint8 RGB (H, W, 3), 0..255, C-contiguous, read-only.
    """
    profile = picture.info.get("icc_profile")
    picture = to_8_bits(picture)
    base, alpha = _split_alpha(picture)
    base = to_srgb(base, profile)
    if alpha is not None and alpha.getextrema() != (255, 255):
        over = Pil.new("RGB", base.size, (255, 255, 255))
        over.paste(base, mask=alpha)
        base = over
    if orientation in _TURNS:
        base = base.transpose(_TURNS[orientation])
    return np.asarray(base)


def to_8_bits(picture: Pil.Image) -> Pil.Image:
    """16 and 32 bits, float and CIELAB to 8-bit modes; the rest as it is."""
    mode = picture.mode
    if mode.startswith("I;16"):
        return _scaled(picture, 0.0, 1 / 257.0)
    if mode in {"I", "F"}:
        return _scaled(picture, *_stretch(picture))
    if mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")
        return ImageCms.applyTransform(picture, transform) or picture
    return picture


STRIP_PIXELS = 1 << 20
"""Pixels of a grey picture of 16 or 32 bits that are scaled at a time, so that no second copy of all is held."""


def _strips(picture: Pil.Image) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Rows of a picture (H, W), some at a time, as they are stored."""
    width, height = picture.size
    n_rows = max(1, STRIP_PIXELS // max(width, 1))
    for top in range(0, height, n_rows):
        bottom = min(top + n_rows, height)
        yield slice(top, bottom), np.asarray(picture.crop((0, top, width, bottom)))


def _finite(values: NDArray[Any]) -> NDArray[np.float64]:
    """As float64; what is no finite number is 0."""
    return np.nan_to_num(values.astype(np.float64), copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _scaled(picture: Pil.Image, black: float, factor: float) -> Pil.Image:
    """Mode L from (values - black) * factor, cut to 0..255; transparent grey is white, WhiteIsZero turned."""
    grey = np.empty(picture.size[::-1], np.uint8)
    is_turned = getattr(picture, "tag_v2", {}).get(262) == 0  # PhotometricInterpretation 0: TIFF 6.0, page 37
    transparent = picture.info.get("transparency")
    for rows, stored in _strips(picture):
        part = _finite(stored)
        part -= black
        part *= factor
        grey[rows] = np.rint(np.clip(part, 0, 255, out=part), out=part)
        if is_turned:
            grey[rows] = 255 - grey[rows]
        if isinstance(transparent, int):
            grey[rows][stored == transparent] = 255
    made = Pil.fromarray(grey)
    if profile := picture.info.get("icc_profile"):
        made.info["icc_profile"] = profile
    return made


def _stretch(picture: Pil.Image) -> tuple[float, float]:
    """Black and factor that bring values without a nominal white to 0..255.

    Integers within 0..65535 are taken for 16-bit, floats within 0..1 for a share of white: both are what
    image programs write. Anything else is measured data, stretched from its least to its greatest value.
    """
    ends = [(float(part.min()), float(part.max())) for part in (_finite(own) for _, own in _strips(picture))]
    low, high = min(end for end, _ in ends), max(end for _, end in ends)
    white = 1.0 if picture.mode == "F" else 65535.0
    if low >= 0 and high <= white:
        return 0.0, 255.0 / white
    return low, 255.0 / max(high - low, 1e-300)


def _split_alpha(picture: Pil.Image) -> tuple[Pil.Image, Pil.Image | None]:
    """The picture in a mode without alpha, and its alpha in mode L or None."""
    mode = picture.mode
    if mode in {"RGBa", "La"}:  # premultiplied
        picture = picture.convert("RGBA" if mode == "RGBa" else "LA")
    elif mode == "PA":
        picture = picture.convert("RGBA")
    elif "transparency" in picture.info and mode in {"1", "L", "P", "RGB"}:
        picture = _with_alpha(picture)
    elif mode == "P":
        # A palette may itself hold alpha (mode RGBA).
        picture = picture.convert("RGBA" if picture.palette and picture.palette.mode == "RGBA" else "RGB")
    if picture.mode in {"RGBA", "LA"}:
        alpha = picture.getchannel("A")
        return (picture.convert("RGB") if picture.mode == "RGBA" else picture.getchannel("L")), alpha
    return picture, None


def _with_alpha(picture: Pil.Image) -> Pil.Image:
    """RGBA of a picture whose transparency is one colour or a table."""
    transparency = picture.info["transparency"]
    if isinstance(transparency, tuple) and max(transparency) > 255:
        # A 16-bit PNG's transparent colour; Pillow has brought the pixels to 8 bits already.
        picture = picture.copy()
        picture.info["transparency"] = tuple(value >> 8 for value in transparency)
    return picture.convert("RGBA")


def to_srgb(picture: Pil.Image, profile: bytes | None) -> Pil.Image:
    """Mode RGB, through the embedded profile if it fits; a broken or foreign one is ignored."""
    if picture.mode == "1":
        picture = picture.convert("L")
    if profile and picture.mode in {"RGB", "L", "CMYK"} and len(profile) <= MAX_PROFILE_BYTES:
        transform = _transform(bytes(profile), picture.mode)
        if transform is not None:
            try:
                return ImageCms.applyTransform(picture, transform) or picture.convert("RGB")
            except (ImageCms.PyCMSError, ValueError):
                pass  # a profile that opens but cannot be applied
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=16)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What takes `mode` in that profile to sRGB; None if the profile is broken, foreign, or sRGB itself.

    Whether it is sRGB is asked of the transform, not of the profile's name: cameras write dozens of names,
    and a colour cube costs a millisecond once a profile.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if space != {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}[mode]:
            return None
        transform = ImageCms.buildTransform(source, _srgb(), mode, "RGB")
        if mode == "CMYK":
            return transform
        probe = _probe(mode)
        changed = ImageCms.applyTransform(probe, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return None
    if changed is None:
        return None
    plain = np.asarray(probe.convert("RGB"), np.int16)
    # Two levels: what sRGB profiles of different makers differ by, and below what JPEG leaves alone.
    return transform if int(np.abs(np.asarray(changed, np.int16) - plain).max()) > 2 else None


def _probe(mode: str) -> Pil.Image:
    """A picture of a 16-step colour cube (RGB) or of all greys (L)."""
    if mode == "L":
        return Pil.fromarray(np.arange(256, dtype=np.uint8)[None])
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
    return Pil.fromarray(np.ascontiguousarray(cube.reshape(64, 64, 3)))
