"""Objects cut out of pictures: the pixels, the order, and the way back from a crop's answer to the picture."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.answers.result_map import rotated_corners
from parallel_infer.crops import Crop, Selection
from parallel_infer.errors import BadInput
from stages.crops import cut, in_picture, select

SIZE = (160, 120)
NUMBERS = np.arange(SIZE[1] * SIZE[0] * 3, dtype=np.uint32)
FRAME = (NUMBERS * 2654435761 >> 24).astype(np.uint8).reshape(SIZE[1], SIZE[0], 3)


def boxes(
    *rows: tuple[float, float, float, float], scores: list[float] | None = None, classes: list[int] | None = None
):
    count = len(rows)
    return {
        "boxes": np.array(rows, np.float32).reshape(-1, 4),
        "scores": np.array(scores or [0.9] * count, np.float32),
        "classes": np.array(classes or [0] * count, np.int64),
    }


def one(selection: Selection, **arrays: object) -> Crop:
    (found,), _ = select({**boxes((10, 20, 50, 60)), **arrays}, SIZE, (selection,))
    return found.crop


def test_an_upright_crop_is_the_picture_s_own_pixels() -> None:
    crop = one(Selection(9), boxes=np.array([[10.3, 20.9, 50.2, 60.0]], np.float32))
    pixels = cut(FRAME, crop)
    assert np.array_equal(pixels, FRAME[20:60, 10:51])
    assert pixels.base is not None  # a view: nothing was copied
    assert np.array_equal(cut(FRAME[..., 0], crop), FRAME[20:60, 10:51, 0])


def test_the_margin_ends_at_the_edge_of_the_picture() -> None:
    crop = one(Selection(9, margin=0.5), boxes=np.array([[0, 100, 20, 118]], np.float32))
    assert (crop.left, crop.top, crop.width, crop.height) == (0, 91, 30, 29)


def test_the_best_objects_of_those_wanted_are_cut_out_and_the_others_counted() -> None:
    found = boxes(
        (0, 0, 9, 9), (0, 0, 8, 8), (0, 0, 7, 7), (0, 0, 6, 2), scores=[0.5, 0.9, 0.7, 0.8], classes=[0, 1, 1, 1]
    )
    by_class, best, none = Selection(9, (1,), 0.6, 3.0), Selection(1), Selection(9, (5,))
    cuts, left_out = select(found, SIZE, (by_class, best, none))
    assert [(found.step, found.object) for found in cuts] == [(0, 1), (0, 2), (1, 1)]
    assert left_out == (0, 3, 0)
    assert select(boxes(), SIZE, (best,)) == ((), (0,))


def test_a_picture_that_changed_is_refused() -> None:
    with pytest.raises(BadInput, match="changed while it was worked on: it had 160x120 pixels and has 80x120 now"):
        cut(FRAME[:, ::2], one(Selection(9)))


def test_what_the_mask_leaves_out_is_gray() -> None:
    points = np.array([[10, 20], [30, 20], [30, 60], [10, 60]], np.float32)
    mask = {"mask_points": points, "mask_rings": np.array([4]), "mask_objects": np.array([1])}
    pixels = cut(FRAME, one(Selection(9, masked=True), **mask))
    assert np.array_equal(pixels[:, :20], FRAME[20:60, 10:30])
    assert (pixels[:, 21:] == 114).all()
    assert np.array_equal(FRAME[20:60, 30:50], cut(FRAME, one(Selection(9), **mask))[:, 20:])


@pytest.mark.parametrize("degrees", [10, 44, 46, 85])
def test_a_turned_box_is_cut_out_upright_by_the_smaller_turn(degrees: float) -> None:
    """A line at the upper edge of an object that is turned a little stays at the upper edge of its crop."""
    tilt = math.radians(degrees if degrees <= 45 else degrees - 90)
    upright = np.zeros((120, 160, 3), np.uint8)
    cv2.rectangle(upright, (50, 50), (109, 57), (255, 255, 255), cv2.FILLED)  # the upper part of 50..110 x 50..70
    matrix = cv2.getRotationMatrix2D((79.5, 59.5), -math.degrees(tilt), 1.0)
    frame = cv2.warpAffine(upright, matrix, SIZE)
    box = (50, 50, 110, 70) if degrees <= 45 else (70, 30, 90, 90)
    crop = one(Selection(9), boxes=np.array([box], np.float32), angles=np.array([math.radians(degrees)], np.float32))
    pixels = cut(frame, crop)
    assert pixels.shape == (20, 60, 3)
    assert pixels[1:6, 2:-2].min() > 200
    assert pixels[11:, :].max() < 50


@pytest.mark.parametrize("degrees", [-75, -60, -30, 0, 20, 70, 90, 95])
@pytest.mark.parametrize("laid", ["along", "across"])
def test_a_wide_crop_has_its_longer_side_across_from_left_to_right(degrees: float, laid: str) -> None:
    """However the model turned its box: the end of the line, which is bright, is on the right."""
    line = np.zeros((160, 160, 3), np.uint8)
    cv2.rectangle(line, (50, 70), (109, 89), (100, 100, 100), cv2.FILLED)
    cv2.rectangle(line, (90, 70), (109, 89), (255, 255, 255), cv2.FILLED)
    frame = cv2.warpAffine(line, cv2.getRotationMatrix2D((79.5, 79.5), -degrees, 1.0), (160, 160))
    box, turned = ((50, 70, 110, 90), degrees) if laid == "along" else ((70, 50, 90, 110), degrees - 90)
    arrays = boxes(box) | {"angles": np.array([math.radians(turned)], np.float32)}
    (found,), _ = select(arrays, (160, 160), (Selection(9, wide=True),))
    pixels = cut(frame, found.crop)
    assert pixels.shape[:2] == (20, 60)
    assert pixels[3:-3, 43:-3].min() > 200
    assert 60 < pixels[3:-3, 3:37].mean() < 140


def test_an_upright_box_that_is_higher_than_wide_is_laid_down_where_it_shall_be_wide() -> None:
    crop = one(Selection(9, wide=True))  # 40 x 40: stays
    assert crop.angle == 0.0
    crop = one(Selection(9, wide=True), boxes=np.array([[10, 20, 30, 80]], np.float32))
    assert np.array_equal(cut(FRAME, crop), np.rot90(FRAME[20:80, 10:30]))  # read from top to bottom


@given(
    st.floats(-0.78, 0.78), st.floats(20, 80), st.floats(20, 80), st.floats(5, 60), st.floats(5, 60),
    st.floats(0, 1), st.floats(0, 1),
)  # fmt: skip
def test_a_crop_s_answer_is_told_in_pixels_of_the_picture(
    angle: float, left: float, top: float, width: float, height: float, x: float, y: float
) -> None:
    """A point of the crop has the pixel that the picture has where the answer says that it is."""
    if not angle:  # an upright crop has whole pixels
        left, top, width, height = map(round, (left, top, width, height))
    crop = Crop(left, top, width, height, *SIZE, angle)
    point = np.array([[x * round(width), y * round(height)]], np.float32)
    box = np.concatenate((point - 2, point + 2), axis=1)
    keypoints = np.concatenate((point, [[0.5]]), axis=1)[None].astype(np.float32)
    told = in_picture({"boxes": box, "scores": np.ones(1), "mask_points": point, "keypoints": keypoints}, crop)
    # By the definition of a turned box: about its centre, from the x axis towards the y axis.
    along, across = x * width - width / 2, y * height - height / 2
    cos, sin = math.cos(angle), math.sin(angle)
    expected = (left + width / 2 + cos * along - sin * across, top + height / 2 + sin * along + cos * across)
    np.testing.assert_allclose(told["mask_points"][0], expected, atol=0.01)
    np.testing.assert_allclose(told["keypoints"][0, 0, :2], expected, atol=0.01)
    np.testing.assert_allclose((told["boxes"][0, :2] + told["boxes"][0, 2:]) / 2, expected, atol=0.01)
    if angle:
        corners = rotated_corners(told["boxes"], told["angles"])[0]
        np.testing.assert_allclose(corners.mean(0), expected, atol=0.01)
        assert told["angles"][0] == pytest.approx(angle, abs=1e-6)
    else:
        assert "angles" not in told
