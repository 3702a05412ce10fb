"""Objects cut out of a picture: which ones, their pixels, and the way from a crop's answer back to the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.answers.result_map import polygons
from parallel_infer.crops import Crop, CutOut, Selection
from parallel_infer.errors import BadInput
from stages.frame import Frame
from stages.geometry import Floats
from stages.opencv import cv2

Arrays = dict[str, npt.NDArray[Any]]
_GRAY = 114  # pixel value of what a mask leaves out, as letterboxes have it
_UPRIGHT = math.radians(10)  # how far from upright a line of text is still read downwards
_SUBPIXEL = 4  # fractional bits of coordinates handed to OpenCV


def select(
    arrays: Arrays, size: tuple[int, int], selections: Sequence[Selection]
) -> tuple[tuple[CutOut, ...], tuple[int, ...]]:
    """What each selection cuts out of an answer about a picture of `size` (width, height), the best objects first.

    Beside it, by selection, how many objects were left out because there were more than `max_objects`.
    """
    cuts: list[CutOut] = []
    left_out = []
    for step, selection in enumerate(selections):
        chosen = _chosen(arrays, selection)
        left_out.append(max(0, len(chosen) - selection.max_objects))
        kept = chosen[: selection.max_objects]
        cuts += [CutOut(step, index, _crop(arrays, index, size, selection)) for index in kept]
    return tuple(cuts), tuple(left_out)


def _chosen(arrays: Arrays, selection: Selection) -> list[int]:
    boxes, scores = arrays["boxes"], arrays["scores"]
    wanted = (scores >= selection.min_score) & ((boxes[:, 2:] - boxes[:, :2]).min(1) >= selection.min_size)
    if selection.classes:
        wanted &= np.isin(arrays["classes"], selection.classes)
    found = np.flatnonzero(wanted)
    order: list[int] = found[np.argsort(-scores[found], kind="stable")].tolist()
    return order


def _crop(arrays: Arrays, index: int, size: tuple[int, int], selection: Selection) -> Crop:
    left, top, right, bottom = arrays["boxes"][index].tolist()
    across, down = (right - left) * selection.margin, (bottom - top) * selection.margin
    left, top, right, bottom = left - across, top - down, right + across, bottom + down
    rings: tuple[bytes, ...] = ()
    if selection.masked and (masks := polygons(arrays)) is not None:
        rings = tuple(ring.astype(np.float32).tobytes() for ring in masks[index])
    angle = float(arrays["angles"][index]) if "angles" in arrays else 0.0
    turn = _across(right - left, bottom - top, angle) if selection.wide else _least(angle)
    if angle or turn:
        return Crop(*_turned(left, top, right, bottom, angle - turn), *size, turn, rings)
    left, top = (float(min(max(0, math.floor(value)), most - 1)) for value, most in zip((left, top), size, strict=True))
    right, bottom = (float(min(math.ceil(value), most)) for value, most in zip((right, bottom), size, strict=True))
    return Crop(left, top, max(1.0, right - left), max(1.0, bottom - top), *size, 0.0, rings)


def _least(angle: float) -> float:
    """The same direction within an eighth of a turn: what is hardly turned is not laid on its side."""
    return (angle + math.pi / 4) % (math.pi / 2) - math.pi / 4


def _across(width: float, height: float, angle: float) -> float:
    """The direction of the longer side, from the left to the right; what is about upright is read downwards."""
    along = angle if width >= height else angle + math.pi / 2
    most = math.pi / 2 + _UPRIGHT
    return most - (most - along) % math.pi


def _turned(left: float, top: float, right: float, bottom: float, by: float) -> tuple[float, float, float, float]:
    """Left, top, width and height of the same box turned back `by` whole quarters of a turn."""
    width, height = right - left, bottom - top
    if round(by / (math.pi / 2)) % 2:
        centre_x, centre_y = (left + right) / 2, (top + bottom) / 2
        return centre_x - height / 2, centre_y - width / 2, height, width
    return left, top, width, height


def cut(frame: Frame, crop: Crop) -> Frame:
    """The pixels of a crop, upright, from the whole picture's frame; a view where nothing is turned or masked.

    Raises BadInput where the frame is not of the picture that the crop was made for.
    """
    height, width = frame.shape[:2]
    if (width, height) != (crop.of_width, crop.of_height):
        raise BadInput(
            f"the picture was changed while it was worked on: it had {crop.of_width}x{crop.of_height} pixels and has "
            f"{width}x{height} now"
        )
    if not crop.angle:
        left, top = int(crop.left), int(crop.top)
        pixels = frame[top : top + int(crop.height), left : left + int(crop.width)]
    else:
        size = max(1, round(crop.width)), max(1, round(crop.height))
        # Continuous coordinates: pixel centres lie at halves, which OpenCV counts as whole numbers.
        matrix = _to_picture(crop)
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pixels = cv2.warpAffine(frame, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return _masked(pixels, crop) if crop.rings else pixels


def _to_picture(crop: Crop) -> npt.NDArray[np.float64]:
    """float64 [2, 3], from pixels of the crop to pixels of the picture."""
    cos, sin = math.cos(crop.angle), math.sin(crop.angle)
    turn = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([crop.left + crop.width / 2, crop.top + crop.height / 2])
    # A crop has whole pixels: it may be a fraction of one larger or smaller than its box.
    scale = np.array([crop.width / max(1, round(crop.width)), crop.height / max(1, round(crop.height))])
    offset = middle - turn @ np.array([crop.width / 2, crop.height / 2])
    return np.concatenate((turn * scale, offset[:, None]), axis=1)


def _masked(pixels: Frame, crop: Crop) -> Frame:
    """A crop in which all that lies outside of the object's mask is gray."""
    back = np.linalg.inv(np.concatenate((_to_picture(crop), [[0.0, 0.0, 1.0]])))[:2]
    rings = [_mapped(np.frombuffer(ring, np.float32).reshape(-1, 2), back) for ring in crop.rings]
    fixed = [np.asarray(((ring - 0.5) * (1 << _SUBPIXEL)).round(), np.int32) for ring in rings if len(ring) >= 3]
    inside = np.zeros(pixels.shape[:2], np.uint8)
    cv2.fillPoly(inside, fixed, 1, cv2.LINE_8, _SUBPIXEL)
    masked = np.array(pixels)
    masked[inside == 0] = _GRAY
    return masked


