"""How objects are followed and counted, the same for all sources of one `Streams`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from parallel_infer.errors import BadInput
from parallel_infer.tracking.looks import LIKENESS
from parallel_infer.tracking.shapes import Line, Zone

FAN = "fan"  # the task of an answer of several models
TASKS = ("detect", "segment", "keypoints", "obb")  # those with boxes
USUAL_START = 0.25  # the confidence from which models report, where neither they nor their user say another
USUAL_LOW = 0.1
BOXES = "boxes"  # `Tracking.by` where embeddings shall not be looked at


class CannotFollow(BadInput):
    """The objects of a source cannot be followed or counted: its answers have no boxes, or a line is outside."""


class Moment(NamedTuple):
    """When and by what a picture was taken."""

    seconds: float  # of the source's own time
    capture: int  # another number: the source was lost meanwhile, and its objects are others


class Anchor(Enum):
    """The point of a box that crosses lines and is in zones."""

    BOTTOM = "bottom"  # the middle of its lower edge: where what stands on the ground stands
    CENTRE = "centre"


@dataclass(frozen=True)
class Tracking:
    """Scores from 0 to 1, times in seconds of the source."""

    start: float | None = None  # score from which an object may be a new one; None: `confidence` of the options
    low: float | None = None  # score down to which a followed object is reported, if lower; None: as those not followed
    keep: float = 1.0  # seconds for which an object that is not seen keeps its number
    lines: tuple[Line, ...] = ()  # crossings of these are counted
    zones: tuple[Zone, ...] = ()  # what is in these is counted
    anchor: Anchor = Anchor.BOTTOM
    by: str | None = None  # the step of a chain whose embeddings tell objects apart; None: the first; BOXES: none does
    likeness: float = LIKENESS  # least cosine of two embeddings of one object
