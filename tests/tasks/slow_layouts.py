"""Detections read the slow and plain way, in float64, one box at a time: what the fast code is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Outputs = Mapping[str, npt.NDArray[Any]]


class Detection(NamedTuple):
    """One object in row pixels."""

    box: tuple[float, ...]  # xyxy; of rotated boxes: cx, cy, w, h
    score: float
    number: int  # of the class
    extra: tuple[float, ...] = ()


def corners(cx: float, cy: float, w: float, h: float) -> tuple[float, float, float, float]:
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def best_class(scores: list[float]) -> int:
    return max(range(len(scores)), key=lambda number: (scores[number], -number))


def yolov8(outputs: Outputs, size: tuple[int, int], extra: int = 0, rotated: bool = False) -> Iterator[Detection]:
    for column in outputs["output0"].T.astype(float).tolist():
        end = len(column) - extra
        number = best_class(column[4:end])
        box = tuple(column[:4]) if rotated else corners(*column[:4])
        yield Detection(box, column[4 + number], number, tuple(column[end:]))


def yolov5(outputs: Outputs, size: tuple[int, int], extra: int = 0) -> Iterator[Detection]:
    for row in outputs["output0"].astype(float).tolist():
        end = len(row) - extra
        scores = [row[4] * score for score in row[5:end]]
        number = best_class(scores)
        yield Detection(corners(*row[:4]), scores[number], number, tuple(row[end:]))


def yolox(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    rows = iter(outputs["output0"].astype(float).tolist())
    for stride in (8, 16, 32):
        for y in range(size[1] // stride):
            for x in range(size[0] // stride):
                row = next(rows)
                number = best_class(row[5:])
                centre = (row[0] + x) * stride, (row[1] + y) * stride
                box = corners(*centre, math.exp(row[2]) * stride, math.exp(row[3]) * stride)
                yield Detection(box, row[4] * row[5 + number], number)


def end2end(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for row in outputs["output0"].astype(float).tolist():
        yield Detection(tuple(row[:4]), row[4], int(row[5]), tuple(row[6:]))


def scaled(box: list[float], size: tuple[int, int]) -> tuple[float, ...]:
    cx, cy, w, h = box
    return corners(cx * size[0], cy * size[1], w * size[0], h * size[1])


def rtdetr_ultralytics(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for row in outputs["output0"].astype(float).tolist():
        number = best_class(row[4:])
        yield Detection(scaled(row[:4], size), row[4 + number], number)


def rtdetr_ultralytics_end2end(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for row in outputs["output0"].astype(float).tolist():
        yield Detection(scaled(row[:4], size), row[4], int(row[5]))


def rtdetr(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for label, box, score in zip(outputs["labels"], outputs["boxes"], outputs["scores"], strict=True):
        yield Detection(tuple(box.astype(float)), float(score), int(label))


def rfdetr(outputs: Outputs, size: tuple[int, int], background: int | None = None) -> Iterator[Detection]:
    for box, logits in zip(outputs["dets"].astype(float), outputs["labels"].astype(float), strict=True):
        for number, logit in enumerate(logits):
            if number != background:
                yield Detection(scaled(list(box), size), 1 / (1 + math.exp(-logit)), number)


def detr(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for box, logits in zip(outputs["pred_boxes"].astype(float), outputs["logits"].astype(float), strict=True):
        total = sum(math.exp(logit) for logit in logits)
        scores = [math.exp(logit) / total for logit in logits][:-1]
        number = best_class(scores)
        yield Detection(scaled(list(box), size), scores[number], number)


def efficient_nms(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for place in range(int(outputs["num_dets"][0])):
        box = tuple(outputs["det_boxes"][place].astype(float).tolist())
        yield Detection(box, float(outputs["det_scores"][place]), int(outputs["det_classes"][place]))


def mmdeploy(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for row, label in zip(outputs["dets"].astype(float).tolist(), outputs["labels"].tolist(), strict=True):
        if label >= 0:
            yield Detection(tuple(row[:4]), row[4], label)


def paddle_detection(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for label, score, *box in outputs["output0"].astype(float).tolist():
        if label >= 0:
            yield Detection(tuple(box), score, int(label))


def numbered(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for _, x1, y1, x2, y2, label, score in outputs["output0"].astype(float).tolist():
        yield Detection((x1, y1, x2, y2), score, int(label))


def tensorflow_detection(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    names = ("detection_boxes", "detection_scores", "detection_classes")
    for box, score, label in zip(*(outputs[name].astype(float).tolist() for name in names), strict=True):
        top, left, bottom, right = box
        yield Detection((left * size[0], top * size[1], right * size[0], bottom * size[1]), score, int(label) - 1)


def torchvision(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    rows = zip(outputs["boxes"].astype(float).tolist(), outputs["scores"].tolist(), outputs["labels"], strict=True)
    for box, score, label in rows:
        yield Detection(tuple(box), score, int(label))


def rtdetr_hf(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for box, logits in zip(outputs["pred_boxes"].astype(float), outputs["logits"].astype(float), strict=True):
        for number, logit in enumerate(logits):
            yield Detection(scaled(list(box), size), 1 / (1 + math.exp(-logit)), number)


def boxes_scores(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for box, scores in zip(outputs["boxes"].astype(float).tolist(), outputs["scores"].tolist(), strict=True):
        number = best_class(scores)
        yield Detection(tuple(box), scores[number], number)


def ultraface(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for (left, top, right, bottom), scores in zip(outputs["boxes"].tolist(), outputs["scores"].tolist(), strict=True):
        number = best_class(scores[1:])
        box = (left * size[0], top * size[1], right * size[0], bottom * size[1])
        yield Detection(box, scores[1 + number], number)


def nanodet(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    table = outputs["output"].astype(float).tolist()
    strides = (8, 16, 32) if len(table) == 12 * 8 + 6 * 4 + 3 * 2 else (8, 16, 32, 64)
    rows = iter(table)
    for stride in strides:
        for y in range(math.ceil(size[1] / stride)):
            for x in range(math.ceil(size[0] / stride)):
                row = next(rows)
                number = best_class(row[:-32])
                sides = [mean_of(row[len(row) - 32 + 8 * side :][:8]) * stride for side in range(4)]
                middle = 0.5 if len(strides) == 3 else 0.0
                cx, cy = (x + middle) * stride, (y + middle) * stride
                yield Detection((cx - sides[0], cy - sides[1], cx + sides[2], cy + sides[3]), row[number], number)


def picodet(outputs: Outputs, size: tuple[int, int]) -> Iterator[Detection]:
    for stride in (8, 16, 32):
        tables = (outputs[f"{name}_{stride}"].astype(float).tolist() for name in ("score", "side"))
        rows = zip(*tables, strict=True)
        for y in range(math.ceil(size[1] / stride)):
            for x in range(math.ceil(size[0] / stride)):
                scores, logits = next(rows)
                number = best_class(scores)
                left, top, right, bottom = (mean_of(logits[8 * side :][:8]) * stride for side in range(4))
                cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                yield Detection((cx - left, cy - top, cx + right, cy + bottom), scores[number], number)


def mean_of(logits: list[float]) -> float:
    """Of the distribution over 0, 1, 2, ... that the logits stand for."""
    powers = [math.exp(logit) for logit in logits]
    return sum(place * power for place, power in enumerate(powers)) / sum(powers)


def iou(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0 or area(first) <= 0 or area(second) <= 0:
        return 0.0
    return width * height / (area(first) + area(second) - width * height)


def area(box: tuple[float, ...]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


Overlap = Callable[[Detection, Detection], float]


def box_overlap(first: Detection, second: Detection) -> float:
    return iou(first.box, second.box)


def cut(detections: Iterator[Detection], options: Any) -> list[Detection]:
    """Above the confidence, of wanted classes, best first."""
    confidence = float(np.float32(options.confidence))
    found = [detection for detection in detections if detection.score > confidence]
    if options.class_filter is not None:
        found = [detection for detection in found if detection.number in options.class_filter]
    return sorted(found, key=lambda detection: -detection.score)[: options.max_candidates]


def in_picture(found: list[Detection], size: tuple[float, float]) -> list[Detection]:
    """Boxes cut off at a picture of that size (width, height); those beside it are left out."""
    inside = []
    for detection in found:
        left, top, right, bottom = detection.box
        if right > 0 and bottom > 0 and left < size[0] and top < size[1]:
            box = (clip(left, size[0]), clip(top, size[1]), clip(right, size[0]), clip(bottom, size[1]))
            inside.append(detection._replace(box=box))
    return inside


def clip(value: float, most: float) -> float:
    return min(max(value, 0.0), most)


def suppressed(found: list[Detection], options: Any, overlap: Overlap = box_overlap) -> list[Detection]:
    kept: list[Detection] = []
    for detection in found:
        rivals = [other for other in kept if options.class_agnostic or other.number == detection.number]
        if all(overlap(other, detection) <= options.iou for other in rivals):
            kept.append(detection)
    return kept


def suppressed_at_once(found: list[Detection], options: Any, overlap: Overlap) -> list[Detection]:
    """Every better box suppresses, also one that is suppressed itself."""
    return [
        detection
        for place, detection in enumerate(found)
        if not any(
            overlap(other, detection) >= options.iou
            for other in found[:place]
            if options.class_agnostic or other.number == detection.number
        )
    ]