def in_picture(arrays: Arrays, crop: Crop) -> Arrays:
    """The arrays of an answer about a crop, in pixels of the picture.

    Boxes of a turned crop are turned as well: `angles` says by how much, as in an answer of rotated boxes.
    """
    if not crop.angle:
        shift = np.array([crop.left, crop.top], np.float32)
        return {name: _shifted(name, array, shift) for name, array in arrays.items()}
    matrix = _to_picture(crop)
    mapped = dict(arrays)
    if "boxes" in arrays:
        mapped["boxes"] = _turned_boxes(arrays["boxes"], matrix)
        angles = arrays.get("angles", np.zeros(len(arrays["boxes"]), np.float32))
        mapped["angles"] = (angles + np.float32(crop.angle)).astype(np.float32)
    if "keypoints" in arrays:
        points = arrays["keypoints"].copy()
        points[..., :2] = _mapped(points[..., :2], matrix)
        mapped["keypoints"] = points
    if "mask_points" in arrays:
        mapped["mask_points"] = _mapped(arrays["mask_points"], matrix)
    return mapped


def _shifted(name: str, array: npt.NDArray[Any], shift: Floats) -> npt.NDArray[Any]:
    if name == "boxes":
        moved: Floats = array + np.tile(shift, 2)
        return moved
    if name == "mask_points":
        return array + shift
    if name == "keypoints":
        points = array.copy()
        points[..., :2] += shift
        return points
    return array


def _mapped(points: npt.NDArray[Any], matrix: npt.NDArray[np.float64]) -> Floats:
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def _turned_boxes(boxes: Floats, matrix: npt.NDArray[np.float64]) -> Floats:
    """float32 [n, 4]: the boxes about their centres in the picture, of their own size."""
    scale = np.hypot(matrix[0, :2], matrix[1, :2])
    centres = _mapped((boxes[:, :2] + boxes[:, 2:]) / 2, matrix)
    half = ((boxes[:, 2:] - boxes[:, :2]) / 2 * scale).astype(np.float32)
    return np.concatenate((centres - half, centres + half), axis=1)
