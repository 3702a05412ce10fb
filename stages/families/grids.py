"""The cells of a row that anchor-free heads predict from: strides one after the other, row by row in each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stages.candidates import Floats, Ints, require_finite
from stages.scores import softmax


class Grid(NamedTuple):
    """Every cell, repeated for each of its anchors."""

    places: Floats  # [n, 2] column and row of each within its level
    strides: Floats  # [n, 1] row pixels

    def __len__(self) -> int:
        return len(self.places)

    def boxes(self, index: Ints, sides: Floats, middle: float) -> Floats:
        """Boxes xyxy in row pixels whose left, top, right and bottom are `sides` [n, 4] strides away from a point.

        The point is that of the cells `index`: their corner where `middle` is 0, their middle where it is 0.5.
        """
        strides = self.strides[index]
        centres, distances = (self.places[index] + np.float32(middle)) * strides, sides * strides
        return np.concatenate((centres - distances[:, :2], centres + distances[:, 2:]), axis=1)


def mean_distances(logits: Floats) -> Floats:
    """Distances [n, 4] of the sides of boxes in strides, each the mean of its distribution over equal bins.

    `logits` are those of all bins, [n, 4 x bins] (Li et al., "Generalized Focal Loss", arXiv:2006.04388). Raises
    InferError where they are not finite.
    """
    require_finite(logits)
    bins = logits.shape[1] // 4
    return np.asarray(softmax(logits.reshape(-1, 4, bins)) @ np.arange(bins, dtype=np.float32), np.float32)


def grid(width: int, height: int, strides: Sequence[int], anchors: int = 1) -> Grid:
    """The cells of a row of that size; sides that are no multiple of a stride are rounded up."""
    places, scales = [], []
    for stride in strides:
        rows, columns = -(-height // stride), -(-width // stride)
        y, x = np.divmod(np.arange(rows * columns), columns)
        places.append(np.repeat(np.stack((x, y), axis=1), anchors, axis=0))
        scales.append(np.full(rows * columns * anchors, stride))
    return Grid(np.concatenate(places).astype(np.float32), np.concatenate(scales).astype(np.float32)[:, None])
