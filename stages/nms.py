"""Non-maximum suppression: of boxes that overlap, the best stays. Exact, and within each class.

Boxes come best first. A box stays unless a box that stayed before it overlaps it by more than the threshold; of
rotated boxes, unless any box before it does (`suppress_rotated`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.candidates import Candidates, Floats, Ints, Layout, Outputs, require_finite, require_scores
from stages.opencv import cv2
from stages.tasks.options import DetectOptions

Suppress = Callable[[Floats, float], Ints]  # boxes, best first, and the threshold -> places kept
Doubles = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

_BLOCK = 128  # rotated boxes compared at once: small enough for the cache, large enough to amortise the calls
_PAIRS = 40  # comparisons per box up to which it is cheaper to do all of them than to hand the boxes to OpenCV
_EPSILON = 1e-7


def find(layout: Layout, outputs: Outputs, options: DetectOptions) -> Candidates:
    """The detections in `outputs`, at most `max_detections`, best first; overlap is the IoU of the boxes."""
    candidates = layout.candidates(outputs, options)
    require_scores(candidates.scores[:1])
    if layout.overlapping and options.class_agnostic:
        candidates = candidates.take(suppress(candidates.boxes, options.iou))
    elif layout.overlapping:
        candidates = candidates.take(suppress_in_classes(candidates.boxes, candidates.classes, options.iou))
    return candidates.first(options.max_detections)


def find_rotated(layout: Layout, outputs: Outputs, options: DetectOptions) -> Candidates:
    """The same for rotated boxes, whose angle is the candidates' one extra number; overlap is `probabilistic_iou`."""
    candidates = layout.candidates(outputs, options)
    require_scores(candidates.scores[:1])
    require_finite(candidates.extra)
    if layout.overlapping:
        boxes = np.concatenate((candidates.boxes, candidates.extra), axis=1)
        classes = np.zeros_like(candidates.classes) if options.class_agnostic else candidates.classes
        candidates = candidates.take(_one_by_one(boxes, classes, suppress_rotated, options.iou))
    return candidates.first(options.max_detections)


def suppress_in_classes(boxes: Floats, classes: Ints, iou: float) -> Ints:
    """Places of the boxes that stay, ascending, where only boxes of one class suppress each other.

    `boxes` [n, 4] xyxy, best first. With few boxes per class all pairs are compared at once.
    """
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    rivals = np.searchsorted(ordered, ordered, side="right") - np.arange(1, len(boxes) + 1)
    pairs = int(rivals.sum())
    if pairs > _PAIRS * len(boxes):
        return _one_by_one(boxes, classes, suppress, iou)
    better = np.repeat(np.arange(len(boxes)), rivals)
    worse = np.arange(1, pairs + 1) - np.repeat(np.cumsum(rivals) - rivals, rivals) + better
    overlapping = _iou(boxes[order].astype(np.float64), better, worse) > iou
    stays = _greedy(better[overlapping], worse[overlapping], len(boxes))
    return np.sort(order[stays])


def _one_by_one(boxes: Floats, classes: Ints, method: Suppress, iou: float) -> Ints:
    """Suppress each class on its own: fewer pairs than shifting classes apart, and right for boxes of any size."""
    order = np.argsort(classes, kind="stable")
    starts = np.flatnonzero(np.diff(classes[order])) + 1
    kept = [group[method(boxes[group], iou)] for group in np.split(order, starts)]
    return np.sort(np.concatenate(kept))


def _iou(boxes: Doubles, first: Ints, second: Ints) -> Doubles:
    """IoU of the boxes [n, 4] at the places `first` with those at `second`, pair by pair; 0 where one has no area."""
    columns = np.ascontiguousarray(boxes.T)
    sizes = np.maximum(columns[2:] - columns[:2], 0.0)
    areas = sizes[0] * sizes[1]
    common = np.ones(len(first))
    for start, end in ((columns[0], columns[2]), (columns[1], columns[3])):
        shared = np.minimum(end.take(first), end.take(second))
        shared -= np.maximum(start.take(first), start.take(second))
        common *= np.maximum(shared, 0.0, out=shared)
    union = areas.take(first) + areas.take(second)
    union -= common
    return np.asarray(np.divide(common, union, out=common, where=union > 0))


def suppress(boxes: Floats, iou: float) -> Ints:
    """Places of the boxes that stay, ascending. `boxes` [n, 4] xyxy, best first.

    A box without area overlaps nothing. OpenCV does the comparing, in float64; the scores it is given only keep the
    order. Its overlaps are rounded to float32, and so is the threshold, the same way: an equal one is allowed.
    """
    places = np.arange(len(boxes))
    if len(boxes) < 2:
        return places
    rectangles = boxes.astype(np.float64)  # x, y, width, height
    rectangles[:, 2:] -= rectangles[:, :2]
    solid = (rectangles[:, 2:] > 0).all(axis=1)
    if solid.all():
        return _suppress_solid(rectangles, iou)
    kept = _suppress_solid(rectangles[solid], iou)
    return np.sort(np.concatenate((places[solid][kept], places[~solid])))


