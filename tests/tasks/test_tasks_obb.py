"""Rotated boxes: overlap, suppression, angles and the way back to the frame."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_infer.errors import InferError, ModelRejected
from stages.geometry import Geometry
from stages.nms import probabilistic_iou
from stages.tasks import Arrays
from stages.tasks.obb import OrientedBoxes
from tests.tasks import samples
from tests.tasks import slow_layouts as slow

Box = tuple[float, float, float, float, float]  # centre, width, height, angle
OPTIONS: list[dict[str, Any]] = [{}, {"confidence": 0.05, "iou": 0.3}, {"class_agnostic": True, "iou": 0.2}]
BOX = st.tuples(st.floats(0, 60), st.floats(0, 60), st.floats(1, 50), st.floats(1, 50), st.floats(-7, 7))


def slow_overlap(first: Box, second: Box) -> float:
    """One minus the Hellinger distance of the two Gaussians, by matrices."""
    (mean1, cov1), (mean2, cov2) = gaussian(first), gaussian(second)
    middle = (cov1 + cov2) / 2
    between = mean1 - mean2
    spread = between @ np.linalg.inv(middle) @ between / 8
    shape = 0.5 * math.log(np.linalg.det(middle) / math.sqrt(np.linalg.det(cov1) * np.linalg.det(cov2)))
    return 1.0 - math.sqrt(max(0.0, 1.0 - math.exp(-spread - shape)))


def gaussian(box: Box) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    x, y, width, height, angle = box
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return np.array([x, y]), turn @ np.diag([width**2 / 12, height**2 / 12]) @ turn.T


def corner_points(box: Box) -> npt.NDArray[np.float64]:
    x, y, width, height, angle = box
    along = np.array([math.cos(angle), math.sin(angle)]) * width / 2
    across = np.array([-math.sin(angle), math.cos(angle)]) * height / 2
    centre = np.array([x, y])
    return np.array([centre + a * along + b * across for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))])


def same_corners(first: npt.NDArray[Any], second: npt.NDArray[Any], tolerance: float) -> bool:
    """Whether two rectangles have the same corners, whichever comes first."""
    gaps = np.linalg.norm(first[:, None] - second[None], axis=2)
    return bool(gaps.min(axis=0).max() < tolerance and gaps.min(axis=1).max() < tolerance)


def answered(answer: Arrays, place: int) -> Box:
    left, top, right, bottom = answer["boxes"][place].tolist()
    return (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, float(answer["angles"][place])


def random_rotated(seed: int, count: int = 150) -> Arrays:
    output = samples.random_outputs("yolov8", seed, count)["output0"]
    output[2:4] = np.maximum(output[2:4], 4.0)
    heaps = np.random.default_rng(seed).normal(0, 2, (1, count)).astype(np.float32)
    return {"output0": np.concatenate((output, heaps))}


@given(BOX, BOX)
@settings(max_examples=200, deadline=None)
def test_the_overlap_is_that_of_the_gaussians(first: Box, second: Box) -> None:
    found = probabilistic_iou(np.array([first]), np.array([second]))
    assert found.shape == (1, 1)
    assert float(found[0, 0]) == pytest.approx(slow_overlap(first, second), abs=1e-3)


def test_the_overlap_of_a_box_with_itself_is_whole_and_far_away_is_none() -> None:
    boxes = np.array([[10, 10, 20, 5, 0.3], [500, 500, 20, 5, 0.3]])
    np.testing.assert_allclose(probabilistic_iou(boxes, boxes), np.eye(2), atol=1e-3)


def test_the_overlap_of_nothing_is_empty() -> None:
    assert probabilistic_iou(np.empty((0, 5)), np.ones((3, 5))).shape == (0, 3)


@pytest.mark.parametrize(
    "options", [{}, {"confidence": 0.05, "iou": 0.3}, {"class_agnostic": True, "iou": 0.2}], ids=str
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_same_boxes_as_read_slowly(seed: int, options: dict[str, Any]) -> None:
    outputs = random_rotated(seed, 400)
    task = OrientedBoxes(samples.spec("obb", "yolov8"))
    chosen = task.options(samples.encode(**options))
    found = slow.cut(slow.yolov8(outputs, samples.SIZE, extra=1, rotated=True), chosen)
    kept = slow.suppressed_at_once(found, chosen, lambda a, b: slow_overlap((*a.box, *a.extra), (*b.box, *b.extra)))  # type: ignore[arg-type]
    kept = kept[: chosen.max_detections]
    answer = task.answer(outputs, samples.IDENTITY, chosen)
    assert 5 < len(kept) < len(found)
    assert answer["classes"].tolist() == [detection.number for detection in kept]
    np.testing.assert_allclose(answer["scores"], [detection.score for detection in kept], atol=1e-6)
    for place, detection in enumerate(kept):
        expected = corner_points((*detection.box, *detection.extra))  # type: ignore[arg-type]
        assert same_corners(corner_points(answered(answer, place)), expected, 0.01)


def test_a_suppressed_box_suppresses_too() -> None:
    """A row of boxes, each overlapping the next alone: Ultralytics keeps the first, and none of the rest."""
    row = [[10.0 + 4 * place, 30.0, 12.0, 12.0, 0.9 - place / 10, 0.0] for place in range(4)]
    output = np.array(row, np.float32).T
    task = OrientedBoxes(samples.spec("obb", "yolov8", names=("ship",)))
    answer = task.answer({"output0": np.ascontiguousarray(output)}, samples.IDENTITY, task.options(b""))
    first, second, third = ((x, y, width, height, angle) for x, y, width, height, _, angle in row[:3])
    assert slow_overlap(first, third) < 0.45 < slow_overlap(first, second)
    np.testing.assert_allclose(answer["scores"], [0.9])


def test_rotated_boxes_may_reach_beyond_the_picture() -> None:
    """As in Ultralytics: cut off they would be no rectangles any more."""
    outputs = {"output0": np.array([[2, 3, 20, 10, 0.9, 0, 0.3]], np.float32)}
    task = OrientedBoxes(samples.spec("obb", "end2end"))
    box = answered(task.answer(outputs, samples.IDENTITY, task.options(b"")), 0)
    assert box == pytest.approx((2, 3, 20, 10, 0.3), abs=1e-4)


@given(BOX)
@settings(max_examples=150, deadline=None)
def test_angles_lie_in_a_quarter_turn_and_the_rectangle_is_the_same(box: Box) -> None:
    outputs = {"output0": np.array([[*box[:4], 0.9, 1.0, box[4]]], np.float32)}
    task = OrientedBoxes(samples.spec("obb", "end2end"))
    answer = task.answer(outputs, samples.IDENTITY, task.options(b""))
    assert answer["angles"].dtype == np.float32
    assert 0.0 <= answer["angles"][0] <= np.float32(math.pi / 2)
    assert same_corners(corner_points(answered(answer, 0)), corner_points(box), 0.01)
    assert answer["classes"].tolist() == [1]


@given(BOX, st.floats(0.1, 10), st.tuples(st.floats(-50, 50), st.floats(-50, 50)))
@settings(max_examples=100, deadline=None)
def test_rectangles_go_back_the_way_the_frame_came(box: Box, scale: float, offset: tuple[float, float]) -> None:
    outputs = {"output0": np.array([[*box[:4], 0.9, 1.0, box[4]]], np.float32)}
    task = OrientedBoxes(samples.spec("obb", "end2end"))
    answer = task.answer(outputs, Geometry(90, 90, scale, scale, *offset), task.options(b""))
    in_row = corner_points(answered(answer, 0)) * scale + np.array(offset)
    assert same_corners(in_row, corner_points(box), 0.02)


@given(BOX, st.floats(0.2, 5), st.floats(0.2, 5))
@settings(max_examples=100, deadline=None)
def test_stretching_keeps_centre_and_area(box: Box, scale_x: float, scale_y: float) -> None:
    outputs = {"output0": np.array([[*box[:4], 0.9, 1.0, box[4]]], np.float32)}
    task = OrientedBoxes(samples.spec("obb", "end2end"))
    found = answered(task.answer(outputs, Geometry(90, 90, scale_x, scale_y, 0, 0), task.options(b"")), 0)
    assert found[0] == pytest.approx(box[0] / scale_x, abs=1e-2)
    assert found[1] == pytest.approx(box[1] / scale_y, abs=1e-2)
    assert found[2] * found[3] == pytest.approx(box[2] * box[3] / (scale_x * scale_y), rel=1e-2)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_stretching_upright_boxes_stretches_their_sides(quarters: int) -> None:
    outputs = {"output0": np.array([[40, 40, 20, 10, 0.9, 0, quarters * math.pi / 2]], np.float32)}
    task = OrientedBoxes(samples.spec("obb", "end2end"))
    answer = task.answer(outputs, Geometry(90, 90, 0.5, 2.0, 0, 0), task.options(b""))
    box = answered(answer, 0)
    expected = (40.0, 5.0) if quarters % 2 == 0 else (20.0, 10.0)
    points = corner_points(box)
    np.testing.assert_allclose(points.max(axis=0) - points.min(axis=0), expected, atol=1e-3)


def test_the_angle_turns_as_on_the_screen() -> None:
    """OpenCV's rotated rectangles turn clockwise in degrees, y downwards."""
    box = (50.0, 40.0, 30.0, 10.0, 0.4)
    theirs = cv2.boxPoints(((50.0, 40.0), (30.0, 10.0), math.degrees(0.4)))
    assert same_corners(corner_points(box), np.asarray(theirs), 0.01)


