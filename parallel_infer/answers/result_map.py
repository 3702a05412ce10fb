"""An answer as plain values: the documented result map, and what masks, names and rotated boxes are made of."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from parallel_infer.answers import dense_results

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Polygons = list[list[Floats]]

COCO_KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)


def result_dict(
    task: str,
    arrays: Mapping[str, Array],
    class_names: Mapping[int, str],
    *,
    width: int,
    height: int,
    seconds: float | None = None,
) -> dict[str, Any]:
    """An answer as the result map of format "objects": plain dicts, lists, numbers and strings.

    `arrays` are those of an answer. `seconds` becomes "time". Classification has "top" and "confidence",
    multi-label classification "predicted_classes"; a tensor answer has "outputs" with nested lists by name; what covers
    the whole picture is described in `dense_results`.
    """
    identifiers = _identifiers(1 + len(arrays.get("boxes", ())))
    result: dict[str, Any] = {"inference_id": next(identifiers)}
    if seconds is not None:
        result["time"] = float(seconds)
    if task in dense_results.TASKS:
        result["image"] = {"width": int(width), "height": int(height)}
        names = names_of(arrays["classes"], class_names) if "classes" in arrays else []
        masks = run_lengths(arrays, width, height)
        return result | dense_results.plain(task, arrays, names, masks, int(width) * int(height))
    if task == "tensor" or not arrays.keys() & {"boxes", "scores"}:  # plain numbers, as far as this file knows
        return result | {"outputs": {name: array.tolist() for name, array in arrays.items()}}
    result["image"] = {"width": int(width), "height": int(height)}
    if task == "text":
        scores = arrays["scores"].tolist()
        confidence = sum(scores) / len(scores) if scores else 0.0
        return result | {"text": arrays["text"].tobytes().decode(), "confidence": confidence}
    if task == "classify":
        return result | _classification(arrays, class_names)
    objects = _objects(arrays, class_names, width, height)
    for prediction in objects:
        prediction["detection_id"] = next(identifiers)
    return result | {"predictions": objects}


def polygons(arrays: Mapping[str, Array]) -> Polygons | None:
    """Masks as polygons: per object its rings, float32 [k, 2], by falling area; None where `arrays` hold none."""
    if "mask_points" not in arrays:
        return None
    ends = np.cumsum(arrays["mask_rings"]).tolist()
    points = arrays["mask_points"]
    rings = [points[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    masks = []
    first = 0
    for count in arrays["mask_objects"].tolist():
        own = rings[first : first + count]
        masks.append(own if count < 2 else sorted(own, key=_area, reverse=True))
        first += count
    return masks


def run_lengths(arrays: Mapping[str, Array], width: int, height: int) -> list[dict[str, Any]] | None:
    """Masks as COCO run lengths, one map per object; None where `arrays` hold none."""
    if "mask_rle" not in arrays:
        return None
    counts = arrays["mask_rle"].tobytes()
    ends = np.cumsum(arrays["mask_rle_sizes"]).tolist()
    return [
        {"size": [int(height), int(width)], "counts": counts[start:end].decode("ascii")}
        for start, end in zip([0, *ends], ends, strict=False)
    ]


def rotated_corners(boxes: Floats, angles: Floats) -> Floats:
    """Corners, float32 [n, 4, 2], of boxes [n, 4] xyxy turned by `angles` [n] radians about their centres.

    The x axis turns towards the y axis, which points down: a positive angle is clockwise to the eye (as Ultralytics).
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    width, height = ((boxes[:, 2:] - boxes[:, :2]) / 2).T
    cos, sin = np.cos(angles), np.sin(angles)
    along = np.stack([width * cos, width * sin], 1)
    across = np.stack([-height * sin, height * cos], 1)
    turned = np.stack([along + across, along - across, -along - across, -along + across], 1)
    corners: Floats = centres[:, None, :] + turned
    return corners


