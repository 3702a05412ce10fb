"""Pictures of Pillow, which know their colours; Pillow itself is not imported."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from parallel_infer.client.arrays import Array, Color
from parallel_infer.errors import BadInput

_ORIENTATION = 0x0112  # EXIF
_DEEP = ("I", "F")  # modes of 16 or 32 bits per pixel begin so


def is_pil(value: Any) -> bool:
    """Whether it is a PIL.Image.Image, of whatever class."""
    return any(base.__module__ == "PIL.Image" and base.__name__ == "Image" for base in type(value).__mro__)


def frame_of(picture: Any, color: Color) -> Array:
    """The pixels as Pillow holds them, uint8 [h, w, 3] in `color` order; alpha is dropped.

    Pillow does not turn a picture by its EXIF orientation, so boxes fit `picture` as it is. A picture that asks to be
    turned is warned about. Raises BadInput for modes of more than 8 bits and for files that cannot be read.
    """
    if picture.mode.startswith(_DEEP):
        raise BadInput(
            f"A picture of mode {picture.mode!r} has more than 8 bits; scale it to 0 to 255 and convert it to 'L'"
        )
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
        pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise BadInput(f"The picture cannot be read: {error}") from error
    if orientation in range(2, 9):
        warnings.warn(
            f"the picture's EXIF orientation is {orientation} and Pillow has not applied it: the answer is about the "
            "picture as Pillow holds it; use PIL.ImageOps.exif_transpose first to have it upright",
            stacklevel=4,  # where `infer` was called
        )
    return pixels if color == "rgb" else pixels[..., ::-1]
