"""Outputs that are pictures themselves, a number or several for each place: from the model's grid to the frame."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.candidates import Floats
from stages.geometry import Geometry
from stages.opencv import cv2

_WHOLE = 1e-3  # grid cells; a grid that begins and ends with the frame up to this needs no cutting

Size = tuple[int, int]  # width, height


class Spread:
    """How a frame lies on a grid that spans the row: where each of its pixels reads."""

    def __init__(self, geometry: Geometry, row: Size, grid: Size) -> None:
        self.size: Size = round(geometry.width), round(geometry.height)
        factors = grid[0] / row[0], grid[1] / row[1]
        # Centre of pixel i in cells of the grid, whose own centres are at halves.
        self._x = _places(self.size[0], geometry.scale_x * factors[0], geometry.offset_x * factors[0])
        self._y = _places(self.size[1], geometry.scale_y * factors[1], geometry.offset_y * factors[1])
        self._whole = _is_whole(self._x, grid[0]) and _is_whole(self._y, grid[1])
        self._grid = grid

    def smooth(self, plane: Floats) -> Floats:
        """`plane`, float32 [grid], read between its cells (bilinear, as `align_corners=False`): float32 [frame]."""
        if self._whole:
            return np.asarray(cv2.resize(plane, self.size, interpolation=cv2.INTER_LINEAR), np.float32)
        return np.asarray(_weights(self._y, self._grid[1]) @ plane @ _weights(self._x, self._grid[0]).T, np.float32)

    def nearest(self, plane: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The cell of `plane` that each pixel's centre lies in."""
        rows = np.clip(np.floor(self._y), 0, self._grid[1] - 1).astype(np.int64)
        columns = np.clip(np.floor(self._x), 0, self._grid[0] - 1).astype(np.int64)
        return plane[rows[:, None], columns]

    def covered(self, plane: Floats) -> Floats:
        """The part of `plane` that the frame covers, in whole cells."""
        left, right = int(np.floor(self._x[0])), int(np.ceil(self._x[-1]))
        top, bottom = int(np.floor(self._y[0])), int(np.ceil(self._y[-1]))
        return plane[max(top, 0) : max(bottom, 1), max(left, 0) : max(right, 1)]


def _places(count: int, scale: float, offset: float) -> npt.NDArray[np.float64]:
    return np.asarray((np.arange(count) + 0.5) * scale + offset)


def _is_whole(places: npt.NDArray[np.float64], cells: int) -> bool:
    half = cells / len(places) / 2
    return bool(abs(places[0] - half) < _WHOLE and abs(places[-1] + half - cells) < _WHOLE)


def _weights(places: npt.NDArray[np.float64], cells: int) -> Floats:
    """What each cell adds to each place, [places, cells]; beyond the outermost centres these two count alone."""
    centres = np.clip(places - 0.5, 0, cells - 1)
    first = np.minimum(np.floor(centres).astype(np.int64), max(cells - 2, 0))
    share = centres - first
    weights = np.zeros((len(places), cells), np.float32)
    rows = np.arange(len(places))
    weights[rows, first] = 1.0 - share
    weights[rows, np.minimum(first + 1, cells - 1)] += share
    return weights
