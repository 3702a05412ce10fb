"""Masks as polygons: where the logits cross 0, found between cells.

Marching squares, but over borders that OpenCV has traced already. A traced border visits the object's cells with
something else beside them; for each such pair of neighbours the outline passes between their centres where the
logit, taken as linear, is 0. All borders of all objects go through this at once.

    prev --- cell --- next      a border along the lower edge of an object: turning from `prev` to `next` passes
          .    |    .           only neighbours that are not the object's, here three; where it passes a side
               x                neighbour, and not a corner, the outline crosses the way there
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stages.candidates import Floats, Ints
from stages.geometry import Geometry
from stages.masks import Masks, Plane, inside
from stages.opencv import cv2
from stages.tasks import Arrays

Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_TOLERANCE = 0.1  # cells; how far a simplified outline may be from the full one

# Directions 0..7 around a cell, clockwise on the screen.
_DX: Ints = np.array([1, 1, 0, -1, -1, -1, 0, 1])
_DY: Ints = np.array([0, 1, 1, 1, 0, -1, -1, -1])
_ALONE = 8  # stands for the direction of the next cell in a border of one cell
_NUMBER: Ints = np.array([5, 6, 7, 4, _ALONE, 0, 3, 2, 1])  # of the direction, by (dy + 1) * 3 + dx + 1


def _sides() -> tuple[Flags, Ints]:
    """Which sides the sweep from the previous to the next cell passes, counter-clockwise: in order, at most four.

    Both are [13 * 9, 4], by back * 9 + towards: whether there is a first, second ... side, and its direction.
    """
    passed = np.zeros((13, 9, 4), np.bool_)
    directions = np.zeros((13, 9, 4), np.int64)
    for back in range(8):
        for towards in range(8):
            span = (back - towards) % 8 or 8
            sides = [(back - turn) % 8 for turn in range(1, span) if (back - turn) % 2 == 0]
            passed[back, towards, : len(sides)] = True
            directions[back, towards, : len(sides)] = sides
    passed[_ALONE ^ 4, _ALONE] = True
    directions[_ALONE ^ 4, _ALONE] = 6, 4, 2, 0
    return passed.reshape(-1, 4), directions.reshape(-1, 4)


class Rings(NamedTuple):
    """Closed outlines, one after the other."""

    points: Floats  # [m, 2]
    sizes: Ints  # [r] points per ring
    objects: Ints  # [r] the object of each ring, ascending


_PASSED, _DIRECTIONS = _sides()


def polygons(masks: Masks, geometry: Geometry) -> tuple[Arrays, Ints]:
    """`mask_points`, `mask_rings` and `mask_objects` of the masks, in frame pixels; see `stages.tasks.Task`.

    The rings of an object are in order of area, largest first. Seen on the screen, outer rings run counter-clockwise
    (their shoelace sum, y downwards, is negative) and holes clockwise. Empty masks are left out; the second value says
    which ones are not, ascending.
    """
    grid = masks.grid_geometry(geometry)
    rings = _ordered(_simplified(_rings([_beyond_box(_cut(plane, grid)) for plane in masks.planes])))
    drawn, counts = np.unique(rings.objects, return_counts=True)
    arrays = {
        "mask_points": grid.points_to_frame(rings.points),
        "mask_rings": rings.sizes.astype(np.int32),
        "mask_objects": counts.astype(np.int32),
    }
    return arrays, drawn


def _cut(plane: Plane, grid: Geometry) -> Plane:
    """The plane with its box cut off at the frame: an object may reach into the padding of its row."""
    left, top, right, bottom = plane.box
    width, height = grid.width * grid.scale_x + grid.offset_x, grid.height * grid.scale_y + grid.offset_y
    box = max(left, grid.offset_x), max(top, grid.offset_y), min(right, width), min(bottom, height)
    if box[0] >= box[2] or box[1] >= box[3]:
        return Plane(plane.logits[:0], plane.left, plane.top, plane.box)
    return plane._replace(box=box)


def _beyond_box(plane: Plane) -> Plane:
    """The plane with its edge cells repeated once more outside, and cells beyond those that are not the object's.

    What touches the edge of the crop then goes on across the edge of the box, where it is cut off in a straight line.
    """
    if not plane.logits.size:
        return plane
    padded = cv2.copyMakeBorder(plane.logits, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    closed: Any = cv2.copyMakeBorder(padded, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=-1.0)
    return Plane(closed, plane.left - 2, plane.top - 2, plane.box)


def _rings(planes: Sequence[Plane]) -> Rings:
    """The outlines of all planes in grid cells, every crossing of 0 being a point; cut off at the boxes."""
    borders = [(number, border) for number, plane in enumerate(planes) for border in _borders(plane)]
    if not borders:
        return Rings(np.empty((0, 2), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    objects = np.array([number for number, _ in borders])
    sizes = np.array([len(border) for _, border in borders])
    cells = np.ascontiguousarray(np.concatenate([border for _, border in borders]).reshape(-1, 2).T, np.int64)
    crossed, direction = _crossings(cells, sizes)
    share = _shares(planes, np.repeat(objects, sizes), cells, crossed, direction)
    ring_sizes = np.diff(np.searchsorted(crossed, np.cumsum(sizes)), prepend=0)
    frames = np.array([(plane.left + 0.5, plane.top + 0.5, *plane.box) for plane in planes]).take(objects, axis=0)
    left, top, first_x, first_y, last_x, last_y = (np.repeat(column, ring_sizes) for column in frames.T)
    points = np.empty((len(crossed), 2), np.float32)
    x = cells[0].take(crossed) + left + _DX.take(direction) * share
    y = cells[1].take(crossed) + top + _DY.take(direction) * share
    points[:, 0] = np.minimum(np.maximum(x, first_x), last_x)
    points[:, 1] = np.minimum(np.maximum(y, first_y), last_y)
    return Rings(points, ring_sizes, objects)


def _borders(plane: Plane) -> Sequence[npt.NDArray[np.int32]]:
    """Borders of the object's cells, outer ones and those of holes, each int32 [n, 1, 2] (x, y) within the crop."""
    if not plane.logits.size:
        return ()
    contours, _ = cv2.findContours(inside(plane).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return contours  # type: ignore[return-value]


def _crossings(cells: Ints, sizes: Ints) -> tuple[Ints, Ints]:
    """Which of the `cells` [2, n] (x, y) the outline crosses out of, and in which directions, in order."""
    ends = np.cumsum(sizes)
    following = np.arange(1, cells.shape[1] + 1)
    following[ends - 1] = ends - sizes
    step = cells.take(following, axis=1) - cells
    towards = _NUMBER.take(step[1] * 3 + step[0] + 4)
    back = np.empty_like(towards)
    back[following] = towards ^ 4  # the opposite, seen from the next cell
    turn = back * 9 + towards
    place = np.flatnonzero(_PASSED.take(turn, axis=0))
    crossed = place >> 2
    return crossed, _DIRECTIONS.take(turn.take(crossed) * 4 + (place & 3))


def _shares(planes: Sequence[Plane], owners: Ints, cells: Ints, crossed: Ints, directions: Ints) -> Doubles:
    """How far, 0..1, the logit is 0 on the way from each crossed cell to its neighbour in that direction."""
    logits = np.concatenate([plane.logits.ravel() for plane in planes])
    areas = np.array([plane.logits.size for plane in planes])
    widths = np.array([plane.logits.shape[1] for plane in planes]).take(owners)
    places = (np.cumsum(areas) - areas).take(owners) + cells[1] * widths + cells[0]
    here = places.take(crossed)
    there = here + _DX.take(directions) + _DY.take(directions) * widths.take(crossed)
    inner = logits.take(here).astype(np.float64)
    return np.asarray(inner / (inner - logits.take(there)))


def _ordered(rings: Rings) -> Rings:
    """The rings of each object by area, largest first; those without area, cut off by the box, are left out."""
    starts = np.cumsum(rings.sizes) - rings.sizes
    areas = np.abs(_areas(rings.points, rings.sizes, starts))
    order = np.lexsort((-areas, rings.objects))
    order = order[areas[order] > 0]
    sizes = rings.sizes[order]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    points = rings.points.take(np.repeat(starts[order], sizes) + within, axis=0)
    return Rings(points, sizes, rings.objects[order])


def _areas(points: Floats, sizes: Ints, starts: Ints) -> Doubles:
    """Signed area of each ring, by the shoelace formula about the ring's first point."""
    if not len(sizes):
        return np.empty(0)
    relative = points.astype(np.float64) - np.repeat(points[starts], sizes, axis=0)
    following = np.arange(1, len(points) + 1)
    following[starts + sizes - 1] = starts
    x, y = relative.T
    return np.asarray(np.add.reduceat(x * y[following] - x[following] * y, starts) / 2)


def _simplified(rings: Rings) -> Rings:
    """The same outlines with fewer points, by Douglas and Peucker; a ring keeps at least three."""
    if not len(rings.sizes):
        return rings
    parts = []
    ends = np.cumsum(rings.sizes).tolist()
    for start, end in zip([0, *ends], ends, strict=False):
        ring = rings.points[start:end]
        fewer = cv2.approxPolyDP(ring, _TOLERANCE, True).reshape(-1, 2) if len(ring) > 4 else ring
        parts.append(fewer if len(fewer) > 2 else ring)
    return Rings(np.concatenate(parts), np.array([len(part) for part in parts]), rings.objects)
