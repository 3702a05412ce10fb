"""Models made after public bug reports of servers and exporters, in `reported/`: what each is, and what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallel_infer.errors import ModelRejected
from stages.recognise import describe
from tests.families.served import answer_of

FOLDER = Path(__file__).with_name("reported")
WHITE, BLACK = np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64, 3), np.uint8)
BOX, MIDDLE = [10, 12, 50, 44], [22, 18, 42, 42]
OPTIONS: dict[str, dict[str, Any]] = {
    "lstm_state": {"shapes": {"state": [2, 4]}},
    "question_marks": {"shapes": {"x": [3, 48, 192]}},
    "ctc_time_major": {"task": "tensor"},
}

# The family, the task, and for a white picture the classes, their scores and the first box.
FOUND: dict[str, tuple[str, str, list[int], list[float], list[float] | None]] = {
    "binary_sigmoid": ("classifier", "classify", [0], [0.9], None),
    "efficient_nms": ("efficient-nms", "detect", [2], [0.9], BOX),
    "gray_yolo": ("yolov8", "detect", [0], [0.9], MIDDLE),
    "hf_detr": ("detr", "detect", [17], [0.97], [16, 24, 48, 40]),
    "hf_rtdetr": ("rtdetr-hf", "detect", [79, 0], [0.881, 0.622], [16, 24, 48, 40]),
    "logits_and_embedding": ("classifier", "classify", [1, 0, 2], [0.987, 0.007, 0.007], None),
    "mmdet": ("mmdeploy", "detect", [2], [0.9], BOX),
    "nanodet": ("nanodet", "detect", [1], [0.93], [12, 12, 44, 44]),
    "nms_first_only": ("end2end", "detect", [1], [0.9], [8, 8, 40, 40]),
    "nms_unpadded": ("end2end", "detect", [1, 0, 2], [0.9, 0.8, 0.7], [1, 2, 30, 40]),
    "one_row": ("classifier", "classify", [2, 0, 1, 3], [0.98, 0.007, 0.007, 0.007], None),
    "paddle_detection": ("paddle-detection", "detect", [2] * 5, [0.9] * 5, BOX),
    "pose_kpt2": ("yolov8", "keypoints", [1, 0], [0.9, 0.7], MIDDLE),
    "question_marks": ("classifier", "classify", [1, 0], [0.992, 0.008], None),
    "rescaled_keras": ("classifier", "classify", [1, 0], [0.881, 0.119], None),
    "scrfd": ("scrfd", "keypoints", [], [], None),
    "tagger_sigmoid": ("classifier", "classify", [0, 2, 1, 3], [0.97, 0.6, 0.02, 0.01], None),
    "tf_detection": ("tensorflow-detection", "detect", [2], [0.9], [6.4, 12.8, 51.2, 44.8]),
    "torchvision_detector": ("torchvision", "detect", [3, 1], [0.9, 0.4], [0.1, 0.2, 3, 4]),
    "ultraface": ("ultraface", "detect", [0], [0.9], [6.4, 12.8, 51.2, 44.8]),
    "yolo26_one_class": ("end2end", "detect", [0, 0], [0.9, 0.6], BOX),
    "yolonas_raw": ("boxes-scores", "detect", [2], [0.9], BOX),
    "yolov10_one_class": ("end2end", "detect", [0, 0], [0.9, 0.6], BOX),
    "yolov10_two_classes": ("end2end", "detect", [1, 0], [0.9, 0.6], BOX),
    "yolov5_face": ("yolov5-face", "keypoints", [0], [0.855], [22, 22, 42, 42]),
    "yolov5_four_outputs": ("yolov5", "detect", [1], [0.855], MIDDLE),
    "yolov7_end2end": ("numbered", "detect", [1] * 8, [0.9] * 8, BOX),
    "yolov8_1203": ("yolov8", "detect", [1202, 0], [0.9, 0.7], MIDDLE),
    "yolov8_half": ("yolov8", "detect", [4, 0], [0.9, 0.7], MIDDLE),
    "yolov8_list_names": ("yolov8", "detect", [4, 0], [0.9, 0.7], MIDDLE),
    "yolov8_obb": ("yolov8", "obb", [1, 0], [0.9, 0.7], [20, 20, 44, 40]),
    "yolov8_rect": ("yolov8", "detect", [4], [0.9], [0, 18, 10, 42]),
    "yolov8_transposed": ("yolov8", "detect", [4, 0], [0.9, 0.7], [11, 9, 21, 21]),
    "yolov9_dual": ("yolov8", "detect", [2], [0.9], MIDDLE),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_model_is_what_its_maker_says_and_finds_what_it_should(name: str) -> None:
    family, task, classes, scores, box = FOUND[name]
    spec = describe("m", FOLDER / f"{name}.onnx", OPTIONS.get(name, {}))
    assert (spec.family, spec.task) == (family, task)
    answer = answer_of(spec, WHITE)
    assert answer["classes"].tolist() == classes
    np.testing.assert_allclose(answer["scores"], scores, atol=2e-3)
    if box is not None:
        np.testing.assert_allclose(answer["boxes"][0][:4], box, atol=0.05)


NOTHING_IN_BLACK = ("nms_first_only", "nms_unpadded", "yolov7_end2end")


@pytest.mark.parametrize("name", NOTHING_IN_BLACK)
def test_a_picture_decides_how_many_objects_there_are(name: str) -> None:
    spec = describe("m", FOLDER / f"{name}.onnx", {})
    assert len(answer_of(spec, BLACK)["classes"]) == 0


TENSORS: dict[str, tuple[int | None, list[tuple[int, ...]]]] = {
    "control_flow": (1, [(4,)]),
    "ctc_time_major": (1, [(12, 7)]),
    "dtypes": (None, [(4,)] * 6 + [()]),
    "lstm_state": (1, [(1,), (2, 4)]),
    "sklearn_plain": (None, [(), (2,)]),
}


@pytest.mark.parametrize("name", TENSORS)
def test_what_is_no_model_of_pictures_is_served_as_tensors(name: str) -> None:
    spec = describe("m", FOLDER / f"{name}.onnx", OPTIONS.get(name, {}))
    assert (spec.family, spec.batch) == ("tensor", TENSORS[name][0])
    assert [output.shape for output in spec.outputs] == TENSORS[name][1]


DENSE = {
    "anomalib": "map",
    "depth_map": "map",
    "arcface": "embedding",
    "vit_hidden": "embedding",
    "semantic": "semantic",
}


@pytest.mark.parametrize("name", DENSE)
def test_maps_and_vectors_are_no_detections(name: str) -> None:
    spec = describe("m", FOLDER / f"{name}.onnx", {})
    assert (spec.family, spec.task) == (DENSE[name], DENSE[name])
    answer = answer_of(spec, WHITE)
    if DENSE[name] == "embedding":
        np.testing.assert_allclose(np.linalg.norm(answer["embedding"]), 1.0, atol=1e-5)
    else:
        assert answer["map" if DENSE[name] == "map" else "class_map"].shape == WHITE.shape[:2]


def test_a_fixed_batch_stays_and_maps_are_refused_by_name() -> None:
    assert describe("m", FOLDER / "yolov8_batch4.onnx", {}).batch == 4
    with pytest.raises(ModelRejected, match="output_probability is a seq"):
        describe("m", FOLDER / "zipmap.onnx", {})


def test_every_file_is_tried() -> None:
    tried = {*FOUND, *TENSORS, *DENSE, "yolov8_batch4", "zipmap"}
    assert {path.stem for path in FOLDER.glob("*.onnx")} == tried
