"""Raw YOLO outputs: one candidate per anchor, suppression still to be done."""

from __future__ import annotations

import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.models import ModelSpec
from stages.layouts import (
    Candidates,
    Floats,
    Ints,
    Outputs,
    as_float32,
    corners,
    only_output,
    require_finite,
    strongest,
    wanted,
)
from stages.tasks.options import DetectOptions

_YOLOX_STRIDES = (8, 16, 32)


class YoloV8:
    """[4 + classes + extra, anchors]: cxcywh in row pixels, scores (sigmoid done, no objectness), extra.

    YOLOv5u, v8, v9, 11 and 12, and v10 and 26 exported without their end.
    """

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._extra = extra
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predictions = as_float32(only_output(outputs, 2))
        end = len(predictions) - self._extra  # of the scores
        if end <= 4:
            raise InferError(f"expected more than {4 + self._extra} channels, the model gave {len(predictions)}")
        best = predictions[4:end].max(axis=0)
        require_finite(best)
        index = np.flatnonzero(best > np.float32(options.confidence))
        if options.class_filter is not None:
            index = index[wanted(predictions[4:end, index].argmax(axis=0), options)]
        index = strongest(best, index, options.max_candidates)
        columns = predictions[:, index]
        require_finite(columns[:4])
        boxes = self._boxes(columns[:4].T)
        return Candidates(boxes, best[index], columns[4:end].argmax(axis=0), columns[end:].T, index)

    def _boxes(self, boxes: Floats) -> Floats:
        return corners(boxes)


class RotatedYoloV8(YoloV8):
    """The same with rotated boxes, which stay as centre, width and height; `extra` is the angle."""

    def _boxes(self, boxes: Floats) -> Floats:
        return boxes


class YoloV5:
    """[anchors, 5 + classes + extra]: cxcywh in row pixels, objectness, scores; score = objectness x class score.

    The YOLOv5 repository, YOLOv7, and YOLOX decoded in the graph.
    """

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        self._extra = extra
        self.overlapping = not spec.parameters.get("nms", False)

    def candidates(self, outputs: Outputs, options: DetectOptions) -> Candidates:
        predictions = as_float32(only_output(outputs, 2))
        end = predictions.shape[1] - self._extra
        if end <= 5:
            raise InferError(f"expected more than {5 + self._extra} channels, the model gave {predictions.shape[1]}")
        confidence = np.float32(options.confidence)
        objectness = predictions[:, 4]
        require_finite(objectness)
        # class scores are at most 1, so whatever falls here would fall after the product
        index = np.flatnonzero(objectness > confidence)
        rows = predictions[index]
        scores = rows[:, 5:end] * rows[:, 4:5]
        best = scores.max(axis=1)
        require_finite(best)
        classes = scores.argmax(axis=1)
        chosen = best > confidence
        if options.class_filter is not None:
            chosen &= wanted(classes, options)
        order = strongest(best, np.flatnonzero(chosen), options.max_candidates)
        boxes = self._boxes(rows[order, :4], index[order], len(predictions))
        require_finite(boxes)
        return Candidates(boxes, best[order], classes[order], rows[order, end:], index[order])

    def _boxes(self, boxes: Floats, index: Ints, anchors: int) -> Floats:
        """Corners in row pixels of `boxes` [n, 4], whose places among all `anchors` are `index`."""
        return corners(boxes)


class YoloX(YoloV5):
    """Undecoded YOLOX: xy = (prediction + grid) x stride, wh = exp(prediction) x stride, strides 8, 16, 32 (and 64).

    The grid runs row by row over each level, the finest level first, as in `YOLOXHead.decode_outputs`.
    """

    def __init__(self, spec: ModelSpec, extra: int) -> None:
        super().__init__(spec, extra)
        strides = tuple(spec.parameters.get("strides", _YOLOX_STRIDES))
        width, height = spec.preprocess["width"], spec.preprocess["height"]
        self._columns: Ints = np.array([-(-width // stride) for stride in strides], np.int64)
        cells = self._columns * np.array([-(-height // stride) for stride in strides], np.int64)
        self._ends = np.cumsum(cells)
        self._starts = self._ends - cells
        self._strides: Ints = np.array(strides, np.int64)

    def _boxes(self, boxes: Floats, index: Ints, anchors: int) -> Floats:
        if anchors != self._ends[-1]:
            raise InferError(f"expected {self._ends[-1]} anchors for this input size, the model gave {anchors}")
        level = np.searchsorted(self._ends, index, side="right")
        row, column = np.divmod(index - self._starts[level], self._columns[level])
        stride = self._strides[level].astype(np.float32)[:, None]
        centre = (boxes[:, :2] + np.stack((column, row), axis=1).astype(np.float32)) * stride
        with np.errstate(over="ignore"):  # an infinite size is reported as such
            size = np.exp(boxes[:, 2:]) * stride
        return corners(np.concatenate((centre, size), axis=1))
