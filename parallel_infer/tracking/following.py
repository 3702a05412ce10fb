"""The objects of one source from answer to answer: which are the same, and what they cross."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.answers.selection import selected
from parallel_infer.errors import ConfigError
from parallel_infer.tracking.byte_track import NONE, ByteTrack, Seen
from parallel_infer.tracking.counting import Counts, Followed, LineCounter, ZoneCounter
from parallel_infer.tracking.settings import TASKS, USUAL_START, Anchor, CannotFollow, Moment, Tracking
from parallel_infer.tracking.shapes import check_names


class Following:
    """Follows the objects of one source. Answers go in and come out, one after the other, in the order of frames."""

    def __init__(self, settings: Tracking, confidence: float | None = None) -> None:
        """`confidence`: the score from which the user wants objects. Raises ConfigError for names given twice."""
        check_names((*settings.lines, *settings.zones))
        wanted = USUAL_START if confidence is None else confidence
        self._start = wanted if settings.start is None else settings.start
        self._settings = settings
        self._tracker = ByteTrack(self._start, settings.keep)
        self._lines = [LineCounter(line) for line in settings.lines]
        self._zones = [ZoneCounter(zone) for zone in settings.zones]
        self._size: tuple[int, int] | None = None
        self._capture = 0
        self.counts: Counts | None = None  # with the last answer; None without lines and zones

    @property
    def confidence(self) -> float:
        """The score from which the model has to report."""
        return min(self._start, self._settings.low)

    def follow(self, answer: Answer, moment: Moment) -> Answer:
        """The answer with `track_ids`, and without what is unsure and not followed; `counts` are those of its frame.

        Raises CannotFollow where the answer has no boxes, or a line or zone is outside of the picture.
        """
        if answer.task not in TASKS:
            raise CannotFollow(f"--track needs a model that finds objects with boxes; {answer.model!r} does not")
        self._look_at(answer, moment)
        numbers = self._numbers(answer, moment.seconds)
        shown = (numbers != NONE) | (answer.scores >= self._start)
        followed = copy.copy(answer)
        followed.arrays = selected({**answer.arrays, "track_ids": numbers}, shown)
        self._count(followed)
        return followed

    def _numbers(self, answer: Answer, seconds: float) -> npt.NDArray[np.int64]:
        if answer.still:
            self._tracker.rest(seconds)
        return self._tracker.update(Seen(bounds(answer), answer.scores, answer.classes), seconds)

    def _look_at(self, answer: Answer, moment: Moment) -> None:
        """Begin anew where the source did, or where its pictures have another size."""
        size = answer.width, answer.height
        if moment.capture != self._capture or size != self._size:
            self._tracker.restart()
            self._capture = moment.capture
        if size == self._size:
            return
        try:
            for line in self._lines:
                line.place(*size)
            for zone in self._zones:
                zone.place(*size)
        except ConfigError as error:
            raise CannotFollow(str(error)) from None
        self._size = size

    def _count(self, answer: Answer) -> None:
        if not self._lines and not self._zones:
            return
        objects, known = list(self._objects(answer)), self._tracker.known
        lines = tuple(line.see(objects, known) for line in self._lines)
        self.counts = Counts(lines, tuple(zone.see(objects, known) for zone in self._zones))

    def _objects(self, answer: Answer) -> Iterator[Followed]:
        numbers, boxes = answer.arrays["track_ids"].tolist(), bounds(answer).tolist()
        for number, kind, (x1, y1, x2, y2) in zip(numbers, answer.names, boxes, strict=True):
            if number != NONE:
                y = y2 if self._settings.anchor is Anchor.BOTTOM else (y1 + y2) / 2
                yield Followed(number, kind, ((x1 + x2) / 2, y), ((x2 - x1) * (y2 - y1)) ** 0.5)


def bounds(answer: Answer) -> npt.NDArray[np.float32]:
    """The boxes of an answer, xyxy [n, 4]; of rotated ones, the upright boxes around them."""
    corners = answer.corners
    return answer.boxes if corners is None else np.concatenate([corners.min(1), corners.max(1)], 1)
