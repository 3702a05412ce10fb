"""Small graphs for chains, whose answers depend on the pixels: a reader of lines, and one that tells colours apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.families.tiny_graphs import CELLS, finished, tiny

Frame = npt.NDArray[np.uint8]
STEPS, STEP, HEIGHT = 16, 8, 32  # of the reader: steps along a line, pixels of a step, pixels of a line
LINE = (HEIGHT, STEPS * STEP)  # height and width that a line is read in


def finder(path: Path, rows: Sequence[Sequence[float]], task: str = "detect") -> Path:
    """Finds the same in every picture of 64 x 64: rows of centre, width, height, score (and angle) in YOLOv8's way."""
    table = np.zeros((len(rows[0]), CELLS), np.float32)
    table[:, : len(rows)] = np.array(rows, np.float32).T
    return _written(tiny({"output0": table}, metadata={"task": task, "names": "{0: 'plate'}"}), path)


def reader(path: Path) -> Path:
    """Reads digits: each step is a gray of `written`, and black between two characters."""
    levels = np.arange(11, dtype=np.float32) / 10  # class 0 is the blank
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["gray"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["gray"], ["pooled"], kernel_shape=[HEIGHT, STEP], strides=[HEIGHT, STEP]),
        helper.make_node("Reshape", ["pooled", "steps"], ["level"]),
        helper.make_node("Sub", ["level", "levels"], ["off"]),
        helper.make_node("Mul", ["off", "off"], ["squared"]),
        helper.make_node("Mul", ["squared", "sharpness"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["output"], axis=-1),
    ]
    constants = {
        "steps": np.array([-1, STEPS, 1], np.int64),
        "levels": levels,
        "sharpness": np.array(-2000, np.float32),
    }
    metadata = {"task": "text", "names": str(list("0123456789"))}
    return _graph(nodes, constants, LINE, ["batch", STEPS, 11], metadata, path)


def colors(path: Path) -> Path:
    """An embedding: the mean of each channel over a gray ground, which has length 1 in the answer."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Sub", ["means", "half"], ["output"]),
    ]
    return _graph(nodes, {"half": np.array(0.4, np.float32)}, (16, 16), ["batch", 3], {"task": "embedding"}, path)


def blobs(path: Path, side: float) -> Path:
    """Finds the red and the blue square of `side` pixels in pictures of 64 x 64, as one class; less where one hides."""
    across = np.broadcast_to(np.arange(64, dtype=np.float32) + 0.5, (64, 64))
    weights = np.zeros((2, 3, 1, 1), np.float32)
    weights[0, :, 0, 0], weights[1, :, 0, 0] = (2, -1, -1), (-1, -1, 2)
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["redness"]),
        helper.make_node("Sub", ["redness", "one"], ["over"]),
        helper.make_node("Clip", ["over", "zero", "one"], ["mask"]),
        helper.make_node("ReduceSum", ["mask", "plane"], ["area"], keepdims=0),
        helper.make_node("Max", ["area", "one"], ["some"]),
        helper.make_node("Mul", ["mask", "across"], ["weighted_x"]),
        helper.make_node("Mul", ["mask", "down"], ["weighted_y"]),
        helper.make_node("ReduceSum", ["weighted_x", "plane"], ["sum_x"], keepdims=0),
        helper.make_node("ReduceSum", ["weighted_y", "plane"], ["sum_y"], keepdims=0),
        helper.make_node("Div", ["sum_x", "some"], ["x"]),
        helper.make_node("Div", ["sum_y", "some"], ["y"]),
        helper.make_node("Mul", ["area", "nothing"], ["none"]),
        helper.make_node("Add", ["none", "side"], ["size"]),
        helper.make_node("Mul", ["area", "share"], ["score"]),
        *(helper.make_node("Unsqueeze", [name, "axis"], [f"{name}_row"]) for name in ("x", "y", "size", "score")),
        helper.make_node("Concat", ["x_row", "y_row", "size_row", "size_row", "score_row"], ["table"], axis=1),
        helper.make_node("Pad", ["table", "pads"], ["output"]),
    ]
    numbers = {"one": 1, "zero": 0, "nothing": 0, "side": side, "share": 0.9 / side**2}
    constants = {
        "weights": weights,
        "across": across,
        "down": np.ascontiguousarray(across.T),
        **{name: np.array(number, np.float32) for name, number in numbers.items()},
        "plane": np.array([2, 3], np.int64),
        "axis": np.array([1], np.int64),
        "pads": np.array([0, 0, 0, 0, 0, CELLS - 2], np.int64),
    }
    metadata = {"task": "detect", "names": "{0: 'square'}"}
    return _graph(nodes, constants, (64, 64), ["batch", 5, CELLS], metadata, path)


def written(digits: str) -> Frame:
    """A line as `reader` reads it, uint8 [32, 128, 3]."""
    steps = np.zeros(STEPS)
    for number, digit in enumerate(digits):
        steps[3 * number + 1 : 3 * number + 3] = (int(digit) + 1) / 10
    gray = np.repeat(steps * 255, STEP).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(gray[None, :, None], (*LINE, 3)))


def turned(line: Frame, degrees: float, size: int) -> Frame:
    """The line about the middle of a black picture of size x size, clockwise by so many degrees."""
    whole = np.zeros((size, size, 3), np.uint8)
    top, left = (size - line.shape[0]) // 2, (size - line.shape[1]) // 2
    whole[top : top + line.shape[0], left : left + line.shape[1]] = line
    matrix = cv2.getRotationMatrix2D((size / 2 - 0.5, size / 2 - 0.5), -degrees, 1.0)
    return np.asarray(cv2.warpAffine(whole, matrix, (size, size)), np.uint8)


def _graph(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, npt.NDArray[np.generic]],
    size: tuple[int, int],
    output: Sequence[int | str],
    metadata: dict[str, str],
    path: Path,
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "chain",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, *size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(output))],
        [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in constants.items()],
    )
    return _written(finished(graph, metadata), path)


def _written(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path
