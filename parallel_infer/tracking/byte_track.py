"""Numbers for objects by ByteTrack: what is unsure continues a known object, and never begins a new one.

Zhang et al. 2022, "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", algorithm 1 and section 4.1.
Boxes are matched with where the known ones should be by now, by overlap, in three rounds: sure boxes with all that are
known, unsure ones with those that were seen last, and what is left of the sure ones with those that were seen once.
Different from there: only boxes of one class match, times are seconds and not frames, and the overlap is not weighted
by the score, because models that report from 0.25 on have no such scores.

Where it is known what objects look like, sure boxes go first to who looks like them, those that were seen last in front
(the cascade of DeepSORT), and overlap gives no box to a stranger that somebody known looks like.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from parallel_infer.tracking.looks import LIKENESS, Looks, is_alone
from parallel_infer.tracking.motion import Motion, centred

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating]

NONE = -1  # the number of what is not followed, or was seen once only
_SURE, _UNSURE, _SEEN_ONCE = 0.2, 0.5, 0.3  # least overlap of the three rounds


class Seen(NamedTuple):
    """The objects of one frame."""

    boxes: Floats  # [n, 4] xyxy
    scores: Floats  # [n]
    classes: Ints  # [n]
    looks: npt.NDArray[np.float64] | None = None  # [n, d], vectors of length 1; not a number where there is none


class ByteTrack:
    """The objects of one source. Numbers count from 1 and are given once."""

    def __init__(self, start: float, keep: float, likeness: float = LIKENESS) -> None:
        """`start`: the score of a sure box. `keep`: seconds for which an object that is not seen is known.

        `likeness`: least cosine of what is taken for one object by its looks.
        """
        self._start = start
        self._keep = keep
        self._likeness = likeness
        self._last_number = 0
        self._forget()

    def _forget(self) -> None:
        self._motion = Motion()
        self._looks = Looks(self._likeness)
        self._numbers = np.zeros(0, np.int64)  # NONE: seen once
        self._classes = np.zeros(0, np.int64)
        self._missed = np.zeros(0)  # when it was first missed; inf: seen in the last frame
        self._now = -math.inf  # the time of the last frame

    def restart(self) -> None:
        """Know no object any more; the numbers go on."""
        self._forget()

    @property
    def known(self) -> set[int]:
        """The numbers that may still come."""
        return set(self._numbers.tolist()) - {NONE}

    def update(self, seen: Seen, seconds: float) -> Ints:
        """Numbers of the objects of a frame, int64 [n]; NONE for what is not followed. `seconds`: time of the frame."""
        self._pass_time(seconds)
        numbers = np.full(len(seen.boxes), NONE)
        sure = seen.scores >= self._start
        once = self._numbers == NONE
        at_hand = np.isinf(self._missed)
        overlap = overlaps(self._motion.boxes(), seen.boxes)
        strange = self._classes[:, None] != seen.classes[None, :]
        pairs: list[tuple[int, int]] = []
        if seen.looks is not None:
            unlike = self._looks.distances(seen.looks)
            unlike[strange] = np.nan
            alike = self._looks.affinity(unlike, self._motion.distances(centred(seen.boxes)))
            for known in (~once & at_hand, ~once & ~at_hand):
                pairs += _matched(alike, known, sure, 0.0, pairs)
            strange |= self._looks.belongs_to_another(unlike)
        overlap[strange] = 0
        for known, found, least in ((~once, sure, _SURE), (~once & at_hand, ~sure, _UNSURE), (once, sure, _SEEN_ONCE)):
            pairs += _matched(overlap, known, found, least, pairs)
        rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
        self._motion.correct(rows, centred(seen.boxes[columns]))
        self._learn(rows, columns, seen, sure)
        self._count(rows[once[rows]])
        numbers[columns] = self._numbers[rows]
        self._miss_others(rows)
        begun = sure.copy()
        begun[columns] = False
        self._begin(seen, begun)
        return numbers

    def rest(self, seconds: float) -> None:
        """Until now the picture was that of the last frame: nothing moved, and no time passed for what is missed."""
        before, self._now = self._now, max(seconds, self._now)
        self._missed += self._now - before
        self._motion.rest()

    def _pass_time(self, seconds: float) -> None:
        before, self._now = self._now, max(seconds, self._now)
        self._keep_only(self._now - self._missed <= self._keep)
        self._motion.predict(self._now - before if math.isfinite(before) else 0.0, ~np.isinf(self._missed))

    def _learn(self, rows: Ints, columns: Ints, seen: Seen, sure: Bools) -> None:
        """Note what the matched objects look like now, of those that nobody else is in front of."""
        if seen.looks is not None:
            clear = (sure & is_alone(overlaps(seen.boxes, seen.boxes)))[columns]
            self._looks.learn(rows[clear], seen.looks[columns[clear]])

    def _count(self, rows: Ints) -> None:
        """Give numbers to objects that were seen a second time."""
        self._numbers[rows] = self._last_number + 1 + np.arange(len(rows))
        self._last_number += len(rows)

    def _miss_others(self, rows: Ints) -> None:
        """What was not matched is missed from now on; what was seen once only is forgotten."""
        self._missed[rows] = np.inf
        missed = np.ones(len(self._numbers), np.bool_)
        missed[rows] = False
        self._missed[missed] = np.minimum(self._missed[missed], self._now)
        self._keep_only(~missed | (self._numbers != NONE))

    def _begin(self, seen: Seen, new: Bools) -> None:
        self._motion.add(centred(seen.boxes[new]))
        self._looks.add(int(new.sum()), None if seen.looks is None else seen.looks[new])
        self._numbers = np.concatenate([self._numbers, np.full(new.sum(), NONE)])
        self._classes = np.concatenate([self._classes, seen.classes[new]])
        self._missed = np.concatenate([self._missed, np.full(new.sum(), np.inf)])

    def _keep_only(self, rows: Bools) -> None:
        if not rows.all():
            self._motion.keep(rows)
            self._looks.keep(rows)
            self._numbers, self._classes = self._numbers[rows], self._classes[rows]
            self._missed = self._missed[rows]


def overlaps(first: Floats, second: Floats) -> npt.NDArray[np.float64]:
    """Intersection over union of boxes xyxy [n, 4] and [m, 4], as [n, m]."""
    first, second = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    shared = np.maximum(sides, 0).prod(-1)
    areas = [np.maximum(boxes[..., 2:] - boxes[..., :2], 0).prod(-1) for boxes in (first, second)]
    return np.asarray(shared / np.maximum(areas[0] + areas[1] - shared, 1e-12))


def _matched(
    overlap: npt.NDArray[np.float64], known: Bools, found: Bools, least: float, before: list[tuple[int, int]]
) -> list[tuple[int, int]]:
    """The pairs (known, found) of the greatest sum of overlaps, of those that are not in a pair yet."""
    known, found = known.copy(), found.copy()
    known[[row for row, _ in before]] = False
    found[[column for _, column in before]] = False
    rows, columns = np.flatnonzero(known), np.flatnonzero(found)
    part = overlap[np.ix_(rows, columns)]
    part[part < least] = 0
    pairs = zip(*linear_sum_assignment(part, maximize=True), strict=True)
    return [(int(rows[row]), int(columns[column])) for row, column in pairs if part[row, column] > 0]
