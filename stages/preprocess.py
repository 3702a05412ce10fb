"""How a frame becomes a row: the model's wishes (`Preprocess`) and the code that fulfils them."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Resize = Literal["stretch", "letterbox", "letterbox-corner", "crop"]


class Preprocess(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the picture input of a model expects. Kept as a map in `ModelSpec.preprocess`; empty for tensor models.

    A row is `(pixel - mean) / std` with pixels 0..255, channels in `color` order. `letterbox` keeps the aspect ratio
    and centres the picture, `letterbox-corner` puts it top left; both fill with `pad`. `crop` takes the centre square
    (for non-square inputs: the centre of the input's aspect ratio) of `crop_fraction` and resizes it.
    """

    input: str  # name of the picture input
    width: int  # of the row, in pixels
    height: int
    resize: Resize = "letterbox"
    crop_fraction: float = 1.0
    pad: int = 114
    color: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (255.0, 255.0, 255.0)
    constants: dict[str, list[float]] = {}  # further inputs that get the same values in every row, flattened
