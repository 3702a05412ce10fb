"""The objects of one source from answer to answer: which are the same, and what they cross."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from parallel_infer.answers.answer import Answer
from parallel_infer.answers.selection import with_numbers
from parallel_infer.errors import ConfigError, InferError
from parallel_infer.tracking.byte_track import NONE, ByteTrack, Seen
from parallel_infer.tracking.counting import Counts, Followed, LineCounter, ZoneCounter
from parallel_infer.tracking.settings import BOXES, FAN, TASKS, USUAL_START, Anchor, CannotFollow, Moment, Tracking
from parallel_infer.tracking.shapes import check_names


class Following:
    """Follows the objects of one source. Answers go in and come out, one after the other, in the order of frames."""

    def __init__(self, settings: Tracking, confidence: float | None = None) -> None:
        """`confidence`: the score from which the user wants objects. Raises ConfigError for what does not fit."""
        check_names((*settings.lines, *settings.zones))
        usual = 0.0 if settings.low is None else USUAL_START
        wanted = usual if confidence is None else confidence
        self._start = wanted if settings.start is None else settings.start
        if settings.low is not None and settings.low > self._start:
            raise ConfigError(
                f"--track-low {settings.low:g} is above {self._start:g}, the score from which an object is a new one "
                "(--conf); what is followed needs no more than that"
            )
        self._settings = settings
        self._trackers: dict[str, ByteTrack] = {}  # by model: a fan has several
        self._embedders: dict[str, str] = {}  # by model, whose embeddings tell its objects apart
        self._lines = [LineCounter(line) for line in settings.lines]
        self._zones = [ZoneCounter(zone) for zone in settings.zones]
        self._size: tuple[int, int] | None = None
        self._capture = 0
        self._counted = ""  # the model whose objects are counted
        self.counts: Counts | None = None  # with the last answer; None without lines and zones

    @property
    def confidence(self) -> float | None:
        """The score from which the model has to report; None: as it is asked to anyway."""
        return None if self._settings.low is None else min(self._start, self._settings.low)

    def follow(self, answer: Answer, moment: Moment) -> Answer:
        """The answer with `track_ids`, and without what is unsure and not followed; `counts` are those of its frame.

        Of a fan each part with boxes is followed by itself, and the first one is counted. Raises CannotFollow where
        there are no boxes, or a line or zone is outside of the picture.
        """
        answers = _with_boxes(answer)
        if not answers:
            raise CannotFollow(f"--track needs a model that finds objects with boxes; {answer.model!r} does not")
        self._counted = self._counted or next(iter(answers))
        self._look_at(next(iter(answers.values())), moment)
        found = {name: self._followed(one, name, answer.still, moment.seconds) for name, one in answers.items()}
        if self._counted in found and (self._lines or self._zones):
            self._count(found[self._counted])
        if answer.task != FAN:
            return found[answer.model]
        whole = copy.copy(answer)
        whole.parts = {**answer.parts, **found}
        return whole

    def _followed(self, answer: Answer, model: str, still: bool, seconds: float) -> Answer:
        tracker = self._trackers.get(model)
        if tracker is None:
            tracker = self._trackers[model] = ByteTrack(self._start, self._settings.keep, self._settings.likeness)
        if still:
            tracker.rest(seconds)
        seen = Seen(bounds(answer), answer.scores, answer.classes, self._looks(answer, model))
        numbers = tracker.update(seen, seconds)
        return with_numbers(answer, numbers, (numbers != NONE) | (answer.scores >= self._start))

    def _looks(self, answer: Answer, model: str) -> npt.NDArray[np.float64] | None:
        """What the objects look like, [n, d], not a number where that is not told; None where no object's is."""
        by = self._settings.by or self._embedder(answer, model)
        if by is None or by == BOXES:
            return None
        vectors = [_embedding(children.get(by), by) for children in answer.children]
        known = next((vector for vector in vectors if vector is not None), None)
        if known is None:
            return None
        return np.array([np.full(len(known), np.nan) if vector is None else vector for vector in vectors], np.float64)

    def _embedder(self, answer: Answer, model: str) -> str | None:
        """The first step that gave a vector, as long as it is asked about objects."""
        known = self._embedders.get(model)
        if known is None or not any(known in children for children in answer.children):
            known = _first_embedder(answer)
        if known is not None:
            self._embedders[model] = known
        return known

    def _look_at(self, answer: Answer, moment: Moment) -> None:
        """Begin anew where the source did, or where its pictures have another size."""
        size = answer.width, answer.height
        if moment.capture != self._capture or size != self._size:
            for tracker in self._trackers.values():
                tracker.restart()
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
        objects, known = list(self._objects(answer)), self._trackers[self._counted].known
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


def _first_embedder(answer: Answer) -> str | None:
    """The first step that gives an object a vector."""
    found = (item for children in answer.children for item in children.items())
    return next((name for name, child in found if isinstance(child, Answer) and child.embedding is not None), None)


def _embedding(child: Answer | InferError | None, by: str) -> npt.NDArray[np.float32] | None:
    """The vector of an object; None where it was not asked for, or failed. Raises CannotFollow for something else."""
    if not isinstance(child, Answer):
        return None
    if child.embedding is None:
        raise CannotFollow(f"--track-by {by}: {by!r} does {child.task}, and objects are told apart by embeddings")
    return child.embedding


def _with_boxes(answer: Answer) -> dict[str, Answer]:
    """The answers with boxes, by model: an answer's own, or those of the parts of a fan."""
    answers = answer.parts if answer.task == FAN else {answer.model: answer}
    return {name: one for name, one in answers.items() if isinstance(one, Answer) and one.task in TASKS}
