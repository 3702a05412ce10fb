"""How masks are drawn: any pattern of cells as rings and as run lengths, holes, borders, tiny objects and none."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import supervision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from parallel_infer.answers.answer import result_dict
from stages.geometry import Geometry
from stages.tasks import Arrays
from tests.tasks import samples
from tests.tasks import slow_masks as slow
from tests.tasks.test_tasks_segment import COUNT, MODES, SIZE, scene, segment, task_for


def drawn(cells: npt.NDArray[np.bool_], box: tuple[float, ...] | None = None, **options: Any) -> Arrays:
    height, width = cells.shape
    left, top, right, bottom = box or (0, 0, width, height)
    output = np.array([[(left + right) / 2, (top + bottom) / 2, right - left, bottom - top, 0.9, 1.0]], np.float32).T
    prototypes = np.where(cells, np.float32(1), np.float32(-1))[None]
    outputs: Arrays = {"output0": output, "output1": prototypes}
    task = task_for(outputs, size=(width, height))
    geometry = Geometry(width, height, 1.0, 1.0, 0.0, 0.0)
    return task.answer(outputs, geometry, task.options(samples.encode(**options)))


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=200, deadline=None)
def test_any_pattern_of_cells_is_outlined_exactly(cells: npt.NDArray[np.bool_]) -> None:
    size = (cells.shape[1], cells.shape[0])
    found = slow.rings_of(drawn(cells))
    assert len(found) == int(cells.any()), "an empty mask is no object"
    for rings in found:
        np.testing.assert_array_equal(slow.filled(rings, size), cells)


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=200, deadline=None)
def test_any_pattern_of_cells_has_the_run_lengths_of_coco(cells: npt.NDArray[np.bool_]) -> None:
    found = slow.texts_of(drawn(cells, mask_format="rle"))
    assert found == [slow.coco_text(cells)][: int(cells.any())], "an empty mask is no object"
    for text in found:
        np.testing.assert_array_equal(slow.bits_of(text, (cells.shape[1], cells.shape[0])), cells)


def test_a_single_cell_is_a_ring_around_its_centre() -> None:
    cells = np.zeros((5, 5), np.bool_)
    cells[2, 3] = True
    ((ring,),) = slow.rings_of(drawn(cells))
    np.testing.assert_allclose(ring.mean(axis=0), (3.5, 2.5))
    assert slow.signed_area(ring) == pytest.approx(-0.5)


def test_a_ring_with_many_points_does_not_go_before_a_larger_one() -> None:
    cells = np.zeros((30, 40), np.bool_)
    cells[2:28, 2:20] = True  # large and plain
    cells[3:27:2, 24:38] = True  # a comb: many points, less area
    cells[3:27, 24] = True
    (rings,) = slow.rings_of(drawn(cells))
    assert len(rings) == 2
    assert rings[0][:, 0].max() <= 20
    assert len(rings[1]) > len(rings[0])


def test_a_hole_is_a_ring_of_its_own() -> None:
    cells = np.zeros((12, 12), np.bool_)
    cells[1:11, 1:11] = True
    cells[4:7, 4:8] = False
    (rings,) = slow.rings_of(drawn(cells))
    assert [np.sign(slow.signed_area(ring)) for ring in rings] == [-1, 1]


def test_objects_that_touch_stay_apart_by_their_boxes() -> None:
    outputs = scene(11, [[20, 20, 60, 80], [60, 20, 100, 80]])
    outputs["output1"] = np.ones_like(outputs["output1"])
    outputs["output0"][-COUNT:] = 1.0
    for mode in MODES:
        first, second = slow.rings_of(segment(outputs, mask_decode_mode=mode))
        np.testing.assert_array_equal(slow.filled(first, SIZE), slow.box_pixels(np.array([20, 20, 60, 80]), SIZE))
        np.testing.assert_array_equal(slow.filled(second, SIZE), slow.box_pixels(np.array([60, 20, 100, 80]), SIZE))


@pytest.mark.parametrize("mode", MODES)
def test_objects_at_the_border_reach_it(mode: str) -> None:
    outputs = scene(12, [[-20, -10, SIZE[0] + 30, SIZE[1] + 5]])
    outputs["output1"] = np.ones_like(outputs["output1"])
    outputs["output0"][-COUNT:] = 1.0
    ((ring,),) = slow.rings_of(segment(outputs, mask_decode_mode=mode))
    assert slow.filled([ring], SIZE).all()
    np.testing.assert_allclose(ring.min(axis=0), (0, 0), atol=1e-4)
    np.testing.assert_allclose(ring.max(axis=0), SIZE, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", [(40.2, 40.1, 41.3, 41.4), (40.0, 40.0, 44.0, 41.0), (158.5, 126.0, 170.0, 140.0)])
def test_tiny_objects_are_as_large_as_their_boxes(box: tuple[float, ...], mode: str) -> None:
    outputs = scene(13, [box])
    outputs["output1"] = np.ones_like(outputs["output1"])
    outputs["output0"][-COUNT:] = 1.0
    (rings,) = slow.rings_of(segment(outputs, mask_decode_mode=mode))
    assert len(rings) == 1
    inner = (min(box[2], SIZE[0]) - box[0]) * (min(box[3], SIZE[1]) - box[1])
    assert -slow.signed_area(rings[0]) == pytest.approx(inner, rel=1e-3)


@pytest.mark.parametrize("mask_format", ["polygon", "rle"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("box", [(200, 200, 300, 300), (-90, 10, -40, 60), (50, 50, 50, 50), (60, 60, 20, 20)])
def test_an_object_without_a_pixel_in_the_picture_is_left_out(
    box: tuple[float, ...], mode: str, mask_format: str
) -> None:
    outputs = scene(14, [[10, 10, 90, 90], box])
    outputs["output1"] = np.ones_like(outputs["output1"])
    outputs["output0"][-COUNT:] = 1.0
    answer = segment(outputs, mask_decode_mode=mode, mask_format=mask_format)
    np.testing.assert_allclose(answer["boxes"], [[10, 10, 90, 90]])
    np.testing.assert_allclose(answer["scores"], [0.9])
    assert len(answer["classes"]) == len(slow.rings_of(answer) if mask_format == "polygon" else slow.texts_of(answer))


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_ends_with_the_picture_and_not_with_the_padding(mode: str) -> None:
    outputs = scene(21, [[10, 0, 90, SIZE[1]]])
    outputs["output1"] = np.ones_like(outputs["output1"])
    outputs["output0"][-COUNT:] = 1.0
    letterbox = Geometry(320, 192, 0.5, 0.5, 0.0, 16.0)
    ((ring,),) = slow.rings_of(segment(outputs, letterbox, mask_decode_mode=mode))
    np.testing.assert_allclose((ring.min(axis=0), ring.max(axis=0)), ((20, 0), (180, 192)), atol=1e-3)
    (text,) = slow.texts_of(segment(outputs, letterbox, mask_decode_mode=mode, mask_format="rle"))
    np.testing.assert_array_equal(slow.bits_of(text, (320, 192)), slow.filled([ring], (320, 192)))


@pytest.mark.parametrize("mask_format", ["polygon", "rle"])
@pytest.mark.parametrize("mode", MODES)
def test_an_object_with_an_empty_mask_is_left_out(mode: str, mask_format: str) -> None:
    """As Ultralytics does; one object without a mask would make supervision drop the masks of all."""
    outputs = scene(15, [[10, 10, 90, 90], [20, 20, 60, 60], [70, 70, 90, 90]])
    outputs["output1"] = np.ones_like(outputs["output1"])
    outputs["output0"][-COUNT:] = np.array([-1.0, 1.0, -1.0])
    answer = segment(outputs, mask_decode_mode=mode, mask_format=mask_format)
    np.testing.assert_allclose(answer["boxes"], [[20, 20, 60, 60]])
    np.testing.assert_allclose(answer["scores"], [0.7])
    result = result_dict("segment", answer, {}, width=SIZE[0], height=SIZE[1])
    found = supervision.Detections.from_inference(result)
    assert found.mask is not None
    assert len(found) == len(found.mask) == 1
