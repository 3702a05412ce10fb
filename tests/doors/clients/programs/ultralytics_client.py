"""Ultralytics with models on a server: ultralytics_client.py HTTP GRPC PICTURES. Prints what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO

HTTP, GRPC, PICTURES = sys.argv[1], sys.argv[2], Path(sys.argv[3])
SQUARE = np.zeros((64, 64, 3), np.uint8)
# Square, for Ultralytics pads what is not, and the shipped detector wants it stretched.
ASTRONAUT, CHELSEA = (str(PICTURES / name) for name in ("astronaut.png", "chelsea.png"))


def detect(base: str) -> Any:
    model = YOLO(f"{base}/detector", task="detect", verbose=False)
    results = model([ASTRONAUT, ASTRONAUT], verbose=False, conf=0.4)
    return [[found["name"] for found in result.summary()] for result in results]


def segment(base: str) -> Any:
    (result,) = YOLO(f"{base}/segmenter", task="segment", verbose=False)(ASTRONAUT, verbose=False, conf=0.4)
    return [[found["name"] for found in result.summary()], list(result.masks.data.shape)]


def classify(base: str) -> Any:
    (result,) = YOLO(f"{base}/classifier", task="classify", verbose=False)(CHELSEA, verbose=False)
    return [result.names[result.probs.top1], float(result.probs.top1conf)]


def pose(base: str) -> Any:
    (result,) = YOLO(f"{base}/people", task="pose", verbose=False)(SQUARE, verbose=False)
    return [result.boxes.xyxy.tolist(), result.keypoints.data.tolist()]


def rotated(base: str) -> Any:
    (result,) = YOLO(f"{base}/ships", task="obb", verbose=False)(SQUARE, verbose=False)
    return [result.obb.xywhr.tolist(), [result.names[int(kind)] for kind in result.obb.cls]]


TASKS = (detect, segment, classify, pose, rotated)
print(json.dumps({base: [task(base) for task in TASKS] for base in (f"http://{HTTP}", f"grpc://{GRPC}")}))
