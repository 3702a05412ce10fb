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

from stages.geometry import Geometry
from stages.layouts import Floats, Ints
from stages.masks import Masks, Plane, inside
from stages.opencv import cv2
from stages.tasks import Arrays

_TOLERANCE = 0.1  # cells; how far a simplified outline may be from the full one

# Directions 0..7 around a cell, clockwise on the screen (the sweep goes the other way), and their number by
# (dy + 1, dx + 1).
_DX: Ints = np.array([1, 1, 0, -1, -1, -1, 0, 1])
_DY: Ints = np.array([0, 1, 1, 1, 0, -1, -1, -1])
_NUMBER: Ints = np.array([[5, 6, 7], [4, -1, 0], [3, 2, 1]])


class Rings(NamedTuple):
    """Closed outlines, one after the other."""

    points: Floats  # [m, 2]
    sizes: Ints  # [r] points per ring
    objects: Ints  # [r] the object of each ring, ascending


def polygons(masks: Masks, geometry: Geometry) -> Arrays:
    """`mask_points`, `mask_rings` and `mask_objects` of the masks, in frame pixels; see `stages.tasks.Task`.

    The rings of an object are in order of area, largest first. Seen on the screen, outer rings run counter-clockwise
    (their shoelace sum, y downwards, is negative) and holes clockwise. An object with an empty mask has no ring.
    """
    grid = masks.grid_geometry(geometry)
    rings = _ordered(_simplified(_rings([_beyond_box(_cut(plane, grid)) for plane in masks.planes])))
    return {
        "mask_points": grid.points_to_frame(rings.points),
        "mask_rings": rings.sizes.astype(np.int32),
        "mask_objects": np.bincount(rings.objects, minlength=len(masks.planes)).astype(np.int32),
    }


def _cut(plane: Plane, grid: Geometry) -> Plane:
    """The plane with its box cut off at the frame: an object may reach into the padding of its row."""
    left, top, right, bottom = plane.box
    width, height = grid.width * grid.scale_x + grid.offset_x, grid.height * grid.scale_y + grid.offset_y
    box = max(left, grid.offset_x), max(top, grid.offset_y), min(right, width), min(bottom, height)
    if box[0] >= box[2] or box[1] >= box[3]:
        return Plane(plane.logits[:0], plane.left, plane.top, plane.box)
    return plane._replace(box=box)


def _beyond_box(plane: Plane) -> Plane:
    """The plane with its edge cells repeated once more outside.

    What touches the edge of the crop then goes on across the edge of the box, where it is cut off in a straight line.
    """
    if not plane.logits.size:
        return plane
    padded: Any = cv2.copyMakeBorder(plane.logits, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    return Plane(padded, plane.left - 1, plane.top - 1, plane.box)


def _rings(planes: Sequence[Plane]) -> Rings:
    """The outlines of all planes in grid cells, every crossing of 0 being a point."""
    borders = [(number, border) for number, plane in enumerate(planes) for border in _borders(plane)]
    if not borders:
        return Rings(np.empty((0, 2), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
    objects = np.array([number for number, _ in borders])
    sizes = np.array([len(border) for _, border in borders])
    cells = np.concatenate([border for _, border in borders]).reshape(-1, 2).astype(np.int64)
    crossing, direction, per_cell = _crossings(cells, sizes)
    owners = np.repeat(objects, sizes)[crossing]
    points = _between(planes, owners, cells[crossing], direction)
    return Rings(points, np.add.reduceat(per_cell, np.cumsum(sizes) - sizes), objects)


def _borders(plane: Plane) -> Sequence[npt.NDArray[np.int32]]:
    """Borders of the object's cells, outer ones and those of holes, each int32 [n, 1, 2] (x, y) within the crop."""
    if not plane.logits.size:
        return ()
    contours, _ = cv2.findContours(inside(plane).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    return contours  # type: ignore[return-value]


def _crossings(cells: Ints, sizes: Ints) -> tuple[Ints, Ints, Ints]:
    """Which cells the outline crosses out of, in which directions (0..7), in order; and how often for each cell."""
    ends = np.cumsum(sizes)
    following = np.arange(1, len(cells) + 1)
    following[ends - 1] = ends - sizes
    step = cells[following] - cells
    towards = _NUMBER[step[:, 1] + 1, step[:, 0] + 1]  # of the next cell; -1 for a border of one cell
    back = np.empty_like(towards)
    back[following] = (towards + 4) % 8  # of the previous cell
    alone = towards < 0
    back[alone] = 7
    span = (back - towards) % 8
    span[(span == 0) | alone] = 8
    # Sides have even numbers: from an odd `back` they are 1, 3, 5, 7 steps away, from an even one 2, 4, 6.
    steps = np.array([1, 3, 5, 7]) + (back % 2 == 0)[:, None]
    crossed = (steps < span[:, None]) | (alone[:, None] & (steps < 8))
    cell, turn = np.nonzero(crossed)
    return cell, (back[cell] - steps[cell, turn]) % 8, crossed.sum(axis=1)


def _between(planes: Sequence[Plane], owners: Ints, cells: Ints, directions: Ints) -> Floats:
    """Points in grid cells where the logit is 0 on the way from each cell to its neighbour; cut off at the box.

    Beyond the plane nothing is known; the outline passes midway there, which lies outside the box.
    """
    shapes = np.array([plane.logits.shape for plane in planes])
    places = np.cumsum(shapes.prod(axis=1)) - shapes.prod(axis=1)
    logits = np.concatenate([plane.logits.ravel() for plane in planes])
    step = np.stack((_DX[directions], _DY[directions]), axis=1)
    height, width = shapes[owners].T
    neighbour = cells + step
    known = ((neighbour >= 0) & (neighbour < np.stack((width, height), axis=1))).all(axis=1)
    at = places[owners] + cells[:, 1] * width + cells[:, 0]
    here, there = logits[at].astype(np.float64), logits[np.where(known, at + step[:, 1] * width + step[:, 0], at)]
    share = np.where(known, here / np.where(known, here - there, 1.0), 0.5)
    origin = np.array([(plane.left, plane.top) for plane in planes])[owners]
    points = origin + cells + 0.5 + step * share[:, None]
    box = np.array([plane.box for plane in planes])[owners]
    return np.asarray(np.clip(points, box[:, :2], box[:, 2:]), np.float32)


def _ordered(rings: Rings) -> Rings:
    """The rings of each object by area, largest first; those without area, cut off by the box, are left out."""
    starts = np.cumsum(rings.sizes) - rings.sizes
    areas = np.abs(_areas(rings.points, rings.sizes, starts))
    order = np.lexsort((-areas, rings.objects))
    order = order[areas[order] > 0]
    sizes = rings.sizes[order]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Rings(rings.points[np.repeat(starts[order], sizes) + within], sizes, rings.objects[order])


def _areas(points: Floats, sizes: Ints, starts: Ints) -> npt.NDArray[np.float64]:
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
    for ring in np.split(rings.points, np.cumsum(rings.sizes)[:-1]):
        fewer = cv2.approxPolyDP(ring, _TOLERANCE, True).reshape(-1, 2) if len(ring) > 4 else ring
        parts.append(fewer if len(fewer) > 2 else ring)
    return Rings(np.concatenate(parts), np.array([len(part) for part in parts]), rings.objects)
