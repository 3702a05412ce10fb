"""Masks of found objects: from what the model gives to outlines or run lengths of the original picture.

A mask is a `Plane`: logits on a grid that spans the row, cropped to where the object can be. The grid has a whole
number of cells per prototype cell, so that a crop can be decoded by itself and is still the same as cropping the
whole.

    prototypes -- matmul, enlarge --> planes --+-- outlines --> polygons, corners between cells
                                               +-- run lengths, cells at pixel centres
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stages.candidates import Floats
from stages.geometry import Geometry


class Plane(NamedTuple):
    """One object's mask: the cells whose logit is above 0, cut off at `box`. May be empty."""

    logits: Floats  # [h, w] finite
    left: int  # of the crop, in cells of the grid
    top: int
    box: tuple[float, float, float, float]  # xyxy in cells of the grid


class Masks(NamedTuple):
    """The planes of all objects of a picture, and how many cells a row pixel is."""

    planes: Sequence[Plane]
    cells_x: float
    cells_y: float

    def grid_geometry(self, geometry: Geometry) -> Geometry:
        """How the frame maps to cells, for a frame that maps to the row as `geometry` says."""
        return Geometry(
            geometry.width,
            geometry.height,
            geometry.scale_x * self.cells_x,
            geometry.scale_y * self.cells_y,
            geometry.offset_x * self.cells_x,
            geometry.offset_y * self.cells_y,
        )


def inside(plane: Plane) -> npt.NDArray[np.bool_]:
    """Which cells belong to the object."""
    return plane.logits > 0
