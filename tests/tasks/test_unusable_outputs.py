"""Outputs of detectors that make no sense are an error that says so: not finite, of other shapes, no classes."""

from __future__ import annotations

import numpy as np
import pytest

from parallel_infer.errors import InferError, ModelRejected
from stages.tasks.detect import Detect
from tests.tasks import samples
from tests.tasks.test_tasks_detect import DETECTORS, SCORES, answer_of

BOXES = {  # where boxes are not in output0
    "rtdetr": "boxes",
    "rfdetr": "dets",
    "detr": "pred_boxes",
    "rtdetr-hf": "pred_boxes",
    "efficient-nms": "det_boxes",
    "mmdeploy": "dets",
    "boxes-scores": "boxes",
    "ultraface": "boxes",
    "nanodet": "output",
    "picodet": "side_8",
    "tensorflow-detection": "detection_boxes",
    "torchvision": "boxes",
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("family", DETECTORS)
def test_a_score_that_is_not_finite_is_an_error(family: str, value: float) -> None:
    outputs = samples.random_outputs(family, 2)
    name, place = SCORES.get(family, ("output0", (0, 4)))
    outputs[name][place] = value
    with pytest.raises(InferError, match="non-finite"):
        answer_of(Detect(samples.spec("detect", family, outputs)), outputs)


def test_a_class_score_that_is_not_finite_is_an_error_where_the_objectness_is_high() -> None:
    outputs = samples.random_outputs("yolov5", 2)
    outputs["output0"][7, 4:7] = 0.9, np.nan, 0.9
    with pytest.raises(InferError, match="non-finite"):
        answer_of(Detect(samples.spec("detect", "yolov5")), outputs)


@pytest.mark.parametrize("family", DETECTORS)
def test_a_box_in_use_that_is_not_finite_is_an_error(family: str) -> None:
    outputs = samples.random_outputs(family, 2)
    boxes = outputs[BOXES.get(family, "output0")]
    if family == "yolov8":
        boxes[2] = np.nan
    else:
        boxes[:, -2 if family == "nanodet" else 2] = np.nan
    with pytest.raises(InferError, match="non-finite"):
        answer_of(Detect(samples.spec("detect", family, outputs)), outputs)


def test_a_box_below_the_confidence_may_be_anything() -> None:
    outputs = samples.random_outputs("yolov8", 3)
    task = Detect(samples.spec("detect", "yolov8"))
    before = answer_of(task, {"output0": outputs["output0"].copy()})
    outputs["output0"][:4, outputs["output0"][4:].max(axis=0) <= 0.25] = np.nan
    np.testing.assert_array_equal(answer_of(task, outputs)["boxes"], before["boxes"])


def test_a_size_that_overflows_is_an_error() -> None:
    outputs = samples.random_outputs("yolox", 4)
    outputs["output0"][:, 2] = 200.0
    with pytest.raises(InferError, match="non-finite"):
        answer_of(Detect(samples.spec("detect", "yolox")), outputs)


@pytest.mark.parametrize("count", [-1, 200])
def test_a_count_that_cannot_be_is_an_error(count: int) -> None:
    outputs = samples.random_outputs("efficient-nms", 1)
    outputs["num_dets"][0] = count
    with pytest.raises(InferError, match="expected"):
        answer_of(Detect(samples.spec("detect", "efficient-nms")), outputs)


@pytest.mark.parametrize("family", DETECTORS)
def test_outputs_of_another_shape_are_an_error(family: str) -> None:
    task = Detect(samples.spec("detect", family))
    for outputs in ({"output0": np.zeros((4, 4), np.float32)}, {}, {"output0": np.zeros((1, 4, 4), np.float32)}):
        with pytest.raises(InferError, match="expected"):
            answer_of(task, outputs)


@pytest.mark.parametrize("number", [-1.0, 3e20])
def test_a_class_number_that_cannot_be_is_an_error(number: float) -> None:
    outputs = {"output0": np.array([[0, 0, 9, 9, 0.9, number]], np.float32)}
    with pytest.raises(InferError, match="class number"):
        answer_of(Detect(samples.spec("detect", "end2end")), outputs)


def test_an_unknown_family_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(ModelRejected, match="known are .*yolov5, .*yolov8"):
        Detect(samples.spec("detect", "yolov99"))
