"""Masks: polygons and run lengths against masks decoded slowly, on prototypes of full rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest

from parallel_infer.errors import InferError, ModelRejected
from stages.geometry import Geometry
from stages.tasks import Arrays
from stages.tasks.segment import Segment
from tests.tasks import samples
from tests.tasks import slow_masks as slow

SIZE = (160, 128)
COUNT = 6  # prototypes
MODES = ("fast", "tradeoff", "accurate")
LEAST_OVERLAP = {"fast": 0.9, "tradeoff": 0.94, "accurate": 0.96}
SAME = Geometry(SIZE[0], SIZE[1], 1.0, 1.0, 0.0, 0.0)


def scene(seed: int, boxes: npt.ArrayLike) -> Arrays:
    """Outputs that find exactly `boxes` (xyxy), each with random coefficients."""
    rng = np.random.default_rng(seed)
    corners = np.asarray(boxes, np.float32).reshape(-1, 4)
    output = np.zeros((4 + samples.CLASSES + COUNT, len(corners)), np.float32)
    output[:2] = (corners[:, :2] + corners[:, 2:]).T / 2
    output[2:4] = (corners[:, 2:] - corners[:, :2]).T
    output[4] = np.linspace(0.9, 0.5, len(corners))
    output[-COUNT:] = rng.normal(size=(COUNT, len(corners)))
    return {"output0": output, "output1": slow.smooth_prototypes(seed, COUNT, SIZE[1] // 4, SIZE[0] // 4)}


def crowd(seed: int, count: int) -> Arrays:
    rng = np.random.default_rng(seed)
    centres, sizes = rng.uniform(0, SIZE, (count, 2)), rng.uniform(12, 90, (count, 2))
    return scene(seed, np.concatenate((centres - sizes / 2, centres + sizes / 2), axis=1))


def task_for(outputs: Arrays, family: str = "yolov8", size: tuple[int, int] = SIZE) -> Segment:
    return Segment(samples.spec("segment", family, outputs, preprocess={"width": size[0], "height": size[1]}))


def segment(outputs: Arrays, geometry: Geometry = SAME, **options: Any) -> Arrays:
    task = task_for(outputs)
    for array in outputs.values():
        array.flags.writeable = False
    options = {"iou": 1.0, **options}
    answer = task.answer(outputs, geometry, task.options(samples.encode(**options)))
    if "mask_points" in answer:
        assert answer["mask_points"].dtype == np.float32
        assert answer["mask_rings"].dtype == answer["mask_objects"].dtype == np.int32
    else:
        assert answer["mask_rle"].dtype == np.uint8
        assert answer["mask_rle_sizes"].dtype == np.int32
    return answer


def slow_bits(outputs: Arrays, place: int) -> slow.Bits:
    column = outputs["output0"][:, place].astype(np.float64)
    box = np.concatenate((column[:2] - column[2:4] / 2, column[:2] + column[2:4] / 2))
    return slow.whole_mask(column[-COUNT:], outputs["output1"], box, SIZE)


def test_the_prototypes_have_full_rank() -> None:
    prototypes = crowd(0, 1)["output1"].reshape(COUNT, -1)
    assert np.linalg.matrix_rank(prototypes) == COUNT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_polygons_cover_what_the_mask_covers(seed: int, mode: str) -> None:
    outputs = crowd(seed, 12)
    found = slow.rings_of(segment(outputs, mask_decode_mode=mode))
    checked = 0
    for place, rings in enumerate(found):
        expected = slow_bits(outputs, place)
        if expected.sum() > 100:
            checked += 1
            assert slow.overlap(slow.filled(rings, SIZE), expected) > LEAST_OVERLAP[mode]
    assert checked >= 8


@pytest.mark.parametrize("seed", [3, 4])
def test_accurate_run_lengths_are_the_mask_pixel_by_pixel(seed: int) -> None:
    outputs = crowd(seed, 12)
    texts = slow.texts_of(segment(outputs, mask_format="rle"))
    assert texts == [slow.coco_text(slow_bits(outputs, place)) for place in range(12)]


def test_cropping_before_enlarging_changes_no_pixel() -> None:
    """Steep masks with many edges, in boxes that begin anywhere in a prototype cell."""
    rng = np.random.default_rng(22)
    starts = rng.integers(0, 60, (150, 2))
    outputs = scene(22, np.concatenate((starts, starts + rng.integers(8, 24, (150, 2))), axis=1))
    outputs["output1"] = rng.normal(size=outputs["output1"].shape).astype(np.float32)
    for place, text in enumerate(slow.texts_of(segment(outputs, mask_format="rle"))):
        np.testing.assert_array_equal(slow.bits_of(text, SIZE), slow_bits(outputs, place))


@pytest.mark.parametrize("mode", ["fast", "tradeoff"])
def test_coarser_run_lengths_are_close_to_the_mask(mode: str) -> None:
    outputs = crowd(5, 12)
    for place, text in enumerate(slow.texts_of(segment(outputs, mask_format="rle", mask_decode_mode=mode))):
        expected = slow_bits(outputs, place)
        if expected.sum() > 300:
            assert slow.overlap(slow.bits_of(text, SIZE), expected) > 0.85


def test_the_tradeoff_goes_from_fast_to_accurate() -> None:
    outputs = crowd(6, 8)
    fast, accurate = (segment(outputs, mask_decode_mode=mode) for mode in ("fast", "accurate"))
    least = segment(outputs, mask_decode_mode="tradeoff", tradeoff_factor=0.0)
    middle = segment(outputs, mask_decode_mode="tradeoff", tradeoff_factor=0.5)
    most = segment(outputs, mask_decode_mode="tradeoff", tradeoff_factor=1.0)
    np.testing.assert_array_equal(least["mask_points"], fast["mask_points"])
    np.testing.assert_array_equal(most["mask_points"], accurate["mask_points"])
    assert len(fast["mask_points"]) < len(middle["mask_points"]) < len(accurate["mask_points"])


@pytest.mark.parametrize("mode", MODES)
def test_a_few_large_objects_are_the_same_as_alone(mode: str) -> None:
    """Small crops are multiplied one by one, large ones together: the answer must not depend on it."""
    alone = scene(7, [[20, 20, 60, 50]])
    together = scene(7, [[20, 20, 60, 50], *[[0, 0, *SIZE]] * 5])
    together["output0"][-COUNT:, 0] = alone["output0"][-COUNT:, 0]
    first = slow.rings_of(segment(alone, mask_decode_mode=mode))[0]
    same = slow.rings_of(segment(together, mask_decode_mode=mode))[0]
    assert len(first) == len(same) >= 1
    for ring, other in zip(first, same, strict=True):
        np.testing.assert_allclose(ring, other, atol=1e-3)


@pytest.mark.parametrize("mask_format", ["polygon", "rle"])
@pytest.mark.parametrize("mode", MODES)
def test_masks_follow_the_geometry(mode: str, mask_format: str) -> None:
    outputs = crowd(8, 6)
    geometry = Geometry(300, 100, 0.5, 1.25, 5.0, 1.5)  # row = frame * scale + offset
    options = {"mask_decode_mode": mode, "mask_format": mask_format}
    answer = segment(outputs, geometry, **options)
    if mask_format == "rle":
        found = [slow.bits_of(text, (300, 100)) for text in slow.texts_of(answer)]
    else:
        found = [slow.filled(rings, (300, 100)) for rings in slow.rings_of(answer)]
    x = np.floor((np.arange(300) + 0.5) * 0.5 + 5.0).astype(int)
    y = np.floor((np.arange(100) + 0.5) * 1.25 + 1.5).astype(int)
    for place, bits in enumerate(found):
        expected = slow_bits(outputs, place)[np.ix_(y, x)]
        if expected.sum() > 300:
            assert slow.overlap(bits, expected) > LEAST_OVERLAP[mode] - 0.08


@pytest.mark.parametrize("mode", MODES)
def test_no_polygon_leaves_its_box(mode: str) -> None:
    answer = segment(crowd(9, 20), mask_decode_mode=mode)
    for rings, box in zip(slow.rings_of(answer), answer["boxes"], strict=True):
        for ring in rings:
            assert (ring >= box[:2] - 1e-3).all()
            assert (ring <= box[2:] + 1e-3).all()


@pytest.mark.parametrize("mode", MODES)
def test_the_largest_ring_comes_first_and_holes_turn_the_other_way(mode: str) -> None:
    holes = 0
    for rings in slow.rings_of(segment(scene(10, [[0, 0, *SIZE]] * 12), mask_decode_mode=mode)):
        areas = [slow.signed_area(ring) for ring in rings]
        assert all(len(ring) >= 3 for ring in rings)
        assert [abs(area) for area in areas] == sorted((abs(area) for area in areas), reverse=True)
        if areas:
            assert areas[0] < 0
        holes += sum(area > 0 for area in areas)
    assert holes >= 1


# Masks of known shape: one prototype that is the mask itself, a grid cell per row pixel.


def test_all_masks_empty_is_an_answer_without_objects() -> None:
    outputs = scene(15, [[10, 10, 90, 90]])
    outputs["output1"] = -np.ones_like(outputs["output1"])
    outputs["output0"][-COUNT:] = 1.0
    for mask_format in ("polygon", "rle"):
        answer = segment(outputs, mask_format=mask_format)
        assert all(len(array) == 0 for array in answer.values())
        assert answer["boxes"].shape == (0, 4)


@pytest.mark.parametrize("mask_format", ["polygon", "rle"])
def test_nothing_found_gives_empty_arrays(mask_format: str) -> None:
    answer = segment(crowd(16, 3), confidence=1.0, mask_format=mask_format)
    assert all(len(array) == 0 for array in answer.values())
    assert answer["boxes"].shape == (0, 4)
    if mask_format == "polygon":
        assert answer["mask_points"].shape == (0, 2)
        assert answer["mask_rings"].shape == (0,)


@pytest.mark.parametrize("place", ["coefficient", "prototype"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mask_that_is_not_finite_is_an_error(value: float, place: str) -> None:
    outputs = crowd(17, 3)
    if place == "coefficient":
        outputs["output0"][-1, 1] = value
    else:
        outputs["output1"][2] = value
    with pytest.raises(InferError, match="non-finite"):
        segment(outputs)


def test_the_row_need_not_be_a_whole_multiple_of_the_prototypes() -> None:
    outputs = crowd(18, 6)
    outputs["output1"] = slow.smooth_prototypes(18, COUNT, 37, 47)
    for place, rings in enumerate(slow.rings_of(segment(outputs))):
        expected = slow_bits(outputs, place)
        if expected.sum() > 200:
            assert slow.overlap(slow.filled(rings, SIZE), expected) > 0.95


def test_end_to_end_rows_hold_the_coefficients_last() -> None:
    raw = scene(19, [[20, 30, 100, 90]])
    row = np.concatenate(([20, 30, 100, 90, 0.9, 0], raw["output0"][-COUNT:, 0])).astype(np.float32)
    outputs = {"rows": row[None], "prototypes": raw["output1"]}
    task = task_for(outputs, "end2end")
    answer = task.answer(outputs, SAME, task.options(b""))
    np.testing.assert_array_equal(answer["mask_points"], segment(raw)["mask_points"])


def test_rfdetr_masks_belong_to_their_queries() -> None:
    rng = np.random.default_rng(20)
    masks = slow.smooth_prototypes(20, 5, 32, 40)
    dets = rng.uniform(0.3, 0.7, (5, 4)).astype(np.float32)
    labels = np.full((5, samples.CLASSES), -9, np.float32)
    labels[3, 1], labels[1, 2] = 2.0, 1.0
    outputs = {"dets": dets, "labels": labels, "masks": masks}
    task = task_for(outputs, "rfdetr")
    answer = task.answer(outputs, SAME, task.options(b""))
    assert answer["classes"].tolist() == [1, 2]
    for rings, place in zip(slow.rings_of(answer), (3, 1), strict=True):
        whole = cv2.resize(masks[place].astype(np.float64), SIZE, interpolation=cv2.INTER_LINEAR) > 0
        assert slow.overlap(slow.filled(rings, SIZE), whole) > 0.97
    with pytest.raises(InferError, match="only 3 masks"):
        task.answer({**outputs, "masks": masks[:3]}, SAME, task.options(b""))


def test_shipped_model_outlines_the_astronaut(zoo: Path, pictures: Path) -> None:
    session = onnxruntime.InferenceSession(zoo / "segmenter.onnx", providers=["CPUExecutionProvider"])
    picture = cv2.imread(str(pictures / "astronaut.png"))
    assert picture is not None
    row = cv2.cvtColor(cv2.resize(picture, (416, 416)), cv2.COLOR_BGR2RGB).transpose(2, 0, 1)[None] / np.float32(255)
    names = [output.name for output in session.get_outputs()]
    outputs = {name: output[0] for name, output in zip(names, session.run(None, {"images": row}), strict=True)}
    task = task_for(outputs, size=(416, 416))
    geometry = Geometry(512, 512, 416 / 512, 416 / 512, 0.0, 0.0)
    polygons = task.answer(outputs, geometry, task.options(b""))
    lengths = task.answer(outputs, geometry, task.options(samples.encode(mask_format="rle")))
    assert polygons["mask_objects"].tolist() == [1]
    bits = slow.bits_of(slow.texts_of(lengths)[0], (512, 512))
    assert slow.overlap(slow.filled(slow.rings_of(polygons)[0], (512, 512)), bits) > 0.97
    assert bits[400, 200]  # her suit
    assert not bits[100, 30]  # the wall


def test_prototypes_of_unknown_number_are_rejected() -> None:
    with pytest.raises(ModelRejected, match="prototypes"):
        Segment(samples.spec("segment", "yolov8", {"output0": np.zeros((10, 20), np.float32)}))
