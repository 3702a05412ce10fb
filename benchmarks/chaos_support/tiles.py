"""A chain whose answers carry their pictures: each object's vector tells which pixels of which picture were cut out.

The first model finds the sixteen squares of any picture; the second gives the pixels of a square back as its vector.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.chaos_support.payloads import Verdict
from parallel_infer import Answer
from parallel_infer.errors import InferError

SIDE, SQUARE = 64, 16  # pixels of the picture and of a square
NEAR = 1e-3  # of a vector of length 1: float32 is 10000 times as exact, other squares are 100 times as far
Frame = npt.NDArray[np.uint8]


def write_models(folder: Path) -> list[str]:
    """Write both; the options of `serve` for them and the chain, which is called "squares"."""
    finder, echo = folder / "finder.onnx", folder / "echo.onnx"
    _write(finder, _finder_nodes(), SIDE, ["batch", 16, 6], [_boxes(), _number("nothing", 0.0)])
    _write(echo, _echo_nodes(), SQUARE, ["batch", SQUARE * SQUARE * 3], [])
    config = folder / "server.toml"
    config.write_text(
        f'[chain.squares]\nsteps = "finder(confidence=0.1) > echo"\n'
        f'[models.finder]\npath = "{finder}"\nfamily = "end2end"\ntask = "detect"\nresize = "stretch"\n'
        f'[models.echo]\npath = "{echo}"\ntask = "embedding"\nresize = "stretch"\nmean = 0\nstd = 1\n'
        'color = "rgb"\n'
    )
    return ["--config", str(config)]


class Squares:
    """The frame of each job number, uint8 [64, 64, 3]: no two jobs have a square in common."""

    def __init__(self, seed: int = 1) -> None:
        self._seed = seed

    def make(self, number: int) -> Frame:
        """The frame of a job."""
        return np.random.default_rng((self._seed, number)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)

    def judge(self, number: int, answer: Answer) -> Verdict:
        """Whether every square has its child, with the pixels that it has in this picture."""
        return _judge(self.make(number), answer)


def as_png(frame: Frame) -> bytes:
    """The same pixels as a picture that has to be decoded."""
    done, encoded = cv2.imencode(".png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    assert done
    return encoded.tobytes()


def child_error(answer: Answer) -> InferError | None:
    """The error of the first child that has one."""
    found = (child for children in answer.children for child in children.values())
    return next((child for child in found if isinstance(child, InferError)), None)


def _judge(frame: Frame, answer: Answer) -> Verdict:
    if len(answer) != 16 or len(answer.children) != 16:
        return Verdict.TORN
    for box, children in zip(answer.boxes, answer.children, strict=True):
        left, top = np.round(box[:2]).astype(int)
        child = children.get("echo")
        wanted = frame[top : top + SQUARE, left : left + SQUARE, ::-1].transpose(2, 0, 1).ravel().astype(np.float64)
        found = child.embedding if isinstance(child, Answer) else None
        if found is None or np.abs(found - wanted / np.linalg.norm(wanted)).max() > NEAR:
            return Verdict.FOREIGN
    return Verdict.RIGHT


def _finder_nodes() -> list[onnx.NodeProto]:
    """The same boxes for every picture of a batch: they are added to numbers of the batch's size, which are 0."""
    return [
        helper.make_node("ReduceMean", ["images"], ["means"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["means", "nothing"], ["zeros"]),
        helper.make_node("Squeeze", ["zeros", "last"], ["flat"]),
        helper.make_node("Add", ["flat", "boxes"], ["y"]),
    ]


def _echo_nodes() -> list[onnx.NodeProto]:
    return [helper.make_node("Flatten", ["images"], ["y"], axis=1)]


def _boxes() -> onnx.TensorProto:
    corners = [(x, y) for y in range(0, SIDE, SQUARE) for x in range(0, SIDE, SQUARE)]
    rows = [[x, y, x + SQUARE, y + SQUARE, 0.9 - 0.01 * place, 0] for place, (x, y) in enumerate(corners)]
    return numpy_helper.from_array(np.array([rows], np.float32), "boxes")


def _number(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, np.float32), name)


def _write(
    path: Path, nodes: list[onnx.NodeProto], side: int, shape: list[int | str], constants: list[onnx.TensorProto]
) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    last = numpy_helper.from_array(np.array([3], np.int64), "last")
    used = {name for node in nodes for name in node.input}
    constants = [constant for constant in (*constants, last) if constant.name in used]
    graph = helper.make_graph(nodes, path.stem, [images], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
