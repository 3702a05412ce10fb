"""What the user says about a model, which goes before anything that is read from its file."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from parallel_infer.errors import ConfigError
from parallel_infer.wrong_fields import explained
from stages.families import FAMILIES
from stages.pipeline import TASKS
from stages.recognise.classes import names_from

RESIZES = ("stretch", "letterbox", "letterbox-corner", "crop")
FILTERS = ("linear", "bilinear", "bicubic")
COLORS = ("rgb", "bgr", "gray")

Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
Side = Annotated[int, Meta(ge=1, le=16384)]
Spread = Annotated[float, Meta(gt=0.0)]

_EXPECTED = {
    "imgsz": "one size from 1 to 16384, or [height, width]",
    "mean": "one number, or three",
    "std": "one number above 0, or three",
    "kpt_shape": "[keypoints, 2 or 3]",
    "shapes": "a list of whole numbers from 1 on for each input",
}


class Overrides(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything here is optional; None leaves the decision to the model's file."""

    family: str | None = None
    task: str | None = None
    names: tuple[str, ...] | None = None
    resize: str | None = None
    imgsz: tuple[Side, Side] | None = None  # height, width
    crop_fraction: Annotated[float, Meta(gt=0.0, le=1.0)] | None = None
    filter: str | None = None
    conf: Unit | None = None
    iou: Unit | None = None
    mean: tuple[float, float, float] | None = None  # of pixels 0..255, in `color` order
    std: tuple[Spread, Spread, Spread] | None = None
    color: str | None = None
    pad: Annotated[int, Meta(ge=0, le=255)] | None = None
    background: int | None = None  # class slot that means "nothing"; negative counts from the end
    multi_label: bool | None = None
    kpt_shape: tuple[Annotated[int, Meta(ge=1, le=1024)], Annotated[int, Meta(ge=2, le=3)]] | None = None
    shapes: dict[str, tuple[Annotated[int, Meta(ge=1)], ...]] = {}  # per input, without the batch dimension


def parse_overrides(values: Mapping[str, Any]) -> Overrides:
    """Check the user's options of a model.

    Raises ConfigError for an unknown key (naming the nearest known one) or a value out of range.
    """
    for key in values:
        if key not in Overrides.__struct_fields__:
            raise ConfigError(_unknown("model option", str(key), Overrides.__struct_fields__))
    prepared = {key: _spread(key, value) for key, value in values.items() if value is not None}
    try:
        overrides = msgspec.convert(prepared, Overrides)
    except msgspec.ValidationError as error:
        raise ConfigError(f"model option {explained(error, Overrides, expected=_EXPECTED)}") from error
    _check_choice("family", overrides.family, FAMILIES)
    _check_choice("task", overrides.task, TASKS)
    _check_choice("resize", overrides.resize, RESIZES)
    _check_choice("filter", overrides.filter, FILTERS)
    _check_choice("color", overrides.color, COLORS)
    _check_agreement(overrides)
    return overrides


def _spread(key: str, value: Any) -> Any:
    """Short forms: one number for a square size or for all three channels; names as a list, a map or one string."""
    if key == "imgsz" and isinstance(value, int) and not isinstance(value, bool):
        return (value, value)
    if key in ("mean", "std") and isinstance(value, int | float) and not isinstance(value, bool):
        return (value, value, value)
    if key == "names":
        names = names_from(value)
        if not names:
            raise ConfigError("model option names must be a list of names, or a map from class number to name")
        return names
    if key == "task" and value == "pose":
        return "keypoints"
    return value


def _check_choice(key: str, value: str | None, known: Iterable[str]) -> None:
    if value is not None and value not in tuple(known):
        raise ConfigError(_unknown(key, value, tuple(known)))


def _check_agreement(overrides: Overrides) -> None:
    """Options that are each fine, but not together or not in these units."""
    numbers = (overrides.conf, overrides.iou, overrides.crop_fraction, *(overrides.mean or ()), *(overrides.std or ()))
    if not all(math.isfinite(number) for number in numbers if number is not None):
        raise ConfigError("model options conf, iou, crop_fraction, mean and std must be finite numbers")
    if overrides.std is not None and max(overrides.std) < 1.0:
        raise ConfigError(
            f"model option std = {list(overrides.std)} looks like units of 0..1; "
            "mean and std are those of pixels 0..255: multiply both by 255"
        )
    tasks = FAMILIES[overrides.family].tasks if overrides.family is not None else tuple(TASKS)
    if overrides.task is not None and overrides.task not in tasks:
        raise ConfigError(
            f"family {overrides.family} does not do the task {overrides.task}; it does {', '.join(tasks)}"
        )


def _unknown(what: str, value: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return f"unknown {what} {value!r}; {hint}known: {', '.join(known)}"
