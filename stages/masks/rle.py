"""Masks as run lengths in COCO's compressed form: columns of the original picture from left to right.

A picture has many more pixels than a mask has cells, so no picture is drawn: runs are found among the cells of each
grid column and stretched to the pixels whose centres lie in them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stages.geometry import Geometry
from stages.layouts import Ints
from stages.masks import Masks, Plane, inside
from stages.tasks import Arrays

Bytes = npt.NDArray[np.uint8]


def run_lengths(masks: Masks, geometry: Geometry) -> Arrays:
    """`mask_rle` and `mask_rle_sizes` of the masks; see `stages.tasks.Task`.

    A pixel belongs to an object if its centre lies in one of the object's cells and within its box.
    """
    grid = masks.grid_geometry(geometry)
    encoded = [compress(_counts(plane, grid)) for plane in masks.planes]
    return {
        "mask_rle": np.concatenate(encoded) if encoded else np.empty(0, np.uint8),
        "mask_rle_sizes": np.array([len(counts) for counts in encoded], np.int32),
    }


def _counts(plane: Plane, grid: Geometry) -> Ints:
    """Lengths of the runs outside and inside in turn, beginning outside, over all pixels column by column."""
    width, height = round(grid.width), round(grid.height)
    starts, ends = _runs(plane, grid, width, height)
    joined = starts[1:] == ends[:-1]  # from the bottom of one column to the top of the next, or over a lost gap
    starts, ends = np.delete(starts, np.flatnonzero(joined) + 1), np.delete(ends, np.flatnonzero(joined))
    edges = np.stack((starts, ends), axis=1).reshape(-1)
    counts = np.diff(edges, prepend=0, append=width * height)
    return counts[:-1] if len(edges) and counts[-1] == 0 else counts


def _runs(plane: Plane, grid: Geometry, width: int, height: int) -> tuple[Ints, Ints]:
    """First pixel and the pixel after the last of each run, counted column by column, ascending."""
    columns, column_cells = _pixels(grid.scale_x, grid.offset_x, width, (plane.box[0], plane.box[2]), plane.left)
    rows, row_cells = _pixels(grid.scale_y, grid.offset_y, height, (plane.box[1], plane.box[3]), plane.top)
    column, first, last = _cell_runs(inside(plane))
    first, last = np.searchsorted(row_cells, first), np.searchsorted(row_cells, last)
    seen = last > first
    column, first, last = column[seen], first[seen], last[seen]
    # each pixel column repeats the runs of its cell column
    begin, end = np.searchsorted(column, column_cells), np.searchsorted(column, column_cells, side="right")
    repeats = end - begin
    run = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats - begin, repeats)
    top = np.repeat(columns * height, repeats) + (rows[0] if len(rows) else 0)
    return top + first[run], top + last[run]


def _pixels(scale: float, offset: float, size: int, span: tuple[float, float], start: int) -> tuple[Ints, Ints]:
    """The pixels of one axis with their centre in `span` (in cells), and the cell of each, counted from `start`."""
    centres = (np.arange(size) + 0.5) * scale + offset
    pixels = np.flatnonzero((centres >= span[0]) & (centres < span[1]))
    return pixels, np.floor(centres[pixels]).astype(np.int64) - start


def _cell_runs(cells: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Ints]:
    """Column, first cell and the cell after the last of each run down the columns of `cells` [h, w], in order."""
    height, width = cells.shape
    padded = np.zeros((width, height + 2), np.int8)
    padded[:, 1:-1] = cells.T
    change = np.diff(padded, axis=1)
    column, first = np.nonzero(change == 1)
    return column, first, np.nonzero(change == -1)[1]


def compress(counts: Ints) -> Bytes:
    """COCO's text form of run lengths, as bytes.

    From the fourth count on, each is written as its difference to the count two before. A number is written in groups
    of five bits, lowest first, each plus 48, with 32 added where more follow; the last group holds the sign
    (`rleToString` in pycocotools' maskApi.c).
    """
    numbers = counts.astype(np.int64)
    numbers[3:] -= counts[1:-2]
    groups = np.stack([numbers >> shift for shift in range(0, 45, 5)], axis=1)
    digits, rest = groups & 31, groups >> 5
    done = rest == np.where(digits & 16, -1, 0)
    length = done.argmax(axis=1)  # of each number, less one
    place = np.arange(groups.shape[1])
    written = place <= length[:, None]
    characters = digits + 48 + 32 * (place < length[:, None])
    return np.asarray(characters[written], np.uint8)
