"""Planes from prototypes and coefficients (YOLO), or from ready masks (RF-DETR). Only what is kept is decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from stages.candidates import Candidates, Floats, as_float32, require_finite
from stages.masks import Masks, Plane
from stages.opencv import cv2
from stages.tasks.options import SegmentOptions

_Crop = tuple[int, int, int, int]  # left, top, right, bottom in cells

# One product of all objects with the whole prototypes costs about as much as crops of this share of the whole area:
# the product of many rows uses the processor several times better than that of one.
_WHOLE = 0.3


def enlargement(options: SegmentOptions, row: tuple[int, int], cells: tuple[int, int]) -> int:
    """Grid cells per mask cell and axis: 1 is fast; as many as reach the row's resolution is accurate."""
    full = max(1, math.ceil(row[0] / cells[0]), math.ceil(row[1] / cells[1]))
    if options.mask_decode_mode == "fast":
        return 1
    if options.mask_decode_mode == "accurate":
        return full
    return 1 + round(options.tradeoff_factor * (full - 1))


def decode(found: Candidates, prototypes: Floats, row: tuple[int, int], options: SegmentOptions) -> Masks:
    """Masks of the objects `found`, cut off at their boxes.

    `prototypes` is float32 [c, h, w] and spans the row, whose (width, height) is `row`; `found.extra` holds the c
    coefficients of each object. The logits are enlarged, bilinearly and with aligned edges, before the cut at 0.
    """
    count, height, width = prototypes.shape
    if found.extra.shape[1] != count:
        raise InferError(f"the model gave {found.extra.shape[1]} mask coefficients and {count} prototypes")
    require_finite(found.extra)
    factor = enlargement(options, row, (width, height))
    cells = np.array([width / row[0], height / row[1]] * 2, np.float64) * factor
    boxes = np.clip(found.boxes * cells, 0, np.array([width, height] * 2) * factor)
    crops = _crops(boxes)
    sources = [_source(crop, factor, width, height) for crop in crops]
    logits = list(_products(found.extra, prototypes, sources))
    require_finite(np.concatenate([np.empty(0, np.float32), *(logit.ravel() for logit in logits)]))
    planes = [
        Plane(_enlarge(logit, source, crop, factor), crop[0], crop[1], tuple(box))
        for logit, source, crop, box in zip(logits, sources, crops, boxes.tolist(), strict=True)
    ]
    return Masks(planes, float(cells[0]), float(cells[1]))


def enlarge_masks(
    found: Candidates,
    masks: npt.NDArray[Any],
    row: tuple[int, int],
    options: SegmentOptions,
    threshold: float = 0.0,
) -> Masks:
    """Masks from numbers [q, h, w] that span the row, by the objects' places; not cut off at their boxes.

    A cell belongs to the object where its number is above `threshold`: 0 for logits, 0.5 for probabilities.
    """
    count, height, width = masks.shape
    if found.places.max(initial=-1) >= count:
        raise InferError(f"the model gave only {count} masks for its objects")
    factor = enlargement(options, row, (width, height))
    whole = (0, 0, width, height)
    grid = (0, 0, width * factor, height * factor)
    planes = []
    for place in found.places.tolist():
        logits = as_float32(masks[place]) - np.float32(threshold)
        require_finite(logits)
        planes.append(Plane(_enlarge(logits, whole, grid, factor), 0, 0, grid))
    return Masks(planes, grid[2] / row[0], grid[3] / row[1])


def paste_masks(found: Candidates, masks: npt.NDArray[Any], row: tuple[int, int], threshold: float) -> Masks:
    """Masks from numbers [q, h, w] that each span the box of their object, read at the centres of the row's pixels.

    As `_do_paste_mask` of MMDetection does: bilinear, 0 around the mask, its cells' centres at halves.
    """
    count, height, width = masks.shape
    if found.places.max(initial=-1) >= count:
        raise InferError(f"the model gave only {count} masks for its objects")
    boxes = np.clip(found.boxes.astype(np.float64), 0, np.array([*row, *row]))
    planes = []
    for place, box, crop in zip(found.places.tolist(), found.boxes.astype(np.float64), _crops(boxes), strict=True):
        require_finite(masks[place])
        x = _centres(crop[0], crop[2], box[0], box[2], width)
        y = _centres(crop[1], crop[3], box[1], box[3], height)
        at_x, at_y = np.meshgrid(x, y)
        plane = as_float32(masks[place])
        pasted = cv2.remap(plane, at_x, at_y, cv2.INTER_LINEAR, borderValue=0.0) if at_x.size else at_x
        planes.append(Plane(np.asarray(pasted - threshold, np.float32), crop[0], crop[1], tuple(box.tolist())))
    return Masks(planes, 1.0, 1.0)


def _centres(first: int, last: int, start: float, end: float, cells: int) -> Floats:
    """Centres of the pixels `first` to `last` in the `cells` that span `start` to `end`, along an axis."""
    return (((np.arange(first, last) + 0.5 - start) / max(end - start, 1e-6)) * cells - 0.5).astype(np.float32)


def _crops(boxes: npt.NDArray[np.float64]) -> list[_Crop]:
    """The grid cells that each box touches; `boxes` [n, 4] xyxy in cells, cut off at the grid."""
    first = np.floor(boxes[:, :2]).astype(np.int64)
    last = np.maximum(np.ceil(boxes[:, 2:]).astype(np.int64), first)
    return [(left, top, right, bottom) for left, top, right, bottom in np.concatenate((first, last), axis=1).tolist()]


def _source(crop: _Crop, factor: int, width: int, height: int) -> _Crop:
    """The prototype cells that the crop's cells are made of: one more on each side when it is enlarged."""
    left, top, right, bottom = crop
    if factor == 1 or left == right or top == bottom:
        return left // factor, top // factor, right // factor, bottom // factor
    return (
        max(0, left // factor - 1),
        max(0, top // factor - 1),
        min(width, -(-right // factor) + 1),
        min(height, -(-bottom // factor) + 1),
    )


def _products(coefficients: Floats, prototypes: Floats, crops: list[_Crop]) -> Iterator[Floats]:
    """Coefficients times prototypes in each crop: one by one where the crops are small, else all in one product."""
    count, height, width = prototypes.shape
    area = sum((right - left) * (bottom - top) for left, top, right, bottom in crops)
    if area > _WHOLE * len(crops) * height * width:
        whole = (coefficients @ prototypes.reshape(count, -1)).reshape(-1, height, width)
        yield from (
            plane[top:bottom, left:right] for plane, (left, top, right, bottom) in zip(whole, crops, strict=True)
        )
        return
    lines = prototypes.transpose(1, 0, 2)  # a product per line of a crop reads it in place; one per crop copies it
    for weights, (left, top, right, bottom) in zip(coefficients, crops, strict=True):
        yield np.matmul(weights, lines[top:bottom, :, left:right])


def _enlarge(logits: Floats, source: _Crop, crop: _Crop, factor: int) -> Floats:
    if factor == 1 or not logits.size:
        return logits
    height, width = logits.shape
    large = cv2.resize(logits, (width * factor, height * factor), interpolation=cv2.INTER_LINEAR)
    left, top = crop[0] - source[0] * factor, crop[1] - source[1] * factor
    return large[top : top + crop[3] - crop[1], left : left + crop[2] - crop[0]]  # type: ignore[return-value]
