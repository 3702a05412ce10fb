"""Options that change nothing for a model: the user is told, so that no option is ignored in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from stages.families import FAMILIES
from stages.recognise.decision import Verdict
from stages.recognise.overrides import Overrides
from stages.recognise.picture import Picture

_OF_FAMILIES = ("background",)  # options that only some families use
_OF_PICTURES = ("resize", "crop_fraction", "filter", "pad", "color", "mean", "std")
_ALWAYS = ("family", "task", "shapes", "imgsz")  # imgsz is an error where it cannot be had


def without_effect(
    overrides: Overrides, verdict: Verdict, picture: Picture | None, preprocess: dict[str, Any]
) -> tuple[str, ...]:
    """A warning for every option that was set and is not used."""
    idle = dict(_idle(verdict, picture, preprocess))
    return tuple(
        f"the option {key} has no effect: {idle[key]}"
        for key in overrides.__struct_fields__
        if key in idle and getattr(overrides, key) is not None
    )


def _idle(verdict: Verdict, picture: Picture | None, preprocess: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Options that a model of this kind does not use, and why."""
    if verdict.task == "tensor":
        used = _ALWAYS if picture is None else (*_ALWAYS, *_OF_PICTURES)
        yield from (
            (key, "tensors go in and out as they are") for key in Overrides.__struct_fields__ if key not in used
        )
    if picture is None:
        return
    if picture.channels == 1:
        yield "color", "the input has one channel"
    if not preprocess["resize"].startswith("letterbox"):
        yield "pad", f"resize is {preprocess['resize']}"
    if preprocess["resize"] != "crop":
        yield "crop_fraction", f"resize is {preprocess['resize']}"
    if picture.port.dtype == "uint8":
        yield from ((key, "the input takes uint8 pixels as they are") for key in ("mean", "std"))
    if verdict.task == "tensor":
        return
    family = FAMILIES[verdict.family]
    yield from ((key, f"the family is {family.name}") for key in _OF_FAMILIES if key not in family.options)
    if verdict.task != "keypoints":
        yield "kpt_shape", f"the task is {verdict.task}"
    if verdict.task != "classify":
        yield "multi_label", f"the task is {verdict.task}"
    if verdict.task in ("semantic", "map", "embedding"):
        yield "conf", f"the task is {verdict.task}"
    if not family.needs_nms:
        yield "iou", f"objects of {verdict.family} do not overlap"
