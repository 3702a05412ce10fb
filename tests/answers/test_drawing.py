"""Answers drawn on pictures: what was found is there to see, whatever the size and the background."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from parallel_infer.answers.answer import Answer
from parallel_infer.answers.drawing import Label, Pen, color_of
from parallel_infer.errors import InferError

SIZES = [(100, 100), (480, 640), (4000, 4000), (40, 1500), (1500, 40), (1, 1)]


def objects(width, height, **more):
    """Three objects: one inside, one larger than the picture, one mostly outside."""
    boxes = np.array([[0.3, 0.3, 0.7, 0.7], [-0.2, -0.2, 1.2, 1.2], [-0.5, 0.9, 0.1, 2.0]], np.float32)
    return {
        "boxes": boxes * np.array([width, height] * 2, np.float32),
        "scores": np.array([0.9, 0.6, 0.3], np.float32),
        "classes": np.array([0, 1, 2], np.int64),
        **more,
    }


def detected(width, height, task="detect", **more):
    names = {0: "person", 1: "a class with a very long name, longer than most pictures are wide", 2: "niño"}
    return Answer(task, "m", objects(width, height, **more), names, width=width, height=height)


def changed(before, after):
    return (before != after).any(axis=2)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("shade", [0, 128, 255])
def test_boxes_are_seen_on_any_background(height, width, shade):
    frame = np.full((height, width, 3), shade, np.uint8)
    drawn = detected(width, height).draw(frame)
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    assert (frame == shade).all()  # it is a copy
    assert changed(frame, drawn).any()
    if min(height, width) >= 100:
        edge = drawn[height // 2, round(0.3 * width) - 3 : round(0.3 * width) + 4]
        assert np.abs(edge.astype(int) - shade).max() > 60


@pytest.mark.parametrize("number", range(100))
def test_classes_keep_their_colour(number):
    assert color_of(number) == color_of(number)
    assert max(color_of(number)) > 150
    others = np.array([color_of(other) for other in range(number + 1, number + 5)])
    assert np.abs(others - np.array(color_of(number))).sum(1).min() > 60


def test_colours_of_a_data_set_differ():
    assert len({color_of(number) for number in range(80)}) == 80


def test_labels_hide_no_surer_label():
    frame = np.zeros((480, 640, 3), np.uint8)
    pen = Pen.for_frame(frame)
    outlines = [np.array([[50 + n, 100 + n], [200 + 9 * n, 300 - 9 * n]], np.float32) for n in range(3)]
    placed = []
    for outline in outlines:
        placed.append(Label.beside(outline, "person 0.90", (9, 9, 9), pen, placed, frame))
    covered = np.zeros(frame.shape[:2], int)
    for label in placed:
        covered[label.y : label.y + label.height, label.x : label.x + label.width] += 1
    assert covered.max() == 1
    assert covered.sum() == sum(label.width * label.height for label in placed)  # none is cut by the edge


def test_letters_grow_with_the_picture():
    """Where boxes lie outside, what changes is the label alone."""
    heights = []
    for side in (100, 1000, 4000):
        arrays = {
            "boxes": np.array([[-9e5, -9e5, -8e5, -8e5]], np.float32),
            "scores": np.ones(1, np.float32),
            "classes": np.zeros(1, np.int64),
        }
        frame = np.full((side, side, 3), 90, np.uint8)
        drawn = Answer("detect", "m", arrays, {0: "x"}, width=side, height=side).draw(frame)
        heights.append(int(changed(frame, drawn).any(axis=1).sum()))
    assert heights[0] >= 8
    assert heights[0] < heights[1] < heights[2]
    assert heights[2] > 60


def test_masks_are_translucent():
    square = np.array([[100, 100], [300, 100], [300, 300], [100, 300]], np.float32)
    hole = np.array([[180, 180], [220, 180], [220, 220], [180, 220]], np.float32)
    masks = {
        "mask_points": np.concatenate([square, hole]),
        "mask_rings": np.array([4, 4], np.int32),
        "mask_objects": np.array([2, 0, 0], np.int32),
    }
    frame = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    drawn = detected(640, 480, "segment", **masks).draw(frame)
    inside = np.s_[230:290, 210:290]
    assert changed(frame, drawn)[inside].mean() > 0.9
    seen = np.corrcoef(frame[inside].ravel().astype(float), drawn[inside].ravel().astype(float))[0, 1]
    assert seen > 0.5  # the picture shows through
    assert not changed(frame, drawn)[195:210, 200:215].any()  # and holes stay holes


def test_masks_outside_the_picture():
    far = np.array([[-500, -500], [-400, -500], [-400, -400]], np.float32)
    masks = {"mask_points": far, "mask_rings": np.array([3], np.int32), "mask_objects": np.array([1, 0, 0], np.int32)}
    none = {"mask_points": far[:0], "mask_rings": np.zeros(0, np.int32), "mask_objects": np.zeros(3, np.int32)}
    frame = np.zeros((480, 640, 3), np.uint8)
    drawn = detected(640, 480, "segment", **masks).draw(frame)
    np.testing.assert_array_equal(drawn, detected(640, 480, "segment", **none).draw(frame))


def test_skeletons_leave_out_what_was_not_seen():
    keypoints = np.zeros((3, 17, 3), np.float32)
    keypoints[0, :, 0] = np.linspace(250, 400, 17)
    keypoints[0, :, 1] = 240
    keypoints[0, :9, 2] = 1
    frame = np.zeros((480, 640, 3), np.uint8)
    seen = changed(detected(640, 480).draw(frame), detected(640, 480, "keypoints", keypoints=keypoints).draw(frame))
    assert seen[240, 255:320].any()
    assert not seen[:, 335:].any()


def test_joints_of_another_skeleton_are_points():
    keypoints = np.ones((3, 4, 3), np.float32) * 100
    frame = np.zeros((480, 640, 3), np.uint8)
    assert changed(frame, detected(640, 480, "keypoints", keypoints=keypoints).draw(frame))[100, 100]


def test_rotated_boxes_are_turned():
    frame = np.zeros((480, 640, 3), np.uint8)
    drawn = detected(640, 480, "obb", angles=np.array([np.pi / 4, 0, 0], np.float32)).draw(frame)
    reach = (256 + 192) / 2 / np.sqrt(2)
    assert changed(frame, drawn)[240, round(320 - reach / 1) - 60 : 320].any()
    assert not (changed(frame, drawn)[150:160, 194:200]).any()  # a corner of the unrotated box


def test_classes_are_listed():
    scores = np.array([0.7, 0.2, 0.1], np.float32)
    arrays = {"scores": scores, "classes": np.array([5, 6, 7])}
    frame = np.full((480, 640, 3), 77, np.uint8)
    drawn = Answer("classify", "m", arrays, {5: "cat", 6: "dog", 7: "cow"}, width=640, height=480).draw(frame)
    rows = [np.flatnonzero((drawn == color_of(number)).all(2).any(1)) for number in (5, 6, 7)]
    assert all(len(row) for row in rows)
    assert rows[0].max() < rows[1].min() <= rows[1].max() < rows[2].min()


def test_nothing_to_draw():
    frame = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    empty = {"boxes": np.zeros((0, 4), "f4"), "scores": np.zeros(0, "f4"), "classes": np.zeros(0, "i8")}
    for task, arrays in (("detect", empty), ("classify", empty), ("tensor", {"scores": np.ones(3)})):
        np.testing.assert_array_equal(Answer(task, "m", arrays, width=60, height=50).draw(frame), frame)


def test_preview_of_another_size():
    """Coordinates follow the size of the frame that is drawn on."""
    frame = np.full((240, 320, 3), 90, np.uint8)
    once = detected(320, 240).draw(frame)
    np.testing.assert_array_equal(detected(640, 480).draw(frame), once)


def test_gray_frames():
    gray = np.full((240, 320), 90, np.uint8)
    drawn = detected(320, 240).draw(gray)
    np.testing.assert_array_equal(drawn, detected(320, 240).draw(cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)))
    np.testing.assert_array_equal(drawn, detected(320, 240).draw(gray[:, :, None]))


@pytest.mark.parametrize("frame", [np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)])
def test_no_frame(frame):
    with pytest.raises(ValueError, match="a frame is uint8"):
        detected(4, 4).draw(frame)


def test_numbers_that_are_none():
    arrays = objects(64, 48) | {"boxes": np.array([[np.nan, 0, np.inf, 9], [-1e30, -1e30, 1e30, 1e30], [1, 1, 2, 2]])}
    frame = np.zeros((48, 64, 3), np.uint8)
    drawn = Answer("detect", "m", arrays, width=64, height=48).draw(frame)
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    assert changed(frame, drawn)[:4, :4].any()  # the sound box is seen


def test_labels_of_a_fan_hide_none_of_each_other():
    """Two lists of classes, and two boxes nearly in one place: of each colour is as much there as drawn alone."""
    frame, box = np.full((480, 640, 3), 90, np.uint8), np.array([[100, 100, 300, 300]], np.float32)
    parts = {"failed": InferError("not this time")}
    for number, boxes in ((5, {}), (6, {}), (1, {"boxes": box}), (2, {"boxes": box + 10})):
        arrays = {"scores": np.array([0.75]), "classes": np.array([number]), **boxes}
        task = "detect" if boxes else "classify"
        parts[str(number)] = Answer(task, "m", arrays, {number: "a longer name"}, width=640, height=480)
    fan = Answer("fan", "all", {}, width=640, height=480)
    fan.parts = parts
    whole = fan.draw(frame)
    for number in (5, 6, 1, 2):
        shown, alone = ((drawn == color_of(number)).all(2) for drawn in (whole, parts[str(number)].draw(frame)))
        assert shown.sum() > 0.95 * alone.sum()
