"""The answer of one job: named arrays with their meaning, and the same as a documented map for people and JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.errors import InferError
from parallel_infer.protocol import Answer as WireAnswer
from parallel_infer.protocol import AnswerBody, Tensor
from parallel_infer.wrong_fields import explained

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Polygons = list[list[Floats]]

COCO_KEYPOINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)

_BODY = msgspec.msgpack.Decoder(AnswerBody)
_NO_BOXES = np.zeros((0, 4), np.float32)
_NO_SCORES = np.zeros(0, np.float32)
_NO_CLASSES = np.zeros(0, np.int64)


class Answer:
    """What a model says about one picture. Coordinates are pixels of the original picture; arrays are read-only views.

    `arrays` holds everything by the names of the wire; the properties give it its meaning. `timing` is in seconds per
    stage and wait, `batch_size` the size of the batch that the job was part of.
    """

    __slots__ = ("arrays", "batch_size", "class_names", "height", "model", "task", "timing", "width")

    def __init__(
        self,
        task: str,
        model: str,
        arrays: Mapping[str, Array],
        class_names: Mapping[int, str] | None = None,
        *,
        width: int = 0,
        height: int = 0,
        timing: Mapping[str, float] | None = None,
        batch_size: int = 1,
    ) -> None:
        self.task = task
        self.model = model
        self.arrays = arrays
        self.class_names = class_names or {}
        self.width = width  # of the original picture; 0 for tensors
        self.height = height
        self.timing = timing or {}
        self.batch_size = batch_size

    @classmethod
    def from_wire(cls, header: WireAnswer, payload: bytes | memoryview) -> Answer:
        """The answer of a reply of format "arrays". Its arrays are views of `payload`, which they keep alive.

        Raises InferError where the reply does not fit together.
        """
        try:
            body = _BODY.decode(header.answer)
            arrays = dict(_views(body.arrays, payload))
        except msgspec.MsgspecError as error:
            raise InferError(f"The answer of the server cannot be read: {explained(error)}") from error
        except (ValueError, TypeError) as error:
            raise InferError(f"The answer of the server cannot be read: {error}") from error
        return cls(
            body.task,
            body.model,
            arrays,
            body.names,
            width=body.width,
            height=body.height,
            timing=header.timing,
            batch_size=header.batch,
        )

    @property
    def boxes(self) -> Floats:
        """float32 [n, 4] xyxy; of rotated boxes, the unrotated box about the same centre."""
        return self.arrays.get("boxes", _NO_BOXES)

    @property
    def scores(self) -> Floats:
        """float32 [n], 0 to 1."""
        return self.arrays.get("scores", _NO_SCORES) if self.task != "tensor" else _NO_SCORES

    @property
    def classes(self) -> npt.NDArray[np.int64]:
        """int64 [n], class numbers of the model."""
        return self.arrays.get("classes", _NO_CLASSES) if self.task != "tensor" else _NO_CLASSES

    @property
    def names(self) -> list[str]:
        """The class name of each object; the class number where the model has no names."""
        return _names(self.classes, self.class_names)

    @property
    def masks(self) -> Polygons | None:
        """Per object a list of rings, float32 [k, 2] each, the largest first; None where masks are not polygons."""
        return polygons(self.arrays)

    @property
    def rle(self) -> list[dict[str, Any]] | None:
        """Per object a COCO run-length mask {"size": [height, width], "counts": str}; None where there are none."""
        return run_lengths(self.arrays, self.width, self.height)

    @property
    def keypoints(self) -> Floats | None:
        """float32 [n, k, 3] (x, y, confidence), or None."""
        return self.arrays.get("keypoints")

    @property
    def angles(self) -> Floats | None:
        """float32 [n], radians, of rotated boxes; or None."""
        return self.arrays.get("angles")

    @property
    def corners(self) -> Floats | None:
        """float32 [n, 4, 2], the corners of rotated boxes in order; or None."""
        return None if self.angles is None else rotated_corners(self.boxes, self.angles)

    @property
    def top(self) -> str | None:
        """Name of the best class of a classification; None for other tasks and where no class passed the threshold."""
        return self.names[0] if self.task == "classify" and len(self.classes) else None

    @property
    def tensors(self) -> dict[str, Array]:
        """The outputs of a tensor model by name; empty for other tasks."""
        return dict(self.arrays) if self.task == "tensor" else {}

    @property
    def seconds(self) -> float:
        """From admission to answer, as far as the server told."""
        return self.timing.get("total", sum(self.timing.values()))

    def to_dict(self) -> dict[str, Any]:
        """The documented result map, plain values only; `supervision` reads it with `from_inference`."""
        return result_dict(
            self.task, self.arrays, self.class_names, width=self.width, height=self.height, seconds=self.seconds
        )

    def draw(self, frame: npt.NDArray[np.uint8] | str | os.PathLike[str] | bytes) -> npt.NDArray[np.uint8]:
        """A copy of `frame` with this answer drawn on it, uint8 [h, w, 3] BGR. Needs OpenCV.

        `frame` is uint8 [h, w, 3] BGR or [h, w] gray, or the picture that was asked about: a path or its bytes. Raises
        ValueError for a frame that lies on its side, BadInput for a picture that cannot be read.
        """
        from parallel_infer.drawing import draw

        if isinstance(frame, (str, os.PathLike, bytes)):
            from parallel_infer.picture_files import read_picture

            frame = read_picture(frame)
        return draw(frame, self)

    def __len__(self) -> int:
        """Number of objects or classes."""
        return len(self.scores)

    def __bool__(self) -> bool:
        """True: an answer without objects is still an answer."""
        return True

    def __repr__(self) -> str:
        found = f"{len(self.arrays)} arrays" if self.task == "tensor" else f"{len(self)} found"
        return f"<Answer {self.task} of {self.model!r}: {found}, picture {self.width}x{self.height}>"


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
    multi-label classification "predicted_classes"; a tensor answer has "outputs" with nested lists by name.
    """
    identifiers = _identifiers(1 + len(arrays.get("boxes", ())))
    result: dict[str, Any] = {"inference_id": next(identifiers)}
    if seconds is not None:
        result["time"] = float(seconds)
    if task == "tensor" or not arrays.keys() & {"boxes", "scores"}:  # plain numbers, as far as this file knows
        return result | {"outputs": {name: array.tolist() for name, array in arrays.items()}}
    result["image"] = {"width": int(width), "height": int(height)}
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


def _views(tensors: tuple[Tensor, ...], payload: bytes | memoryview) -> Iterator[tuple[str, Array]]:
    offset = 0
    for name, dtype_name, shape in ((tensor.name, tensor.dtype, tensor.shape) for tensor in tensors):
        dtype = np.dtype(dtype_name)
        if dtype.kind not in "biufc":
            raise ValueError(f"array {name!r} has the unknown element type {dtype_name!r}")
        count = math.prod(shape)
        # frombuffer refuses an empty buffer, though an array without elements needs none.
        flat = np.frombuffer(payload, dtype, count, offset) if count else np.empty(0, dtype)
        yield name, flat.reshape(shape)
        offset += count * dtype.itemsize


def _names(classes: npt.NDArray[np.int64], class_names: Mapping[int, str]) -> list[str]:
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
    names = _names(arrays["classes"], class_names)
    if bool(np.any(arrays.get("multi_label", False))):
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
            _names(arrays["classes"], class_names),
            arrays["classes"].tolist(),
            strict=True,
        )
    ]
    _add_masks(objects, arrays, width, height)
    if "keypoints" in arrays:
        for prediction, points in zip(objects, arrays["keypoints"].tolist(), strict=True):
            prediction["keypoints"] = _keypoints(points)
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
