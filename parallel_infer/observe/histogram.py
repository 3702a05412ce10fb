"""How long jobs took, counted in fixed buckets: cheap enough for every job, fine enough for percentiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parallel_infer.ipc.messages import TIMES

PARTS = (*TIMES, "total")
PER_DOUBLING = 4  # buckets from one bound to its double: each is 19 % wide
_SMALLEST = 0.0001  # seconds
_DOUBLINGS = 20  # the largest bound is 105 seconds
BOUNDS = tuple(_SMALLEST * 2 ** (step / PER_DOUBLING) for step in range(PER_DOUBLING * _DOUBLINGS + 1))
_BOUNDS = np.array(BOUNDS)
_WIDTH = len(BOUNDS) + 1  # the last bucket has no bound
_SHIFTS = np.arange(len(PARTS)) * _WIDTH
_TOGETHER = 128  # jobs that are counted in one go


class JobTimes:
    """The times of one model's jobs.

    A job costs an append; many are counted together, for a hundredth of what counting each would cost.
    """

    __slots__ = ("_counts", "_new", "_seconds")

    def __init__(self) -> None:
        self._new: list[tuple[float, ...]] = []
        self._counts = np.zeros((len(PARTS), _WIDTH), np.int64)
        self._seconds = np.zeros(len(PARTS))

    def add(self, times: tuple[float, ...]) -> None:
        """Count a job; `times` are seconds as in PARTS."""
        self._new.append(times)
        if len(self._new) >= _TOGETHER:
            self._count()

    def _count(self) -> None:
        times = np.array(self._new)
        self._new.clear()
        places = np.searchsorted(_BOUNDS, times) + _SHIFTS
        self._counts += np.bincount(places.ravel(), minlength=self._counts.size).reshape(self._counts.shape)
        self._seconds += times.sum(axis=0)

    def status(self) -> dict[str, dict[str, Any]]:
        """By part: all seconds together, and the jobs in each bucket up to the last that is not empty."""
        if self._new:
            self._count()
        return {
            part: {"seconds": float(seconds), "counts": np.trim_zeros(counts, "b").tolist()}
            for part, seconds, counts in zip(PARTS, self._seconds, self._counts, strict=True)
        }


def percentile(counts: Sequence[int], share: float) -> float:
    """Seconds within which `share` (0 to 1) of the jobs in these buckets were done; 0 where there are none.

    Inside a bucket jobs are taken to be spread evenly; those beyond the last bound count as that bound.
    """
    wanted, passed = share * sum(counts), 0
    for place, count in enumerate(counts):
        if count and passed + count >= wanted:
            if place >= len(BOUNDS):
                return BOUNDS[-1]
            lower = BOUNDS[place - 1] if place else 0.0
            return lower + (BOUNDS[place] - lower) * (wanted - passed) / count
        passed += count
    return 0.0


def difference(newer: Sequence[int], older: Sequence[int]) -> list[int]:
    """The jobs counted between two looks; those of `newer` alone where the server began to count anew."""
    padded = [*older, *[0] * (len(newer) - len(older))]
    changes = [after - before for after, before in zip(newer, padded, strict=False)]
    return list(newer) if len(older) > len(newer) or any(change < 0 for change in changes) else changes


def merged(counts: Sequence[int]) -> list[tuple[float, int]]:
    """(bound, jobs up to it) in buckets that double, all bounds; the jobs beyond the last are left out."""
    bounds = list(enumerate(BOUNDS))[::PER_DOUBLING]
    return [(bound, sum(counts[: place + 1])) for place, bound in bounds]


def all_counts(times: Mapping[str, Any], part: str) -> list[int]:
    """The buckets of one part in what `status` returned."""
    return list(times.get(part, {}).get("counts", ()))
