"""Small models that do what a test needs: take long, fail on one row, demand a batch size, take two inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TABLE = 8  # entries that `work` looks things up in
WIDE = 256  # elements of the inputs of `pair`


def _constant(name: str, values: object, dtype: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def _saved(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())
    return path


def work(path: Path) -> Path:
    """x float32 [batch, 3] = (steps of work, value, index) -> value [batch, 1], found [batch, 1].

    The batch takes as long as its row with the most steps; an index outside the table fails at run time.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["matrix", "weights"], ["matrix_out"]),
        ],
        "step",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix", TensorProto.FLOAT, [96, 96]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("matrix_out", TensorProto.FLOAT, [96, 96]),
        ],
        [numpy_helper.from_array(np.eye(96, dtype=np.float32)[::-1].copy(), "weights")],
    )
    nodes = [
        helper.make_node("Split", ["x", "thirds"], ["steps", "value_in", "index"], axis=1),
        helper.make_node("ReduceMax", ["steps"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["times"], to=TensorProto.INT64),
        helper.make_node("Loop", ["times", "yes", "start"], ["worked"], body=body),
        helper.make_node("ReduceMin", ["worked"], ["nothing"], keepdims=0),
        helper.make_node("Add", ["value_in", "nothing"], ["value"]),
        helper.make_node("Cast", ["index"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["found"]),
    ]
    graph = helper.make_graph(
        nodes,
        "work",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 1]) for name in ("value", "found")],
        [
            _constant("thirds", [1, 1, 1], np.int64),
            _constant("yes", True, np.bool_),
            _constant("start", np.zeros((96, 96)), np.float32),
            _constant("table", np.arange(TABLE) * 10, np.float32),
        ],
    )
    return _saved(graph, path)


def pair(path: Path) -> Path:
    """a, b float32 [batch, WIDE] -> sum, difference float32 [batch, WIDE]."""
    dims = ["batch", WIDE]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
        "pair",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("a", "b")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name in ("sum", "difference")],
    )
    return _saved(graph, path)


def fixed(path: Path) -> Path:
    """x float32 [4, 3] -> y = 2 x; takes exactly four."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "fixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])],
    )
    return _saved(graph, path)


def large(path: Path, elements: int = 1 << 18) -> Path:
    """x float32 [batch, 1] -> y float32 [batch, elements], all x: a small question with a large answer."""
    graph = helper.make_graph(
        [helper.make_node("Expand", ["x", "shape"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", elements])],
        [_constant("shape", [1, elements], np.int64)],
    )
    return _saved(graph, path)


def job(*, steps: float = 0, value: float = 0, index: float = 0) -> np.ndarray:
    """One row of `work`."""
    return np.array([steps, value, index], np.float32)
