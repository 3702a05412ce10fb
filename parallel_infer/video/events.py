"""What happens to a source, as it is told: the outcome of a frame, or another state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.errors import InferError
from parallel_infer.redaction import redacted
from parallel_infer.tracking import drawing
from parallel_infer.tracking.counting import Counts
from parallel_infer.video.counts import Tally
from parallel_infer.video.sources import SourceState


@dataclass(frozen=True)
class Result:
    """What became of one frame. `pixels` is valid until the next event is asked for: copy what you want to keep."""

    source: str
    frame: int  # number of the frame in its source, from 0; goes on counting after a reconnection
    turn: int  # the same, without frames that `fps` leaves out
    captured: float  # seconds since 1970
    age: float  # seconds since the capture
    answer: Answer | InferError
    tally: Tally  # of the source, so far
    pixels: npt.NDArray[np.uint8] | None  # [h, w, 3] BGR; None with an error
    position: float | None = None  # seconds from the start of a recording; None for what has none, as cameras
    counts: Counts | None = None  # of lines and zones up to this frame; None where none are asked for

    def to_dict(self) -> dict[str, Any]:
        """Plain values: where and when the frame was, the counts so far, and the result map or "error".

        "position" is in seconds from the start of a recording, "captured" in seconds since 1970, "time" of the result
        map the seconds that the server took.
        """
        row = {
            "source": self.source,
            "frame": self.frame,
            **({} if self.position is None else {"position": round(self.position, 3)}),
            "captured": round(self.captured, 6),
            "age_ms": round(self.age * 1000, 2),
            "dropped": self.tally.dropped,
            "expired": self.tally.expired,
            **({} if self.counts is None else {"counts": self.counts.to_dict()}),
        }
        if isinstance(self.answer, InferError):
            return {**row, "error": {"code": self.answer.code, "message": redacted(str(self.answer))}}
        return {**row, **self.answer.to_dict()}

    def draw(self, longest: int | None = None) -> npt.NDArray[np.uint8]:
        """A copy of `pixels` with the answer on it, and with lines, zones and their counts where there are any.

        `longest`: it is made smaller before, to so many pixels of the longer side at most; labels stay legible.
        Raises ValueError for a frame that has an error instead of an answer.
        """
        if self.pixels is None or not isinstance(self.answer, Answer):
            raise ValueError(f"frame {self.frame} of {self.source} has no answer to draw: {self.answer}")
        scale = 1.0 if longest is None else min(1.0, longest / max(self.pixels.shape[:2]))
        picture = self.pixels
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in picture.shape[1::-1])
            picture = np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        if self.counts is None:
            return self.answer.draw(picture)
        picture, counts = picture.copy(), self.counts.scaled(scale)
        drawing.draw_shapes(picture, counts)  # below the objects, whose labels they would cross out
        picture = self.answer.draw(picture)
        drawing.draw_counts(picture, counts)
        return picture


@dataclass(frozen=True)
class Change:
    """A source came into another state."""

    source: str
    state: SourceState
    message: str
    tally: Tally
    counts: Counts | None = None  # as in `Result`
