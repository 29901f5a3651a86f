"""From bytes to pixels, safely: nothing is allocated before the sizes of file and picture are known.

What goes wrong with a picture leaves here as one ImageError: a status and a plain sentence.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as Pil

from mai.errors import ImageError, UsageError
from mai.images import colour, pillow, remote, shards
from mai.images.files import read_file, too_large
from mai.images.find import Found
from mai.types import Image, ImageInfo

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Limits:
    """What one picture may cost.

    Attributes:
        max_bytes: of the encoded file.
        max_pixels: width times height, in pixels; decoding needs about 8 bytes for each.
    """

    max_bytes: int = shards.MAX_BYTES
    max_pixels: int = 120_000_000


DEFAULT_LIMITS = Limits()


def read(found: Found, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Read the bytes and the header; no pixel is decoded.

    Returns:
        Image with data and info; pixels is None.

    Raises:
        ImageError: it cannot be judged; the status says why.
    """
    if found.error is not None:
        raise found.error
    if found.data is not None:
        data = found.data
        if len(data) > limits.max_bytes:
            raise too_large(len(data), limits.max_bytes)
    elif found.url is not None:
        data = remote.fetch(found.url, limits.max_bytes)
    elif found.file is not None:
        data = read_file(found.file, limits.max_bytes)
    else:
        raise ImageError("not_found", "There is no file and there are no bytes.")
    kind = pillow.openable_kind(data, found.path)
    with pillow.translated(kind, data, "header"), pillow.quiet_pillow():
        picture = pillow.open_lazily(kind, data, limits.max_pixels)
        width, height = picture.size
        # Pillow turns a TIFF itself, and its size is the upright one already.
        if kind != "TIFF" and pillow.orientation(picture, kind, data) >= 5:
            width, height = height, width
        info = ImageInfo(
            format=picture.format or kind,
            width=width,
            height=height,
            n_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    return Image(path=found.path, info=info, data=data, pixels=None)


def decode(image: Image, limits: Limits = DEFAULT_LIMITS) -> Image:
    """The image with pixels: uint8 RGB (H, W, 3), sRGB, upright, over white, read-only; the first frame.

    Raises:
        ImageError: `truncated` for what breaks off or is damaged, `too_large`, `unsupported`.
    """
    if image.pixels is not None:
        return image
    pixels = _pixels(image, limits, 1)
    height, width = pixels.shape[:2]
    info = image.info
    if (width, height) != (info.width, info.height):  # a header that lied within the limits
        info = replace(info, width=width, height=height)
    return replace(image, info=info, pixels=pixels)


def reduction(image: Image, least_px: int) -> int:
    """How many of its pixels a side of a JPEG may be decoded to one, so that the short side keeps `least_px`.

    Returns:
        8, 4, 2, or 1 where nothing can be saved, and for all that is no JPEG file.
    """
    if image.info.format != "JPEG" or image.data is None:
        return 1
    short = min(image.info.width, image.info.height)
    return next((n for n in (8, 4, 2) if short // n >= least_px), 1)


def decode_reduced(image: Image, limits: Limits = DEFAULT_LIMITS, reduction: int = 2) -> Image:
    """The image with its pixels at a part of their size in `reduced`; as decode in all else.

    The decoder leaves the fine frequencies of each block of 8 x 8 away (libjpeg's scaling). That is nearly the mean of
    the pixels that fall together, the views' own first step (GAP in images/views.py), and much cheaper: a photograph of
    12 megapixels takes a quarter of the time.

    Args:
        image: a JPEG with data.
        limits: most pixels of the whole.
        reduction: 2, 4 or 8, see there.

    Raises:
        ImageError: as decode.
    """
    if reduction in image.reduced:
        return image
    try:
        pixels = _pixels(image, limits, reduction)
    except ImageError as error:
        if error.status != "truncated":
            raise
        # Lossless JPEG has no frequencies, and is refused at a part of its size; what is broken is refused here too.
        pixels = np.asarray(Pil.fromarray(_pixels(image, limits, 1)).reduce(reduction))
    return replace(image, reduced={**image.reduced, reduction: pixels})


def _pixels(image: Image, limits: Limits, reduction: int) -> NDArray[np.uint8]:
    if image.data is None:
        raise ImageError("empty", "The image has neither pixels nor bytes.")
    kind = pillow.openable_kind(image.data, image.path)
    with pillow.translated(kind, image.data, "pixels"), pillow.quiet_pillow():
        picture = pillow.open_lazily(kind, image.data, limits.max_pixels)
        if reduction > 1:
            picture.draft(None, (picture.width // reduction, picture.height // reduction))
        with pillow.quiet_libtiff(kind):
            picture.load()
        pillow.check_pixels(picture.size, limits.max_pixels)
        turn = pillow.orientation(picture, kind, image.data)
        picture = colour.to_8_bits(picture)  # what had 16 or 32 bits is let go of before there are colours
        return colour.to_pixels(picture, turn)


def small(image: Image, limits: Limits = DEFAULT_LIMITS, side_px: int = 64) -> NDArray[np.uint8]:
    """Pixels for a thumbnail or a hash: uint8 RGB (H, W, 3), sRGB, upright; a JPEG's at a part of its size.

    Args:
        image: with data.
        limits: most pixels of the whole.
        side_px: least rows and columns that are wanted; a smaller picture comes as it is.

    Raises:
        ImageError: as decode.
    """
    if image.data is None:
        raise ImageError("empty", "The image has no bytes.")
    kind = pillow.openable_kind(image.data, image.path)
    if kind == "JPEG":
        with (
            contextlib.suppress(ImageError),  # lossless JPEG, or broken: as decode says
            pillow.translated(kind, image.data, "pixels"),
            pillow.quiet_pillow(),
        ):
            picture = pillow.open_lazily(kind, image.data, limits.max_pixels)
            picture.draft("RGB", (side_px, side_px))
            picture.load()
            return colour.to_pixels(picture, pillow.orientation(picture, kind, image.data))
    pixels = decode(image, limits).pixels
    assert pixels is not None
    return pixels


def from_bytes(data: bytes, path: str = "<bytes>", limits: Limits = DEFAULT_LIMITS) -> Image:
    """An encoded picture in memory; see `read`."""
    return read(Found(path, data=bytes(data), named=True), limits)


def from_array(array: NDArray[Any], path: str = "<array>") -> Image:
    """Pixels in memory, taken for sRGB and upright.

    Args:
        array: uint8 (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA, 0..255; alpha goes over white.
        path: how it is called in the output.

    Raises:
        UsageError: another shape or type.
    """
    array = np.asarray(array)
    if array.dtype != np.uint8 or array.ndim not in {2, 3} or array.shape[2:] not in {(), (1,), (3,), (4,)}:
        raise UsageError(
            f"An array must be uint8 of shape (H, W), (H, W, 3) or (H, W, 4), values 0..255; this is "
            f"{array.dtype} {array.shape}. Channels go last; scale by (x * 255).round().astype('uint8')."
        )
    if not array.size:
        raise UsageError(f"The array of shape {array.shape} has no pixels.")
    if array.ndim == 3 and array.shape[2] == 3:
        pixels = np.array(array, order="C")  # a copy: what the caller does to it later changes no verdict
    else:
        flat = array[..., 0] if array.shape[2:] == (1,) else array
        pixels = colour.to_pixels(Pil.fromarray(np.ascontiguousarray(flat)))
    return _in_memory(pixels, path)


def from_pil(picture: Pil.Image, path: str = "<image>") -> Image:
    """A Pillow image: its EXIF orientation, profile and alpha are applied as for a file.

    Raises:
        ImageError: Pillow cannot decode it.
    """
    with pillow.translated(picture.format or "image", b"", "pixels"), pillow.quiet_pillow():
        picture.load()
        orientation = picture.getexif().get(0x0112, 1)
        pixels = colour.to_pixels(picture, orientation if isinstance(orientation, int) else 1)
    return _in_memory(pixels, path)


def _in_memory(pixels: NDArray[np.uint8], path: str) -> Image:
    pixels.flags.writeable = False
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return Image(path, ImageInfo("array", width, height, None, digest), None, pixels)
