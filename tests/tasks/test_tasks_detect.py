"""Detection, family by family, against the slow reading of the same outputs."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.families import FAMILIES
from stages.geometry import Geometry
from stages.tasks import Arrays
from stages.tasks.detect import Detect
from tests.tasks import samples
from tests.tasks import slow_layouts as slow

READERS = {
    "yolov8": slow.yolov8,
    "yolov5": slow.yolov5,
    "yolox": slow.yolox,
    "yolox-decoded": slow.yolov5,
    "end2end": slow.end2end,
    "rtdetr-ultralytics": slow.rtdetr_ultralytics,
    "rtdetr-ultralytics-end2end": slow.rtdetr_ultralytics_end2end,
    "rtdetr": slow.rtdetr,
    "rfdetr": slow.rfdetr,
    "detr": slow.detr,
    "efficient-nms": slow.efficient_nms,
    "mmdeploy": slow.mmdeploy,
    "rtdetr-hf": slow.rtdetr_hf,
    "boxes-scores": slow.boxes_scores,
    "ultraface": slow.ultraface,
    "nanodet": slow.nanodet,
    "picodet": slow.picodet,
    "paddle-detection": slow.paddle_detection,
    "numbered": slow.numbered,
    "tensorflow-detection": slow.tensorflow_detection,
    "torchvision": slow.torchvision,
}
# Those that give points first and boxes alone on request are read slowly in tests/families/test_faces.py.
DETECTORS = [name for name, family in FAMILIES.items() if family.readers.get("detect") and family.tasks[0] == "detect"]
SUPPRESSED = tuple(name for name in DETECTORS if FAMILIES[name].needs_nms)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"confidence": 0.05, "max_detections": 1000},
    {"confidence": 0.1, "class_agnostic": True, "iou": 0.3},
    {"confidence": 0.02, "class_filter": ["class3", 1]},
    {"confidence": 0.02, "max_candidates": 20, "max_detections": 7, "iou": 0.8},
    {"confidence": 0.0, "iou": 1.0},
    {"iou": 0.0, "confidence": 0.1},
]


def read_slowly(family: str, outputs: Arrays, options: Any) -> list[slow.Detection]:
    detections: Iterator[slow.Detection] = READERS[family](outputs, samples.SIZE)
    found = slow.cut(detections, options)
    found = (slow.suppressed(found, options) if family in SUPPRESSED else found)[: options.max_detections]
    return slow.in_picture(found, samples.SIZE)


def assert_same(answer: Arrays, expected: list[slow.Detection]) -> None:
    assert answer["boxes"].dtype == answer["scores"].dtype == np.float32
    assert answer["classes"].dtype == np.int64
    assert answer["boxes"].shape == (len(expected), 4)
    boxes = np.array([detection.box for detection in expected]).reshape(-1, 4)
    np.testing.assert_allclose(answer["scores"], [detection.score for detection in expected], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(answer["classes"], [detection.number for detection in expected])
    np.testing.assert_allclose(answer["boxes"], boxes, rtol=0, atol=1e-3)


def answer_of(task: Detect, outputs: Arrays, **options: Any) -> Arrays:
    for array in outputs.values():
        array.flags.writeable = False
    return task.answer(outputs, samples.IDENTITY, task.options(samples.encode(**options)))


@pytest.mark.parametrize("name", ["astronaut.png", "coffee.png", "chelsea.png"])
def test_shipped_detector_finds_what_is_known_to_be_there(
    name: str, zoo: Path, pictures: Path, expected: dict[str, Any]
) -> None:
    session = onnxruntime.InferenceSession(zoo / "detector.onnx", providers=["CPUExecutionProvider"])
    names = tuple(eval_names(session))
    picture = cv2.imread(str(pictures / name))
    assert picture is not None
    height, width = picture.shape[:2]
    row = cv2.cvtColor(cv2.resize(picture, (416, 416)), cv2.COLOR_BGR2RGB).transpose(2, 0, 1)[None] / np.float32(255)
    (output,) = session.run(None, {"images": row})
    task = Detect(samples.spec("detect", "yolov8", names=names, preprocess={"width": 416, "height": 416}))
    geometry = Geometry(width, height, 416 / width, 416 / height, 0.0, 0.0)
    answer = task.answer({"output0": output[0]}, geometry, task.options(b""))
    wanted = expected[name]["detect"]
    assert [names[number] for number in answer["classes"]] == [detection["name"] for detection in wanted]
    np.testing.assert_allclose(answer["scores"], [detection["score"] for detection in wanted], atol=1e-3)
    boxes = np.array([detection["xyxy"] for detection in wanted])
    np.testing.assert_allclose(answer["boxes"], boxes.clip(0, [width, height] * 2), atol=0.1)


def eval_names(session: onnxruntime.InferenceSession) -> list[str]:
    names: dict[int, str] = ast.literal_eval(session.get_modelmeta().custom_metadata_map["names"])
    return [names[number] for number in range(len(names))]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("family", DETECTORS)
def test_same_detections_as_read_slowly(family: str, options: dict[str, Any]) -> None:
    for seed in range(4):
        outputs = samples.random_outputs(family, seed)
        task = Detect(samples.spec("detect", family, outputs))
        expected = read_slowly(family, outputs, task.options(samples.encode(**options)))
        assert_same(answer_of(task, outputs, **options), expected)


@pytest.mark.parametrize("family", DETECTORS)
def test_every_family_has_a_slow_reading_that_finds_something(family: str) -> None:
    outputs = samples.random_outputs(family, 0)
    task = Detect(samples.spec("detect", family, outputs))
    assert len(answer_of(task, outputs)["scores"]) >= 3


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_coarse_boxes_with_many_ties_are_suppressed_exactly(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 25))
    coordinates = st.lists(st.integers(-3, 12), min_size=count, max_size=count)
    levels = st.lists(st.integers(0, 8), min_size=count, max_size=count)
    rows = [data.draw(coordinates) for _ in range(4)] + [data.draw(levels) for _ in range(2)]
    output = np.array(rows, np.float32).reshape(6, count)
    output[4:] /= 8
    wanted = {
        "confidence": data.draw(st.sampled_from([0.0, 0.25, 0.5])),
        "iou": data.draw(st.sampled_from([0.0, 0.1, 0.2, 0.25, 1 / 3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0])),
        "class_agnostic": data.draw(st.booleans()),
        "max_candidates": data.draw(st.sampled_from([3000, 5])),
    }
    task = Detect(samples.spec("detect", "yolov8"))
    expected = read_slowly("yolov8", {"output0": output}, task.options(samples.encode(**wanted)))
    assert_same(answer_of(task, {"output0": output}, **wanted), expected)


def test_thousands_of_equal_scores_keep_their_order() -> None:
    output = np.zeros((4 + samples.CLASSES, 8400), np.float32)
    output[0] = np.arange(8400) * 10  # apart from each other
    output[1:4] = 5
    output[4] = 0.5
    task = Detect(samples.spec("detect", "yolov8"))
    options = task.options(samples.encode(max_detections=5000, max_candidates=4000))
    answer = task.answer({"output0": output}, Geometry(90_000, 10, 1.0, 1.0, 0.0, 0.0), options)
    np.testing.assert_array_equal(answer["boxes"][1:, 0], np.arange(1, 4000) * 10 - 2.5)
    assert answer["boxes"][0].tolist() == [0.0, 2.5, 2.5, 7.5]


@pytest.mark.parametrize("agnostic", [True, False])
def test_thousands_of_overlapping_boxes_are_the_same_as_read_slowly(agnostic: bool) -> None:
    outputs = samples.random_outputs("yolov8", 7, count=2000)
    outputs["output0"][4:] = np.sqrt(outputs["output0"][4:])
    task = Detect(samples.spec("detect", "yolov8"))
    options = {"confidence": 0.3, "class_agnostic": agnostic, "max_detections": 5000}
    expected = read_slowly("yolov8", outputs, task.options(samples.encode(**options)))
    assert len(expected) > 50
    assert_same(answer_of(task, outputs, **options), expected)


@pytest.mark.parametrize("family", DETECTORS)
def test_nothing_found_gives_empty_arrays_of_the_right_kind(family: str) -> None:
    outputs = samples.random_outputs(family, 1)
    answer = answer_of(Detect(samples.spec("detect", family, outputs)), outputs, confidence=1.0)
    assert_same(answer, [])


SCORES: dict[str, tuple[str, Any]] = {  # a score of each family: the output and the place
    "yolov8": ("output0", (4, 3)),
    "rtdetr": ("scores", 0),
    "rfdetr": ("labels", (0, 0)),
    "detr": ("logits", (0, 0)),
    "rtdetr-hf": ("logits", (0, 0)),
    "efficient-nms": ("det_scores", 3),
    "mmdeploy": ("dets", (np.s_[:], 4)),
    "boxes-scores": ("scores", (0, 1)),
    "ultraface": ("scores", (0, 1)),
    "nanodet": ("output", (0, 1)),
    "picodet": ("score_8", (0, 1)),
    "paddle-detection": ("output0", (np.s_[:], 1)),
    "numbered": ("output0", (0, 6)),
    "tensorflow-detection": ("detection_scores", 0),
    "torchvision": ("scores", 0),
}


def test_boxes_end_with_the_picture_and_not_with_the_padding_of_its_row() -> None:
    """Whoever crops with them gets a crop: those beside the picture are no answers."""
    rows = [[10, 5, 90, 60], [-5, 20, 30, 40], [0, 0, 96, 7.9], [20, 57, 40, 64], [-9, 20, 0, 40], [40, 20, 40, 40]]
    scores = np.linspace(0.9, 0.5, len(rows))
    output = np.array([[*box, score, 1] for box, score in zip(rows, scores, strict=True)], np.float32)
    task = Detect(samples.spec("detect", "end2end"))
    letterbox = Geometry(192, 96, 0.5, 0.5, 0.0, 8.0)  # 8 rows of padding above and below
    answer = task.answer({"output0": output}, letterbox, task.options(b""))
    assert answer["boxes"].tolist() == [[20, 0, 180, 96], [0, 24, 60, 64], [80, 24, 80, 64]]
    np.testing.assert_allclose(answer["scores"], scores[[0, 1, 5]], rtol=1e-6)
    assert len(answer["classes"]) == 3


def test_nanodet_plus_counts_from_the_corners_of_its_cells() -> None:
    outputs = samples.random_outputs("nanodet", 3, count=121)
    assert len(outputs["output"]) == 12 * 8 + 6 * 4 + 3 * 2 + 2
    task = Detect(samples.spec("detect", "nanodet"))
    options = task.options(b"")
    expected = slow.suppressed(slow.cut(slow.nanodet(outputs, samples.SIZE), options), options)
    assert len(expected) > 5
    assert_same(answer_of(task, outputs), slow.in_picture(expected, samples.SIZE))


def test_boxes_and_scores_may_be_the_other_way_round() -> None:
    """PP-YOLOE's scores are [classes, n], YOLOv4's boxes [n, 1, 4]."""
    outputs = samples.random_outputs("boxes-scores", 5)
    task = Detect(samples.spec("detect", "boxes-scores"))
    turned = {"boxes": outputs["boxes"][:, None], "scores": np.ascontiguousarray(outputs["scores"].T)}
    np.testing.assert_array_equal(answer_of(task, turned)["boxes"], answer_of(task, outputs)["boxes"])


def test_very_large_boxes_of_two_classes_do_not_disturb_each_other() -> None:
    huge, small = [0.0, 0.0, 1e30, 1e30], [20.0, 20.0, 10.0, 10.0]
    output = np.array([[*huge, 0.9, 0, 0], [*small, 0, 0.8, 0], [*small, 0, 0, 0.7], [*small, 0, 0, 0.6]], np.float32).T
    task = Detect(samples.spec("detect", "yolov8"))
    assert answer_of(task, {"output0": np.ascontiguousarray(output)})["classes"].tolist() == [0, 1, 2]


def test_an_overlap_equal_to_the_threshold_is_allowed() -> None:
    # 7 of 10 columns in common
    output = np.array([[4.25, 5, 8.5, 10, 0.9], [5.75, 5, 8.5, 10, 0.8]], np.float32).T
    task = Detect(samples.spec("detect", "yolov8"))
    assert len(answer_of(task, {"output0": np.ascontiguousarray(output)}, iou=0.7)["scores"]) == 2
    assert len(answer_of(task, {"output0": np.ascontiguousarray(output)}, iou=0.69)["scores"]) == 1


def test_boxes_without_area_suppress_nothing() -> None:
    output = np.array([[5, 5, 0, 0, 0.9], [5, 5, 0, 0, 0.8], [5, 5, 4, 0, 0.7], [5, 5, -4, 4, 0.6]], np.float32).T
    task = Detect(samples.spec("detect", "yolov8"))
    assert len(answer_of(task, {"output0": np.ascontiguousarray(output)})["scores"]) == 4


def test_rfdetr_leaves_its_background_out() -> None:
    outputs = samples.random_outputs("rfdetr", 5)
    task = Detect(samples.spec("detect", "rfdetr", parameters={"background": 2}))
    options = task.options(b"")
    expected = slow.cut(slow.rfdetr(outputs, samples.SIZE, background=2), options)[: options.max_detections]
    assert_same(answer_of(task, outputs), slow.in_picture(expected, samples.SIZE))


@pytest.mark.parametrize("family", ["rfdetr", "detr"])
def test_outputs_with_other_names_are_told_by_their_columns(family: str) -> None:
    outputs = samples.random_outputs(family, 6)
    task = Detect(samples.spec("detect", family))
    renamed = {f"tensor{number}": array for number, array in enumerate(outputs.values())}
    np.testing.assert_array_equal(answer_of(task, renamed)["boxes"], answer_of(task, outputs)["boxes"])


def test_half_precision_outputs_are_read() -> None:
    outputs = samples.random_outputs("yolov8", 8)
    half = {"output0": outputs["output0"].astype(np.float16)}
    single = {"output0": half["output0"].astype(np.float32)}
    task = Detect(samples.spec("detect", "yolov8"))
    assert_arrays_equal(answer_of(task, half), answer_of(task, single))


def assert_arrays_equal(first: Arrays, second: Arrays) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        np.testing.assert_array_equal(first[name], second[name])


def test_suppression_is_left_out_where_the_model_has_done_it() -> None:
    outputs = samples.random_outputs("yolov8", 9)
    task = Detect(samples.spec("detect", "yolov8", parameters={"nms": True}))
    options = task.options(b"")
    expected = slow.in_picture(slow.cut(slow.yolov8(outputs, samples.SIZE), options), samples.SIZE)
    assert_same(answer_of(task, outputs), expected)


@pytest.mark.parametrize("family", DETECTORS)
def test_the_answer_does_not_live_in_the_outputs(family: str) -> None:
    outputs = samples.random_outputs(family, 10)
    answer = answer_of(Detect(samples.spec("detect", family, outputs)), outputs)
    for array in answer.values():
        assert not any(np.shares_memory(array, output) for output in outputs.values())


@given(
    scale=st.tuples(st.floats(0.05, 20), st.floats(0.05, 20)),
    offset=st.tuples(st.floats(-300, 300), st.floats(-300, 300)),
)
@settings(max_examples=60, deadline=None)
def test_boxes_go_back_the_way_the_frame_came(scale: tuple[float, float], offset: tuple[float, float]) -> None:
    outputs = samples.random_outputs("end2end", 11)
    task = Detect(samples.spec("detect", "end2end"))
    options = task.options(b"")
    for size in ((50, 40), (1e6, 1e6)):
        in_frame = task.answer(outputs, Geometry(*size, *scale, *offset), options)["boxes"].astype(np.float64)
        way_back = [
            detection._replace(box=tuple((np.array(detection.box) - np.tile(offset, 2)) / np.tile(scale, 2)))
            for detection in slow.cut(slow.end2end(outputs, samples.SIZE), options)
        ]
        expected = [detection.box for detection in slow.in_picture(way_back, size)]
        np.testing.assert_allclose(in_frame, np.reshape(expected, (-1, 4)), atol=0.01 / min(scale))
