"""Keypoints: the layout, the way back to the frame, and the shipped model."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from parallel_infer.errors import InferError, ModelRejected
from stages.geometry import Geometry
from stages.tasks import Arrays
from stages.tasks.keypoints import Keypoints
from tests.tasks import samples
from tests.tasks import slow_layouts as slow

POINTS = 4


def outputs_with_points(seed: int, numbers: int) -> Arrays:
    output = samples.random_outputs("yolov8", seed)["output0"]
    points = np.random.default_rng(seed).uniform(-10, 100, (POINTS * numbers, output.shape[1])).astype(np.float32)
    return {"output0": np.concatenate((output, points))}


def in_frame(box: tuple[float, ...]) -> tuple[float, ...]:
    return (box[0] - 7.0) / 0.5, (box[1] + 3.0) / 0.25, (box[2] - 7.0) / 0.5, (box[3] + 3.0) / 0.25


@pytest.mark.parametrize("numbers", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_keypoints_as_read_slowly(seed: int, numbers: int) -> None:
    outputs = outputs_with_points(seed, numbers)
    task = Keypoints(samples.spec("keypoints", "yolov8", parameters={"kpt_shape": [POINTS, numbers]}))
    options = task.options(b"")
    geometry = Geometry(200, 100, 0.5, 0.25, 7.0, -3.0)
    answer = task.answer(outputs, geometry, options)
    detections = slow.yolov8(outputs, samples.SIZE, POINTS * numbers)
    found = [
        detection
        for detection in slow.suppressed(slow.cut(detections, options), options)
        if slow.in_picture([detection._replace(box=in_frame(detection.box))], (200, 100))
    ]
    assert len(found) > 3
    assert answer["keypoints"].shape == (len(found), POINTS, 3)
    assert answer["keypoints"].dtype == np.float32
    for keypoints, detection in zip(answer["keypoints"], found, strict=True):
        for place, (x, y, confidence) in enumerate(keypoints.tolist()):
            read = detection.extra[place * numbers : (place + 1) * numbers]
            assert x == pytest.approx(slow.clip((read[0] - 7.0) / 0.5, 200), abs=1e-3)
            assert y == pytest.approx(slow.clip((read[1] + 3.0) / 0.25, 100), abs=1e-3)
            assert confidence == (pytest.approx(read[2]) if numbers == 3 else 1.0)


def test_end_to_end_rows_hold_keypoints_last() -> None:
    row = [10.0, 20.0, 30.0, 40.0, 0.9, 2.0, *range(POINTS * 3)]
    outputs = {"output0": np.array([row, [0.0] * len(row)], np.float32)}
    task = Keypoints(samples.spec("keypoints", "end2end", parameters={"kpt_shape": [POINTS, 3]}))
    answer = task.answer(outputs, samples.IDENTITY, task.options(b""))
    np.testing.assert_array_equal(answer["boxes"], [[10, 20, 30, 40]])
    np.testing.assert_array_equal(answer["keypoints"], np.arange(POINTS * 3).reshape(1, POINTS, 3))


def test_shipped_model_finds_the_astronaut(zoo: Path, pictures: Path) -> None:
    session = onnxruntime.InferenceSession(zoo / "pose.onnx", providers=["CPUExecutionProvider"])
    picture = cv2.imread(str(pictures / "astronaut.png"))
    assert picture is not None
    row = cv2.cvtColor(cv2.resize(picture, (256, 256)), cv2.COLOR_BGR2RGB).transpose(2, 0, 1)[None] / np.float32(255)
    (output,) = session.run(None, {"images": row})
    task = Keypoints(samples.spec("keypoints", "yolov8", names=("person",), parameters={"kpt_shape": [17, 3]}))
    answer = task.answer({"output0": output[0]}, Geometry(512, 512, 0.5, 0.5, 0, 0), task.options(b""))
    assert answer["keypoints"].shape == (1, 17, 3)
    nose, left_eye, right_eye = answer["keypoints"][0, :3]
    assert np.abs(nose[:2] - (223, 120)).max() < 15
    assert right_eye[0] < nose[0] < left_eye[0]


def test_nobody_gives_empty_arrays() -> None:
    outputs = outputs_with_points(0, 3)
    task = Keypoints(samples.spec("keypoints", "yolov8", parameters={"kpt_shape": [POINTS, 3]}))
    answer = task.answer(outputs, samples.IDENTITY, task.options(samples.encode(confidence=1.0)))
    assert answer["keypoints"].shape == (0, POINTS, 3)


def test_a_keypoint_that_is_not_finite_is_an_error_where_it_is_used() -> None:
    outputs = outputs_with_points(0, 3)
    output = outputs["output0"]
    low = output[4 : 4 + samples.CLASSES].max(axis=0) <= 0.25
    task = Keypoints(samples.spec("keypoints", "yolov8", parameters={"kpt_shape": [POINTS, 3]}))
    output[-1, low] = np.nan
    task.answer(outputs, samples.IDENTITY, task.options(b""))
    output[-1] = np.inf
    with pytest.raises(InferError, match="non-finite"):
        task.answer(outputs, samples.IDENTITY, task.options(b""))


@pytest.mark.parametrize("shape", [[17, 4], [0, 3], [17, 1]])
def test_an_impossible_kpt_shape_is_rejected(shape: list[int]) -> None:
    with pytest.raises(ModelRejected, match="kpt_shape"):
        Keypoints(samples.spec("keypoints", "yolov8", parameters={"kpt_shape": shape}))