def test_nothing_found_gives_empty_arrays() -> None:
    task = OrientedBoxes(samples.spec("obb", "yolov8"))
    answer = task.answer(random_rotated(3), samples.IDENTITY, task.options(samples.encode(confidence=1.0)))
    assert (answer["boxes"].shape, answer["angles"].shape) == ((0, 4), (0,))
    assert all(answer[name].dtype == np.float32 for name in ("boxes", "angles", "scores"))


def test_boxes_without_area_are_answered() -> None:
    output = np.array([[5, 5, 0, 0, 0.9, 0.1], [5, 5, 0, 0, 0.8, 0.1], [5, 5, 9, 0, 0.7, 0.1]], np.float32).T
    task = OrientedBoxes(samples.spec("obb", "yolov8"))
    answer = task.answer({"output0": np.ascontiguousarray(output)}, samples.IDENTITY, task.options(b""))
    assert len(answer["scores"]) >= 1
    assert all(np.isfinite(array).all() for array in answer.values())


@given(
    st.lists(st.tuples(st.sampled_from([0, 1, 1e4, 1e18]), st.sampled_from([0, 1, 1e4]), st.floats(-4, 4)), max_size=6)
)
@settings(max_examples=50, deadline=None)
def test_very_thin_and_very_long_boxes_are_answered(sides: list[tuple[float, float, float]]) -> None:
    rows = [[5, 5, width, height, 0.9, angle] for width, height, angle in sides]
    output = np.array(rows, np.float32).reshape(-1, 6).T
    task = OrientedBoxes(samples.spec("obb", "yolov8"))
    answer = task.answer({"output0": np.ascontiguousarray(output)}, samples.IDENTITY, task.options(b""))
    assert all(np.isfinite(array).all() for array in answer.values())


@pytest.mark.parametrize("row", [2, 9])
def test_a_box_or_angle_that_is_not_finite_is_an_error(row: int) -> None:
    outputs = random_rotated(4)
    outputs["output0"][row] = np.nan
    task = OrientedBoxes(samples.spec("obb", "yolov8"))
    with pytest.raises(InferError, match="non-finite"):
        task.answer(outputs, samples.IDENTITY, task.options(b""))


def test_a_family_without_rotated_boxes_is_rejected() -> None:
    with pytest.raises(ModelRejected, match="known are end2end, yolov8"):
        OrientedBoxes(samples.spec("obb", "yolox"))