def names_of(classes: npt.NDArray[np.int64], class_names: Mapping[int, str]) -> list[str]:
    return [class_names.get(number) or str(number) for number in classes.tolist()]


def _area(ring: Floats) -> float:
    """Area of a polygon by the shoelace formula, in float64 because the products of large coordinates cancel."""
    x, y = ring.astype(np.float64).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _identifiers(count: int) -> Iterator[str]:
    """Random UUIDs (version 4), from one call to the system instead of one each."""
    digits = os.urandom(16 * count).hex()
    for start in range(0, 32 * count, 32):
        d = digits[start : start + 32]
        variant = "89ab"[int(d[16], 16) & 3]
        yield f"{d[:8]}-{d[8:12]}-4{d[13:16]}-{variant}{d[17:20]}-{d[20:]}"


def _classification(arrays: Mapping[str, Array], class_names: Mapping[int, str]) -> dict[str, Any]:
    classes, scores = arrays["classes"].tolist(), arrays["scores"].tolist()
    names = names_of(arrays["classes"], class_names)
    if "multi_label" in arrays and arrays["multi_label"].any():
        found = zip(names, classes, scores, strict=True)
        predictions = {name: {"confidence": score, "class_id": number} for name, number, score in found}
        return {"predictions": predictions, "predicted_classes": names}
    rows = [
        {"class": name, "class_id": number, "confidence": score}
        for name, number, score in zip(names, classes, scores, strict=True)
    ]
    return {"predictions": rows, "top": names[0] if names else "", "confidence": scores[0] if scores else 0.0}


def _objects(
    arrays: Mapping[str, Array], class_names: Mapping[int, str], width: int, height: int
) -> list[dict[str, Any]]:
    objects = [
        {"x": x, "y": y, "width": w, "height": h, "confidence": score, "class": name, "class_id": number}
        for (x, y, w, h), score, name, number in zip(
            _centres_and_sizes(arrays["boxes"]).tolist(),
            arrays["scores"].tolist(),
            names_of(arrays["classes"], class_names),
            arrays["classes"].tolist(),
            strict=True,
        )
    ]
    _add_masks(objects, arrays, width, height)
    if "keypoints" in arrays:
        for prediction, points in zip(objects, arrays["keypoints"].tolist(), strict=True):
            prediction["keypoints"] = _keypoints(points)
    if "track_ids" in arrays:
        for prediction, number in zip(objects, arrays["track_ids"].tolist(), strict=True):
            prediction["tracker_id"] = number
    if "angles" in arrays:
        corners = rotated_corners(arrays["boxes"], arrays["angles"])
        for prediction, angle, points in zip(objects, arrays["angles"].tolist(), corners.tolist(), strict=True):
            prediction |= {"rotation": angle, "points": _points(points)}
    return objects


def _add_masks(objects: list[dict[str, Any]], arrays: Mapping[str, Array], width: int, height: int) -> None:
    for prediction, rings in zip(objects, polygons(arrays) or (), strict=False):
        # An object whose mask is empty has no polygon, and readers refuse one of less than three points.
        if rings and len(rings[0]) >= 3:
            prediction |= {"points": _points(rings[0].tolist()), "mask_format": "polygon"}
    for prediction, rle in zip(objects, run_lengths(arrays, width, height) or (), strict=False):
        prediction |= {"rle": rle, "mask_format": "rle"}


def _centres_and_sizes(boxes: Floats) -> Floats:
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def _points(points: list[list[float]]) -> list[dict[str, float]]:
    return [{"x": x, "y": y} for x, y in points]


def _keypoints(points: list[list[float]]) -> list[dict[str, Any]]:
    names = COCO_KEYPOINTS if len(points) == len(COCO_KEYPOINTS) else [str(number) for number in range(len(points))]
    return [
        {"x": x, "y": y, "confidence": confidence, "class_id": number, "class": name}
        for number, (name, (x, y, confidence)) in enumerate(zip(names, points, strict=True))
    ]
