"""How far answers about the same pictures are apart: those of a model and of a changed copy of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

SAME_BOX = 0.5  # IoU from which on two boxes are taken for the same object
_TIE = 0.8  # part of the best class' score from which on a model is as good as undecided between two classes
_CLOSE = 0.05  # above the least score of an object, within which a model is as good as undecided whether there is one

Arrays = Mapping[str, npt.NDArray[Any]]  # of an answer, as `stages.tasks` names them
Floats = npt.NDArray[np.float32]


class Agreement(Struct, frozen=True, kw_only=True):
    """Answers of two models about the same pictures. Means are over what could be compared; 0 where nothing could.

    What the model itself hardly decides, any rounding may turn: two classes of nearly the same score, and an object
    whose score is hardly enough. Neither counts against the copy.
    """

    task: str
    pictures: int
    share: float  # classify: same best class. Else: objects found by both with the same class, of all (F1). 0 to 1
    objects: tuple[int, int] = (0, 0)  # of each model
    matched: int = 0  # objects of one model that the other has as well, whatever their class
    class_changes: int = 0  # matched objects of another class
    undecided: int = 0  # classes that changed, or objects of one model alone, that do not count
    iou: float = 0.0  # mean over matched objects
    score_shift: float = 0.0  # mean absolute difference of scores


def agreement(task: str, answers: Sequence[tuple[Arrays, Arrays]], least: float = 0.0) -> Agreement:
    """How well pairs of answers agree. `least` is the score from which on there is an object, 0 to 1."""
    return _of_classes(answers) if task == "classify" else _of_objects(task, answers, least)


def box_iou(some: Floats, others: Floats) -> Floats:
    """float32 [n, m]: intersection over union of every pair of boxes xyxy [n, 4] and [m, 4]."""
    top_left = np.maximum(some[:, None, :2], others[None, :, :2])
    bottom_right = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.maximum(0, bottom_right - top_left), axis=2)
    areas = [np.prod(np.maximum(0, boxes[:, 2:] - boxes[:, :2]), axis=1) for boxes in (some, others)]
    union = areas[0][:, None] + areas[1][None, :] - shared
    return np.asarray(shared / np.maximum(union, np.float32(1e-9)), np.float32)


def matches(some: Floats, others: Floats) -> list[tuple[int, int]]:
    """Pairs of boxes that are the same object, the best pairs first, each box once."""
    overlaps = box_iou(some, others)
    pairs = []
    while overlaps.size and overlaps.max() >= SAME_BOX:
        one, other = np.unravel_index(int(overlaps.argmax()), overlaps.shape)
        pairs.append((int(one), int(other)))
        overlaps[one, :] = overlaps[:, other] = -1
    return pairs


def _of_classes(answers: Sequence[tuple[Arrays, Arrays]]) -> Agreement:
    same, undecided, shifts = 0, 0, []
    for before, after in answers:
        best = [int(one["classes"][0]) if len(one["classes"]) else None for one in (before, after)]
        same += best[0] == best[1]
        if best[0] is not None:
            score = float(before["scores"][0])
            shifts.append(abs(score - _score_of(after, best[0])))
            if best[1] not in (best[0], None):
                undecided += _score_of(before, best[1]) >= _TIE * score
    return Agreement(
        task="classify",
        pictures=len(answers),
        share=(same + undecided) / max(1, len(answers)),
        undecided=undecided,
        score_shift=_mean(shifts),
    )


def _score_of(answer: Arrays, number: int | None) -> float:
    """The score of a class; 0 where the answer leaves it out."""
    found = np.flatnonzero(answer["classes"] == number)
    return float(answer["scores"][found[0]]) if len(found) else 0.0


def _of_objects(task: str, answers: Sequence[tuple[Arrays, Arrays]], least: float) -> Agreement:
    objects, changes, undecided = [0, 0], 0, 0
    overlaps: list[float] = []
    shifts: list[float] = []
    for before, after in answers:
        objects[0] += len(before["boxes"])
        objects[1] += len(after["boxes"])
        pairs = matches(before["boxes"], after["boxes"])
        for answer, matched in ((before, [one for one, _ in pairs]), (after, [other for _, other in pairs])):
            undecided += int((np.delete(answer["scores"], matched) < least + _CLOSE).sum())
        for one, other in pairs:
            changes += int(before["classes"][one] != after["classes"][other])
            shifts.append(abs(float(before["scores"][one]) - float(after["scores"][other])))
            overlaps.append(float(box_iou(before["boxes"][[one]], after["boxes"][[other]])[0, 0]))
    every = sum(objects) - undecided
    return Agreement(
        task=task,
        pictures=len(answers),
        share=2 * (len(shifts) - changes) / every if every else 1.0,
        objects=(objects[0], objects[1]),
        matched=len(shifts),
        class_changes=changes,
        undecided=undecided,
        iou=_mean(overlaps),
        score_shift=_mean(shifts),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
