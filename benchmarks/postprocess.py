"""What it costs to turn the outputs of one picture into its answer, on one thread.

    python benchmarks/postprocess.py [--rounds 200]

Detection: a YOLOv8 output of 640x640 ([84, 8400]) with about 100 objects, against the way it is usually written:
transpose, maximum and argmax of everything, then OpenCV's batched suppression. Segmentation: 20 objects at 640x640,
masks decoded fast against accurate, and accurate
against the usual way. The two of each pair alternate within one run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read while NumPy is imported

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import print_header
from parallel_infer.model_spec import ModelSpec, TensorSpec
from stages.geometry import Geometry
from stages.opencv import cv2
from stages.tasks import Arrays
from stages.tasks.detect import Detect
from stages.tasks.options import DetectOptions, SegmentOptions
from stages.tasks.segment import Segment

Floats = npt.NDArray[np.float32]

SIDE = 640
CLASSES = 80
ANCHORS_PER_OBJECT = 8
COEFFICIENTS = 32
GEOMETRY = Geometry(1280, 960, 0.5, 0.5, 0.0, 80.0)


def predictions(rng: np.random.Generator, objects: int, extra: int = 0) -> Floats:
    """An output [84 + extra, 8400] with boxes in heaps of `ANCHORS_PER_OBJECT` around so many objects."""
    output = np.zeros((4 + CLASSES + extra, 8400), np.float32)
    output[:4] = rng.uniform(0, SIDE, (4, 8400))
    output[4 : 4 + CLASSES] = rng.uniform(0, 0.02, (CLASSES, 8400))
    count = objects * ANCHORS_PER_OBJECT
    places = rng.choice(8400, count, replace=False)
    centres, sizes = rng.uniform(30, SIDE - 30, (2, objects)), rng.uniform(30, 160, (2, objects))
    centres[1] = 90 + (centres[1] - 30) * (SIDE - 180) / (SIDE - 60)  # within the picture, and not in its padding
    output[:2, places] = np.repeat(centres, ANCHORS_PER_OBJECT, axis=1) + rng.normal(0, 1.5, (2, count))
    output[2:4, places] = np.repeat(sizes, ANCHORS_PER_OBJECT, axis=1) * rng.uniform(0.95, 1.05, (2, count))
    classes = np.repeat(rng.integers(0, CLASSES, objects), ANCHORS_PER_OBJECT)
    output[4 + classes, places] = rng.uniform(0.3, 0.95, count)
    coefficients = np.repeat(rng.normal(size=(extra, objects)), ANCHORS_PER_OBJECT, axis=1)
    output[4 + CLASSES :, places] = coefficients
    return output


def prototypes(rng: np.random.Generator) -> Floats:
    """Random smooth prototypes [32, 160, 160] of full rank."""
    fields = [cv2.GaussianBlur(rng.normal(size=(160, 160)), (0, 0), 4.0) for _ in range(COEFFICIENTS)]
    return np.stack(fields).astype(np.float32)


def usual(output: Floats, options: DetectOptions) -> Arrays:
    """Detection as most people write it."""
    rows = output.T
    scores = np.max(rows[:, 4:], axis=1)
    classes = np.argmax(rows[:, 4:], axis=1)
    mask = scores > options.confidence
    rows, scores, classes = rows[mask], scores[mask], classes[mask]
    boxes = rows[:, :4].copy()
    boxes[:, :2] -= boxes[:, 2:] / 2
    corners: Any = boxes
    kept = np.asarray(cv2.dnn.NMSBoxesBatched(corners, scores, classes, options.confidence, options.iou))
    kept = kept[: options.max_detections]
    boxes = boxes[kept]
    boxes[:, 2:] += boxes[:, :2]
    boxes = np.clip((boxes - np.array([0, 80, 0, 80], np.float32)) / np.float32(0.5), 0, [1280, 960, 1280, 960])
    return {"boxes": boxes, "scores": scores[kept], "classes": classes[kept]}


def usual_masks(outputs: dict[str, Floats], boxes: Floats, coefficients: Floats) -> list[Any]:
    """Accurate masks as most people write them: everything multiplied, enlarged and searched for contours."""
    masks = (coefficients @ outputs["output1"].reshape(COEFFICIENTS, -1)).reshape(-1, 160, 160)
    contours = []
    for mask, (left, top, right, bottom) in zip(masks, boxes.clip(0, SIDE).round().astype(int), strict=True):
        large = cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        bits = np.zeros((SIDE, SIDE), np.uint8)
        bits[top:bottom, left:right] = large[top:bottom, left:right] > 0
        contours.append(cv2.findContours(bits, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])
    return contours


def spec(task: str, outputs: dict[str, Floats]) -> ModelSpec:
    described = tuple(TensorSpec(name, "float32", array.shape) for name, array in outputs.items())
    names = tuple(str(number) for number in range(CLASSES))
    row = {"width": SIDE, "height": SIDE}
    return ModelSpec(
        name=task, path="", task=task, family="yolov8", names=names, inputs=(), outputs=described, preprocess=row
    )


def alternate(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds of each; they take turns, so that whatever else the machine does hits both."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, found in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            call()
            found.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def report(what: str, names: tuple[str, str], seconds: tuple[float, float], target: float | None = None) -> None:
    ratio = seconds[0] / seconds[1]
    figures = ", ".join(f"{name} {value * 1e3:.2f} ms" for name, value in zip(names, seconds, strict=True))
    aim = "" if target is None else f" (target: at most {target})"
    print(f"{what}: {figures}; ratio of medians {ratio:.2f}{aim}")


def detection(rounds: int) -> None:
    output = predictions(np.random.default_rng(0), 100)
    task = Detect(spec("detect", {"output0": output}))
    options = task.options(b"")
    ours, theirs = task.answer({"output0": output}, GEOMETRY, options), usual(output, options)
    np.testing.assert_allclose(ours["boxes"], theirs["boxes"], atol=0.01)
    np.testing.assert_array_equal(ours["classes"], theirs["classes"])
    seconds = alternate(
        lambda: task.answer({"output0": output}, GEOMETRY, options), lambda: usual(output, options), rounds
    )
    report(f"detect, [84, 8400], {len(ours['scores'])} objects", ("ours", "usual"), seconds, 0.6)


def segmentation(rounds: int) -> None:
    rng = np.random.default_rng(1)
    outputs = {"output0": predictions(rng, 20, COEFFICIENTS), "output1": prototypes(rng)}
    task = Segment(spec("segment", outputs))
    fast, accurate = (SegmentOptions(mask_decode_mode=mode) for mode in ("fast", "accurate"))
    found = len(task.answer(outputs, GEOMETRY, fast)["scores"])
    first, second = (partial(task.answer, outputs, GEOMETRY, options) for options in (fast, accurate))
    report(f"segment, {found} objects", ("fast", "accurate"), alternate(first, second, rounds), 0.5)
    boxes = task.answer(outputs, Geometry(SIDE, SIDE, 1, 1, 0, 0), fast)["boxes"]
    third = partial(usual_masks, outputs, boxes, rng.normal(size=(found, COEFFICIENTS)).astype(np.float32))
    names = ("detections and masks accurate", "usual masks alone")
    report(f"segment, {found} objects", names, alternate(second, third, rounds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(1)
    print_header()
    detection(rounds)
    segmentation(rounds)


if __name__ == "__main__":
    main()
