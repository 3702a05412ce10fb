"""The cells of a row that anchor-free heads predict from: strides one after the other, row by row in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.candidates import Floats


class Grid(NamedTuple):
    """Every cell, repeated for each of its anchors."""

    places: Floats  # [n, 2] column and row of each within its level
    strides: Floats  # [n, 1] row pixels

    def __len__(self) -> int:
        return len(self.places)


def grid(width: int, height: int, strides: Sequence[int], anchors: int = 1) -> Grid:
    """The cells of a row of that size; sides that are no multiple of a stride are rounded up."""
    places, scales = [], []
    for stride in strides:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        places.append(np.repeat(np.stack((x, y), axis=1), anchors, axis=0))
        scales.append(np.full(rows * columns * anchors, stride))
    return Grid(np.concatenate(places).astype(np.float32), np.concatenate(scales).astype(np.float32)[:, None])
