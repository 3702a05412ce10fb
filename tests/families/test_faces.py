"""Detectors of faces and of persons with their points, against the same outputs read slowly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.recognise import describe
from tests.families.served import answer_of
from tests.families.tiny_graphs import Array, saved, tiny
from tests.tasks import slow_layouts as slow

SIDE = 128
CELLS = 16 * 16 + 8 * 8 + 4 * 4
FRAME = np.full((SIDE, SIDE, 3), 90, np.uint8)  # as large as the row
Outputs = dict[str, Array]


def model(outputs: Outputs, batch: int | str = "batch") -> Any:
    return tiny(outputs, inputs={"input.1": ("float32", (batch, 3, SIDE, SIDE))}, batch=batch)


def noise(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).random(shape, np.float32)


def scores(seed: int, rows: int) -> Any:
    """Few of them high."""
    return np.round(noise(seed, rows, 1) ** 8, 3)


def scrfd(seed: int, strides: tuple[int, ...] = (8, 16, 32), anchors: int = 2, points: bool = True) -> Outputs:
    outputs: Outputs = {}
    for stride in strides:
        rows = (SIDE // stride) ** 2 * anchors
        outputs[f"score{stride}"] = scores(seed + stride, rows)
        outputs[f"bbox{stride}"] = noise(seed + stride + 1, rows, 4) * 3
        if points:
            outputs[f"kps{stride}"] = noise(seed + stride + 2, rows, 10) * 4 - 2
    return outputs


def read_scrfd(outputs: Outputs, strides: tuple[int, ...], anchors: int) -> Iterator[slow.Detection]:
    for stride in strides:
        row = 0
        for y in range(math.ceil(SIDE / stride)):
            for x in range(math.ceil(SIDE / stride)):
                for _ in range(anchors):
                    left, top, right, bottom = (float(side) * stride for side in outputs[f"bbox{stride}"][row])
                    cx, cy = x * stride, y * stride
                    steps = outputs.get(f"kps{stride}", np.zeros((row + 1, 0)))[row].tolist()
                    points = [step * stride + (cx if place % 2 == 0 else cy) for place, step in enumerate(steps)]
                    box = (cx - left, cy - top, cx + right, cy + bottom)
                    yield slow.Detection(box, float(outputs[f"score{stride}"][row, 0]), 0, tuple(points))
                    row += 1


def yunet(seed: int) -> Outputs:
    outputs: Outputs = {}
    for place, (kind, columns) in enumerate({"cls": 1, "obj": 1, "bbox": 4, "kps": 10}.items()):
        for stride in (8, 16, 32):
            rows = (SIDE // stride) ** 2
            values = noise(seed + 100 * place + stride, rows, columns)
            outputs[f"{kind}_{stride}"] = values**2 * 1.2 - 0.1 if columns == 1 else values * 2 - 0.5
    return outputs


def read_yunet(outputs: Outputs) -> Iterator[slow.Detection]:
    for stride in (8, 16, 32):
        for row in range((SIDE // stride) ** 2):
            y, x = divmod(row, SIDE // stride)
            values = {kind: outputs[f"{kind}_{stride}"][row].tolist() for kind in ("cls", "obj", "bbox", "kps")}
            score = math.sqrt(slow.clip(values["cls"][0], 1.0) * slow.clip(values["obj"][0], 1.0))
            dx, dy, width, height = values["bbox"]
            box = slow.corners(
                (x + dx) * stride, (y + dy) * stride, math.exp(width) * stride, math.exp(height) * stride
            )
            points = [(step + (x if place % 2 == 0 else y)) * stride for place, step in enumerate(values["kps"])]
            yield slow.Detection(box, score, 0, tuple(points))


def anchors(seed: int, columns: int, points: slice) -> Outputs:
    table = noise(seed, 3 * CELLS, columns)
    table[:, :2] *= SIDE
    table[:, 2:4] = 4 + 20 * table[:, 2:4]
    table[:, 4] **= 4
    table[:, points] *= SIDE
    return {"output": table}


def yolov5_face(seed: int) -> Outputs:
    return anchors(seed, 16, slice(5, 15))


def read_yolov5_face(outputs: Outputs) -> Iterator[slow.Detection]:
    for row in outputs["output"].astype(float).tolist():
        yield slow.Detection(slow.corners(*row[:4]), row[4] * row[15], 0, tuple(row[5:15]))


def yolov7_pose(seed: int, points: int) -> Outputs:
    outputs = anchors(seed, 6 + 3 * points, slice(6, None))
    outputs["output"][:, 8::3] /= SIDE  # the confidences
    return outputs


def read_yolov7_pose(outputs: Outputs) -> Iterator[slow.Detection]:
    for row in outputs["output"].astype(float).tolist():
        yield slow.Detection(slow.corners(*row[:4]), row[4] * row[5], 0, tuple(row[6:]))


FIVE = ((8, 16, 32, 64, 128), 1)
CASES: dict[str, tuple[str, str, Outputs, list[slow.Detection], int]] = {}
for _seed in (0, 40):
    for _name, _outputs, _read in (
        ("scrfd", scrfd(_seed), read_scrfd(scrfd(_seed), (8, 16, 32), 2)),
        ("scrfd of five strides", scrfd(_seed, *FIVE), read_scrfd(scrfd(_seed, *FIVE), *FIVE)),
        ("yunet", yunet(_seed), read_yunet(yunet(_seed))),
        ("yolov5-face", yolov5_face(_seed), read_yolov5_face(yolov5_face(_seed))),
    ):
        CASES[f"{_name} {_seed}"] = (_name.split()[0], "face", _outputs, list(_read), 2)
    for _points, _what in ((5, "face"), (17, "person")):
        _outputs = yolov7_pose(_seed, _points)
        CASES[f"yolov7-pose {_what} {_seed}"] = ("yolov7-pose", _what, _outputs, list(read_yolov7_pose(_outputs)), 3)


@pytest.mark.parametrize("case", CASES)
def test_boxes_and_points_are_those_read_slowly(tmp_path: Path, case: str) -> None:
    family, name, outputs, detections, numbers = CASES[case]
    spec = describe("m", saved(model(outputs), tmp_path))
    assert (spec.family, spec.task, spec.names) == (family, "keypoints", (name,))
    options = {"confidence": 0.3, "iou": 0.4}
    chosen = type("Options", (), {**options, "class_filter": None, "max_candidates": 3000, "class_agnostic": False})
    found = slow.in_picture(slow.suppressed(slow.cut(iter(detections), chosen), chosen), (SIDE, SIDE))
    assert len(found) >= 3
    answer = answer_of(spec, FRAME, **options)
    np.testing.assert_allclose(answer["scores"], [detection.score for detection in found], atol=1e-5)
    np.testing.assert_allclose(answer["boxes"], [detection.box for detection in found], atol=1e-3)
    points = np.array([detection.extra for detection in found]).reshape(len(found), -1, numbers)
    np.testing.assert_allclose(answer["keypoints"][:, :, :2], points[:, :, :2].clip(0, SIDE), atol=1e-3)
    np.testing.assert_allclose(answer["keypoints"][:, :, 2], points[:, :, 2] if numbers == 3 else 1.0, atol=1e-5)


@pytest.mark.parametrize("family", ["scrfd", "yunet", "yolov5-face"])
def test_points_may_be_left_out(tmp_path: Path, family: str) -> None:
    outputs = next(outputs for known, _, outputs, _, _ in CASES.values() if known == family)
    path = saved(model(outputs), tmp_path)
    whole, boxes = describe("m", path), describe("m", path, {"family": family, "task": "detect"})
    assert boxes.task == "detect"
    np.testing.assert_array_equal(answer_of(boxes, FRAME)["boxes"], answer_of(whole, FRAME)["boxes"])
    assert "keypoints" not in answer_of(boxes, FRAME)


def test_scrfd_without_points_is_a_detector(tmp_path: Path) -> None:
    outputs = scrfd(0, points=False)
    spec = describe("m", saved(model(outputs), tmp_path))
    assert (spec.family, spec.task) == ("scrfd", "detect")
    assert len(answer_of(spec, FRAME, confidence=0.3)["boxes"]) >= 3


def test_outputs_without_a_batch_are_those_of_one_job(tmp_path: Path) -> None:
    """InsightFace's own exports."""
    spec = describe("m", saved(model(scrfd(0), 1), tmp_path))
    assert (spec.family, spec.batch) == ("scrfd", 1)
    assert spec.preprocess["pad"] == 0


def test_eleven_classes_are_no_face(tmp_path: Path) -> None:
    table = noise(0, 3 * CELLS, 16)
    table[:, :4] *= SIDE
    assert describe("m", saved(model({"output": table}), tmp_path)).family == "yolov5"
    overrides = {"names": [f"n{number}" for number in range(11)]}
    assert describe("m", saved(model(yolov5_face(0)), tmp_path), overrides).family != "yolov5-face"
