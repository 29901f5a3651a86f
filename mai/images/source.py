"""What the Python API takes as an image: a path, bytes, a PIL image, an array, or what find() found."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union, cast

from mai.errors import UsageError
from mai.images import decode, find
from mai.images.decode import Limits
from mai.images.find import Found
from mai.types import Image

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image as PILImage

Source: TypeAlias = Union[str, bytes, "os.PathLike[str]", Found, Image, "PILImage", "NDArray[np.uint8]"]
"""A path (taken literally), encoded bytes, a PIL image, uint8 RGB (H, W, 3), a Found or an Image."""


def open_source(source: Source, limits: Limits) -> Image:
    """The Image of any source, its header read; pixels only where they were given as such.

    Args:
        source: see Source.
        limits: most bytes and pixels.

    Raises:
        ImageError: it cannot be judged; carries the status.
        UsageError: it is of no kind that can be an image.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, Found):
        if source.error is not None:
            raise source.error
        return decode.read(source, limits)
    if isinstance(source, bytes | bytearray | memoryview):
        return decode.read(Found(display(source), data=bytes(source), named=True), limits)
    if isinstance(source, str | os.PathLike):
        return decode.read(Found(display(source), Path(source), named=True), limits)
    if hasattr(source, "__array_interface__") and hasattr(
        source, "ndim"
    ):  # asks nothing of numpy or Pillow yet
        return decode.from_array(cast("NDArray[np.uint8]", source))
    if hasattr(source, "convert") and hasattr(source, "getbands"):
        return decode.from_pil(cast("PILImage", source))
    raise UsageError(f"An image is a path, bytes, a PIL image or an array, not {type(source).__name__}.")


def display(source: Source) -> str:
    """How a source is called in its row; bytes of a path that are not UTF-8 stand as `\\xNN`."""
    if isinstance(source, Found | Image):
        return source.path
    if isinstance(source, str | os.PathLike):
        return find.display(os.fspath(source))
    return "<bytes>" if isinstance(source, bytes | bytearray | memoryview) else f"<{type(source).__name__}>"
