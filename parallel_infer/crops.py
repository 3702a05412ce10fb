"""Jobs that share one picture: which objects of an answer are cut out of it, and what a crop is. Plain data."""

from __future__ import annotations

from msgspec import Struct


class Selection(Struct, frozen=True, array_like=True):
    """Which objects of an answer are cut out of the picture for one step of a chain, and how."""

    max_objects: int  # the best ones; how many are left out is told
    classes: tuple[int, ...] = ()  # none: all
    min_score: float = 0.0
    min_size: float = 1.0  # pixels of the shorter side
    margin: float = 0.0  # on each side, as a share of the box's width or height
    masked: bool = False  # what the object's mask leaves out becomes gray
    wide: bool = False  # the longer side lies across, as in a line of text


class Crop(Struct, frozen=True, array_like=True):
    """A part of a picture of `of_width` x `of_height` pixels: a box, turned about its own centre by `angle` radians.

    The box of an upright crop (angle 0.0) has whole numbers and lies within the picture.
    """

    left: float
    top: float
    width: float
    height: float
    of_width: int
    of_height: int
    angle: float = 0.0
    rings: tuple[bytes, ...] = ()  # of the object's mask, float32 [k, 2] in pixels of the picture; none: no mask


class CutOut(Struct, frozen=True, array_like=True):
    """A crop that a step of a chain asks for: `object` is its place in the answer."""

    step: int
    object: int
    crop: Crop


class PicturePart(Struct, frozen=True, array_like=True):
    """What a job has to do with the others of its request, which are about the same picture."""

    picture: int  # a number that all of them have, and no other job
    crop: Crop | None = None  # None: the whole picture
    selections: tuple[Selection, ...] = ()  # what is cut out of its answer, by step
    together: tuple[str, ...] = ()  # the models of a fan whose first jobs are best decoded together
