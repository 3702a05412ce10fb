"""The picture input of a model: which one it is, and how a frame has to be prepared for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from stages.families.facts import Metadata
from stages.families.family import PIXELS, UNIT, Recipe
from stages.preprocess import Preprocess
from stages.recognise.chains import Scaling
from stages.recognise.overrides import Overrides
from stages.recognise.trial import Port

_USUAL_NAMES = ("images", "image", "input", "pixel_values", "data", "x")
_LEAST_SIDE = 8  # of a gray picture, in pixels
_PIXEL_DTYPES = ("float32", "float16", "uint8")


class Picture(NamedTuple):
    """The picture input, with the dimensions of one job. Height and width stand at `axes` of them."""

    port: Port
    layout: Literal["nchw", "nhwc"]

    @property
    def axes(self) -> tuple[int, int]:
        """Positions of height and width."""
        return (1, 2) if self.layout == "nchw" else (0, 1)

    @property
    def channels(self) -> int:
        """1 where it is gray, else 3."""
        return 1 if self.port.dims[self.channel] == 1 else 3

    @property
    def channel(self) -> int:
        """Position of the colour channels."""
        return 0 if self.layout == "nchw" else 2


def find_picture(jobs: tuple[Port, ...]) -> Picture | None:
    """The one input that can take a picture: three dimensions for one job, height, width and 3 channels.

    Or one channel, where it is the only input: states and spectra have such shapes too.
    """
    if len(jobs) == 1 and (gray := _as_gray(jobs[0])) is not None:
        return gray
    candidates = [picture for port in jobs if (picture := _as_picture(port)) is not None]
    if len(candidates) == 1:
        return candidates[0]
    usual = [picture for picture in candidates if picture.port.name in _USUAL_NAMES]
    return usual[0] if len(usual) == 1 else None


def _as_gray(port: Port) -> Picture | None:
    """[1, h, w] or [h, w, 1], each side open or of some length."""
    if len(port.dims) != 3 or port.dtype not in _PIXEL_DTYPES or 3 in port.dims:
        return None
    for layout, channel, sides in (("nchw", port.dims[0], port.dims[1:]), ("nhwc", port.dims[2], port.dims[:2])):
        if channel == 1 and all(isinstance(side, str) or side >= _LEAST_SIDE for side in sides):
            return Picture(port, "nchw" if layout == "nchw" else "nhwc")
    return None


def _as_picture(port: Port) -> Picture | None:
    if len(port.dims) != 3 or port.dtype not in _PIXEL_DTYPES:
        return None
    if port.dims[0] == 3:
        return Picture(port, "nchw")
    if port.dims[2] == 3:
        return Picture(port, "nhwc")
    # Exports of Hugging Face leave even the number of channels open.
    if all(isinstance(dim, str) for dim in port.dims) and port.name in _USUAL_NAMES:
        return Picture(port, "nchw")
    return None


def preprocess_map(
    picture: Picture,
    size: tuple[int, int],
    recipe: Recipe,
    metadata: Metadata,
    overrides: Overrides,
    constants: Mapping[str, list[float]],
    scaled: Scaling | None = None,
) -> dict[str, Any]:
    """`Preprocess` as a map: the override, else the metadata, else the recipe, each field on its own.

    `size` is height and width of a row. A uint8 input gets its pixels as they are, whatever mean and std are. A graph
    that rescales its picture itself (`scaled`) gets what it rescales.
    """
    mean, std = recipe.statistics
    if picture.channels == 1 and recipe.statistics not in (PIXELS, UNIT):
        mean, std = UNIT  # those of three colours say nothing of one
    if scaled is not None:
        mean, std = PIXELS if scaled.takes_pixels else UNIT
    asked = {
        "resize": _first(overrides.resize, metadata.resize, recipe.resize),
        "crop_fraction": _first(overrides.crop_fraction, metadata.crop_fraction, recipe.crop_fraction),
        "filter": _first(overrides.filter, metadata.filter, recipe.filter),
        "pad": _first(overrides.pad, recipe.pad),
        "color": "gray" if picture.channels == 1 else _first(overrides.color, recipe.color),
        "mean": _first(overrides.mean, metadata.mean, mean),
        "std": _first(overrides.std, metadata.std, std),
    }
    if picture.port.dtype == "uint8":
        asked["mean"], asked["std"] = PIXELS
    fixed = {"input": picture.port.name, "height": size[0], "width": size[1], "layout": picture.layout}
    preprocess = msgspec.convert({**fixed, **asked, "constants": dict(constants)}, Preprocess)
    built: dict[str, Any] = msgspec.to_builtins(preprocess)
    return built


def guesses(picture: Picture, recipe: Recipe, metadata: Metadata, overrides: Overrides, scaled: bool) -> str | None:
    """What is guessed of the preparation of pictures where nothing tells it, and the options that settle it."""
    mean, std = recipe.statistics if picture.channels == 3 else UNIT
    resize = f"resize {recipe.resize}" + (f" of {recipe.crop_fraction:g}" if recipe.resize == "crop" else "")
    numbers = scaled or picture.port.dtype == "uint8"
    open_ = {
        "resize": (resize, overrides.resize or metadata.resize),
        "color": (f"color {recipe.color}", overrides.color or picture.channels == 1),
        "mean": (f"mean {', '.join(f'{value:g}' for value in mean)}", numbers or overrides.mean or metadata.mean),
        "std": (f"std {', '.join(f'{value:g}' for value in std)}", numbers or overrides.std or metadata.std),
    }
    shown = {option: text for option, (text, known) in open_.items() if not known}
    if not shown:
        return None
    return (
        f"nothing tells how its pictures are prepared: {'; '.join(shown.values())} is a guess; set {', '.join(shown)}"
    )


def _first(*values: Any) -> Any:
    return next(value for value in values if value is not None)
