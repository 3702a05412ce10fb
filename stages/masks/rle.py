"""Masks as run lengths in COCO's compressed form: columns of the original picture from left to right.

A picture has many more pixels than a mask has cells, so no picture is drawn: runs are found among the cells of each
grid column and stretched to the pixels whose centres lie in them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stages.candidates import Ints
from stages.geometry import Geometry
from stages.masks import Masks, Plane, inside
from stages.tasks import Arrays

Bytes = npt.NDArray[np.uint8]

_MOST_GROUPS = 8  # of five bits: enough for the sign and 39 bits, more pixels than any picture has


def run_lengths(masks: Masks, geometry: Geometry) -> tuple[Arrays, Ints]:
    """`mask_rle` and `mask_rle_sizes` of the masks; see `stages.tasks.Task`.

    A pixel belongs to an object if its centre lies in one of the object's cells and within its box. Masks without a
    pixel are left out; the second value says which ones are not, ascending.
    """
    grid = masks.grid_geometry(geometry)
    counts = [_counts(plane, grid) for plane in masks.planes]
    drawn = [number for number, own in enumerate(counts) if len(own) > 1]
    text, sizes = compress([counts[number] for number in drawn])
    return {"mask_rle": text, "mask_rle_sizes": sizes}, np.array(drawn, np.int64)


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


def compress(counts: Sequence[Ints]) -> tuple[Bytes, npt.NDArray[np.int32]]:
    """COCO's text form of the run lengths of each object, as bytes, joined; and the number of bytes of each.

    From the fourth count of an object on, each is written as its difference to the count two before. A number is
    written in groups of five bits, lowest first, each plus 48, with 32 added where more follow; the last group holds
    the sign (`rleToString` in pycocotools' maskApi.c).
    """
    if not counts:
        return np.empty(0, np.uint8), np.empty(0, np.int32)
    numbers = np.concatenate([_differences(own) for own in counts])
    groups = np.right_shift.outer(numbers, np.arange(0, 5 * _MOST_GROUPS, 5))
    digits = groups & 31
    done = groups >> 5 == np.where(digits & 16, -1, 0)
    last = done.argmax(axis=1)[:, None]  # group of each number
    place = np.arange(_MOST_GROUPS)
    text = (digits + 48 + 32 * (place < last))[place <= last].astype(np.uint8)
    starts = np.cumsum([0, *(len(own) for own in counts[:-1])])
    return np.asarray(text, np.uint8), np.add.reduceat(last[:, 0] + 1, starts).astype(np.int32)


def _differences(counts: Ints) -> Ints:
    numbers = counts.copy()
    numbers[3:] -= counts[1:-2]
    return numbers