def _suppress_solid(rectangles: Doubles, iou: float) -> Ints:
    if not len(rectangles):
        return np.empty(0, np.int64)
    ranks = np.arange(len(rectangles), 0, -1, dtype=np.float32)
    boxes: Any = rectangles  # OpenCV takes arrays too, and faster, but its stubs ask for sequences
    weights: Any = ranks
    return np.asarray(cv2.dnn.NMSBoxes(boxes, weights, 0.0, _as_opencv_rounds(iou)), np.int64)


def suppress_rotated(boxes: Floats, iou: float) -> Ints:
    """Places of the boxes that stay, ascending. `boxes` [n, 5]: centre, width, height, angle; best first.

    As Ultralytics does for rotated boxes ("fast NMS", Bolya et al., "YOLACT", arXiv:1904.02689, section 4): a box stays
    unless any better one overlaps it by the threshold or more, be that one suppressed itself or not.
    """
    precise = boxes.astype(np.float64)
    # What greedy suppression removes falls here too, so only the few that it leaves meet the many it removed.
    stays = np.zeros(len(boxes), np.bool_)
    stays[_suppress_greedily(precise, iou)] = True
    gone, kept = np.flatnonzero(~stays), np.flatnonzero(stays)
    for start in range(0, len(gone), _BLOCK):
        block = gone[start : start + _BLOCK]
        worse = kept[kept > block[0]]
        overlaps = probabilistic_iou(precise[block], precise[worse]) >= iou
        stays[worse[(overlaps & (block[:, None] < worse)).any(axis=0)]] = False
        kept = np.flatnonzero(stays)
    return kept


def _suppress_greedily(boxes: Doubles, iou: float) -> Ints:
    """The same where only boxes that stay suppress others."""
    kept = np.empty(0, np.int64)
    for start in range(0, len(boxes), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(boxes)))
        block = block[~(probabilistic_iou(boxes[kept], boxes[block]) >= iou).any(axis=0)]
        better, worse = np.nonzero(np.triu(probabilistic_iou(boxes[block], boxes[block]) >= iou, 1))
        kept = np.concatenate((kept, block[_greedy(better, worse, len(block))]))
    return kept


def _greedy(better: Ints, worse: Ints, count: int) -> Flags:
    """Which of `count` boxes stay, where each box of `better` overlaps the one beside it in `worse`.

    Greedy suppression is the only fixed point of "stays, unless one that stays suppresses it". Repeating that rule
    settles at least one more box, from the best downwards, each time; usually a few rounds settle all.
    """
    stays: Flags = np.ones(count, np.bool_)
    while True:
        following: Flags = np.ones(count, np.bool_)
        following[worse[stays[better]]] = False
        if np.array_equal(following, stays):
            return stays
        stays = following


def probabilistic_iou(first: Doubles, second: Doubles) -> Doubles:
    """Overlap of rotated boxes [n, 5] and [m, 5] (centre, width, height, angle in radians) as [n, m], 0..1.

    Each box is taken as a Gaussian; the overlap is one minus the Hellinger distance of the two. Llerena et al.,
    "Gaussian Bounding Boxes and Probabilistic Intersection-over-Union for Object Detection", arXiv:2106.06072,
    equations 2 to 7; with the epsilons that Ultralytics' `batch_probiou` uses.
    """
    x, y = (first[:, None, axis] - second[None, :, axis] for axis in (0, 1))
    (a1, b1, c1), (a2, b2, c2) = _covariance(first), _covariance(second)
    a, b, c = a1[:, None] + a2, b1[:, None] + b2, c1[:, None] + c2
    determinant = np.maximum(a * b - c * c, 0.0)  # rounding may take that of a very thin box below
    spread = (a * y * y + b * x * x - 2.0 * c * x * y) / (determinant + _EPSILON) * 0.25
    own = np.maximum(a1 * b1 - c1 * c1, 0.0)[:, None] * np.maximum(a2 * b2 - c2 * c2, 0.0)
    shape = 0.5 * np.log(determinant / (4.0 * np.sqrt(own) + _EPSILON) + _EPSILON)
    bhattacharyya = np.clip(spread + shape, _EPSILON, 100.0)
    return np.asarray(1.0 - np.sqrt(1.0 - np.exp(-bhattacharyya) + _EPSILON))


def _covariance(boxes: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """Variances along x and y, and the covariance, of the Gaussians that stand for the boxes."""
    width, height, cos, sin = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12, np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    return width * cos**2 + height * sin**2, width * sin**2 + height * cos**2, (width - height) * cos * sin


def _as_opencv_rounds(overlap: float) -> float:
    """The overlap as `rectOverlap` of OpenCV gives it: 1 minus the float32 of 1 minus the overlap."""
    return float(np.float32(1.0) - np.float32(1.0 - overlap))
