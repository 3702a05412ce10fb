"""Descriptions of models and random outputs for them, family by family."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from parallel_infer.model_spec import ModelSpec, TensorSpec
from stages.geometry import Geometry

Arrays = dict[str, npt.NDArray[Any]]
SIZE = (96, 64)  # of a row: width, height
CLASSES = 5
IDENTITY = Geometry(SIZE[0], SIZE[1], 1.0, 1.0, 0.0, 0.0)


def spec(task: str, family: str, outputs: Arrays | None = None, **changes: Any) -> ModelSpec:
    """A model with `CLASSES` classes "class0", ..., a row of `SIZE`, and outputs as given."""
    described = tuple(TensorSpec(name, str(array.dtype), array.shape) for name, array in (outputs or {}).items())
    fields: dict[str, Any] = {
        "name": "sample",
        "path": "",
        "task": task,
        "family": family,
        "names": tuple(f"class{number}" for number in range(CLASSES)),
        "inputs": (),
        "outputs": described,
        "preprocess": {"width": SIZE[0], "height": SIZE[1]},
        "parameters": _PARAMETERS.get(family, {}),
    }
    return ModelSpec(**{**fields, **changes})


def encode(**options: Any) -> bytes:
    return msgspec.msgpack.encode(options)


def boxes(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    """Random cxcywh in row pixels, in heaps, so that many overlap; some lie outside, some have no area."""
    heaps = rng.uniform(-20, max(SIZE) + 20, (max(1, count // 6), 2))
    centres = heaps[rng.integers(0, len(heaps), count)] + rng.normal(0, 3, (count, 2))
    sizes = rng.uniform(5, 40, (count, 2)) * (rng.random((count, 2)) > 0.02)
    return np.concatenate((centres, sizes), axis=1)


def scores(rng: np.random.Generator, count: int, classes: int = CLASSES) -> npt.NDArray[np.float64]:
    """Random scores, few of them high; coarse, so that some are equal."""
    return np.asarray(np.round(rng.random((count, classes)) ** 4, 2))


def random_outputs(family: str, seed: int, count: int = 120) -> Arrays:
    """Outputs of one picture for a detector of `family`."""
    rng = np.random.default_rng(seed)
    return {name: _single(array) for name, array in _MAKERS[family](rng, count).items()}


def _single(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return array if array.dtype.kind == "i" else array.astype(np.float32)


def _normalised(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    return np.asarray(boxes(rng, count) / np.array([*SIZE, *SIZE]))


def _xyxy(rng: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    found = boxes(rng, count)
    return np.concatenate((found[:, :2] - found[:, 2:] / 2, found[:, :2] + found[:, 2:] / 2), axis=1)


def _yolov8(rng: np.random.Generator, count: int) -> Arrays:
    return {"output0": np.ascontiguousarray(np.concatenate((boxes(rng, count), scores(rng, count)), axis=1).T)}


def _yolov5(rng: np.random.Generator, count: int) -> Arrays:
    objectness = rng.random((count, 1))
    return {"output0": np.concatenate((boxes(rng, count), objectness, np.sqrt(scores(rng, count))), axis=1)}


def _yolox(rng: np.random.Generator, count: int) -> Arrays:
    cells = sum((SIZE[0] // stride) * (SIZE[1] // stride) for stride in (8, 16, 32))
    decoded = _yolov5(rng, cells)["output0"]
    decoded[:, :4] = rng.normal(0, 1, (cells, 4))
    return {"output0": decoded}


def _end2end(rng: np.random.Generator, count: int) -> Arrays:
    parts = (_xyxy(rng, count), rng.random((count, 1)), rng.integers(0, CLASSES, (count, 1)))
    return {"output0": np.concatenate(parts, axis=1)}


def _rtdetr_ultralytics(rng: np.random.Generator, count: int) -> Arrays:
    return {"output0": np.concatenate((_normalised(rng, count), scores(rng, count)), axis=1)}


def _rtdetr_ultralytics_end2end(rng: np.random.Generator, count: int) -> Arrays:
    parts = (_normalised(rng, count), rng.random((count, 1)), rng.integers(0, CLASSES, (count, 1)))
    return {"output0": np.concatenate(parts, axis=1)}


def _rtdetr(rng: np.random.Generator, count: int) -> Arrays:
    return {"labels": rng.integers(0, CLASSES, count), "boxes": _xyxy(rng, count), "scores": rng.random(count)}


def _rfdetr(rng: np.random.Generator, count: int) -> Arrays:
    return {"dets": _normalised(rng, count), "labels": rng.normal(-2, 2, (count, CLASSES))}


def _detr(rng: np.random.Generator, count: int) -> Arrays:
    return {"logits": rng.normal(0, 3, (count, CLASSES + 1)), "pred_boxes": _normalised(rng, count)}


def _efficient_nms(rng: np.random.Generator, count: int) -> Arrays:
    return {
        "num_dets": np.array([count - 20], np.int32),
        "det_boxes": _xyxy(rng, count),
        "det_scores": rng.random(count),
        "det_classes": rng.integers(0, CLASSES, count),
    }


def _mmdeploy(rng: np.random.Generator, count: int) -> Arrays:
    dets = np.concatenate((_xyxy(rng, count), rng.random((count, 1))), axis=1)
    return {"dets": dets, "labels": rng.integers(-1, CLASSES, count)}


def _paddle_detection(rng: np.random.Generator, count: int) -> Arrays:
    rows = (rng.integers(-1, CLASSES, (count, 1)), rng.random((count, 1)), _xyxy(rng, count))
    return {"output0": np.concatenate(rows, axis=1)}


def _numbered(rng: np.random.Generator, count: int) -> Arrays:
    rows = (np.zeros((count, 1)), _xyxy(rng, count), rng.integers(0, CLASSES, (count, 1)), rng.random((count, 1)))
    return {"output0": np.concatenate(rows, axis=1)}


def _tensorflow_detection(rng: np.random.Generator, count: int) -> Arrays:
    return {
        "detection_boxes": (_xyxy(rng, count) / np.array([*SIZE, *SIZE]))[:, [1, 0, 3, 2]],
        "detection_scores": rng.random(count),
        "detection_classes": rng.integers(1, CLASSES + 1, count).astype(np.float32),
    }


def _torchvision(rng: np.random.Generator, count: int) -> Arrays:
    return {"boxes": _xyxy(rng, count), "labels": rng.integers(0, CLASSES, count), "scores": rng.random(count)}


def _rtdetr_hf(rng: np.random.Generator, count: int) -> Arrays:
    return {"logits": rng.normal(-2, 2, (count, CLASSES)), "pred_boxes": _normalised(rng, count)}


def _boxes_scores(rng: np.random.Generator, count: int) -> Arrays:
    return {"boxes": _xyxy(rng, count), "scores": scores(rng, count)}


def _ultraface(rng: np.random.Generator, count: int) -> Arrays:
    return {"boxes": _xyxy(rng, count) / np.array([*SIZE, *SIZE]), "scores": scores(rng, count, 1 + CLASSES)}


def _nanodet(rng: np.random.Generator, count: int) -> Arrays:
    strides = ((8, 16, 32), (8, 16, 32, 64))[count % 2]
    cells = sum(-(-SIZE[0] // stride) * -(-SIZE[1] // stride) for stride in strides)
    return {"output": np.concatenate((scores(rng, cells), rng.normal(0, 2, (cells, 32))), axis=1)}


def _picodet(rng: np.random.Generator, count: int) -> Arrays:
    cells = [-(-SIZE[0] // stride) * -(-SIZE[1] // stride) for stride in PICODET]
    found = {f"score_{stride}": scores(rng, rows) for stride, rows in zip(PICODET, cells, strict=True)}
    return found | {f"side_{stride}": rng.normal(0, 2, (rows, 32)) for stride, rows in zip(PICODET, cells, strict=True)}


PICODET = (8, 16, 32)  # strides
_PARAMETERS: dict[str, dict[str, Any]] = {  # what recognition finds out about the outputs above
    "efficient-nms": {"outputs": ["num_dets", "det_boxes", "det_scores", "det_classes"]},
    "boxes-scores": {"outputs": ["boxes", "scores"]},
    "ultraface": {"outputs": ["boxes", "scores"], "skipped": 1, "normalised": True},
    "picodet": {"outputs": [[f"score_{stride}", f"side_{stride}"] for stride in PICODET]},
}

_MAKERS = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "yolox": _yolox,
    "yolox-decoded": _yolov5,
    "end2end": _end2end,
    "rtdetr-ultralytics": _rtdetr_ultralytics,
    "rtdetr-ultralytics-end2end": _rtdetr_ultralytics_end2end,
    "rtdetr": _rtdetr,
    "rfdetr": _rfdetr,
    "detr": _detr,
    "efficient-nms": _efficient_nms,
    "mmdeploy": _mmdeploy,
    "rtdetr-hf": _rtdetr_hf,
    "boxes-scores": _boxes_scores,
    "ultraface": _ultraface,
    "nanodet": _nanodet,
    "picodet": _picodet,
    "paddle-detection": _paddle_detection,
    "numbered": _numbered,
    "tensorflow-detection": _tensorflow_detection,
    "torchvision": _torchvision,
}
