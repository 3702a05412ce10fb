"""Whether jobs that run together give what each gives alone: runs of two different jobs, and the comparison."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.numbers import USUAL_NUMBERS, is_number
from stages.recognise.trial import Port, Trial, TrialFailed, sample

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Constants = Mapping[str, list[float]]

_MOST_BYTES = 4 << 30  # of the inputs of a trial run
_NOISE = {"float16": 2e-2, "float32": 2e-3, "float64": 2e-3}  # of the largest number in an output
_MOVED = 0.05  # part of the rows of an output that may change places
_FLIPPED = 0.001  # part of an output of whole numbers that such noise may change


class Unproven(Exception):
    """Jobs do not come out together as they do alone; the text says how that showed."""


class Bench:
    """The model on trial, with the inputs of two different jobs, A and B."""

    def __init__(
        self,
        trial: Trial,
        axes: Mapping[str, int | None],
        shapes: Mapping[str, tuple[int, ...]],
        constants: Constants,
    ) -> None:
        self.number = 0  # that the graph takes for inputs that are a single one
        self._trial = trial
        self._axes = axes
        self._jobs = [
            {port.name: _filled(port, shapes[port.name], constants, number) for port in trial.inputs}
            for number in range(2)
        ]

    def settle(self) -> Arrays:
        """The outputs of A alone. Raises TrialFailed, having tried other values for inputs that are a single number."""
        names = [port.name for port in self._trial.inputs if is_number(port.dtype, self._jobs[0][port.name].shape)]
        try:
            return self.run(0)
        except TrialFailed:
            for value in USUAL_NUMBERS if names else ():
                for job in self._jobs:
                    job.update({name: np.full_like(job[name], value) for name in names})
                with contextlib.suppress(TrialFailed):
                    found = self.run(0)
                    self.number = value
                    return found
            raise

    def check_size(self, count: int) -> None:
        """Raise TrialFailed where so many jobs take more memory than a trial may."""
        size = sum(array.nbytes for array in self._jobs[0].values()) * count
        if size > _MOST_BYTES:
            raise TrialFailed(f"the inputs of a batch of {count} take {size >> 20} MiB, above {_MOST_BYTES >> 20} MiB")

    def run(self, *jobs: int) -> Arrays:
        """The outputs of these jobs together (0 is A, 1 is B). Raises TrialFailed."""
        self.check_size(len(jobs))
        inputs = {}
        for port in self._trial.inputs:
            axis, rows = self._axes[port.name], [self._jobs[job][port.name] for job in jobs]
            inputs[port.name] = rows[0] if axis is None else np.stack(rows, axis)
        return self._trial.run(inputs)


def _filled(port: Port, shape: tuple[int, ...], constants: Constants, number: int) -> Array:
    if port.name in constants:
        return np.array(constants[port.name], port.dtype).reshape(shape)
    return sample(port.dtype, shape, number)


def check_rows(found: Arrays, expected: Arrays, places: Mapping[int, int]) -> None:
    """Rows of `found` against rows of `expected`, by place. Raises Unproven where one is another."""
    for name, array in found.items():
        for place, other in places.items():
            if not alike(array[place], expected[name][other]):
                raise Unproven(f"job {place + 1} got other numbers in {name!r} than alone, or beside another")


def alike(found: Array, expected: Array) -> bool:
    """Whether two outputs are the same but for the noise of arithmetic in another order.

    Such noise may also let a few rows of a sorted output, whose scores are almost equal, change places.
    """
    if found.shape != expected.shape:
        return False
    if found.ndim == 0 or found.size == 0:
        return bool(np.all(_same(found, expected)))
    same = _same(found, expected).reshape(len(found), -1)
    if expected.dtype.kind != "f" and np.mean(~same) <= _FLIPPED:
        return True
    moved = np.flatnonzero(~same.all(axis=1))
    if not 0 < len(moved) <= _MOVED * len(found):
        return len(moved) == 0
    pairs = _same(found[moved, None], expected[None, moved], _largest(expected))
    alike_rows = np.asarray(pairs.reshape(len(moved), len(moved), -1).all(axis=2), np.bool_)
    return bool(np.all(alike_rows.any(axis=0)) and np.all(alike_rows.any(axis=1)))


def _largest(numbers: Array) -> float:
    """How far from 0 the finite ones get."""
    floats = numbers.astype(np.float64)
    return float(np.max(np.abs(floats[np.isfinite(floats)]), initial=0.0))


def _same(found: Array, expected: Array, scale: float | None = None) -> npt.NDArray[np.bool_]:
    """Number by number: equal, or within the noise of numbers as large as the largest (`scale`)."""
    equal: npt.NDArray[np.bool_] = np.asarray(found == expected)
    if expected.dtype.kind != "f":
        return equal
    largest = _largest(expected) if scale is None else scale
    with np.errstate(invalid="ignore"):
        near = np.abs(found.astype(np.float64) - expected) <= _NOISE[str(expected.dtype)] * largest + 1e-7
    return np.asarray(equal | near | (np.isnan(found) & np.isnan(expected)))
