"""Models of a few nodes, made as they are needed, for tests of whatever loads and runs models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import NodeProto, TensorProto, ValueInfoProto, helper
from onnx.helper import make_node as node
from onnx.helper import make_tensor_value_info as tensor

from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.ort import ort
from parallel_infer.inference.session import Session

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Shape = Sequence[int | str | None]


def model(nodes: list[NodeProto], inputs: list[ValueInfoProto], outputs: list[ValueInfoProto]) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def identity(shape: Shape = ("batch", 8), dtype: int = FLOAT) -> bytes:
    """Y = x."""
    return model([node("Identity", ["x"], ["y"])], [tensor("x", dtype, shape)], [tensor("y", dtype, shape)])


def addition() -> bytes:
    """Y = a + b, both [batch, 3]."""
    inputs = [tensor("a", FLOAT, ["batch", 3]), tensor("b", FLOAT, ["batch", 3])]
    return model([node("Add", ["a", "b"], ["y"])], inputs, [tensor("y", FLOAT, ["batch", 3])])


def nonzero() -> bytes:
    """Y = where x [batch, 4] is not 0: [2, found], whose size only the run tells."""
    return model(
        [node("NonZero", ["x"], ["y"])], [tensor("x", FLOAT, ["batch", 4])], [tensor("y", INT64, [2, "found"])]
    )


def wrong_about_its_batch() -> bytes:
    """Y = -x [batch, 4], declared as [1, 4], as some exporters do."""
    return model([node("Neg", ["x"], ["y"])], [tensor("x", FLOAT, ["batch", 4])], [tensor("y", FLOAT, [1, 4])])


def three_kinds_of_output() -> bytes:
    """From x [batch, 4]: its negative, where it is not 0 (of unknown size), and its shape."""
    nodes = [node("NonZero", ["x"], ["found"]), node("Neg", ["x"], ["negative"]), node("Shape", ["x"], ["shape"])]
    outputs = [
        tensor("found", INT64, [2, "found"]),
        tensor("negative", FLOAT, ["batch", 4]),
        tensor("shape", INT64, [2]),
    ]
    return model(nodes, [tensor("x", FLOAT, ["batch", 4])], outputs)


def filled() -> bytes:
    """Y = zeros of the shape asked for, however large."""
    return model([node("ConstantOfShape", ["s"], ["y"])], [tensor("s", INT64, [1])], [tensor("y", FLOAT, ["n"])])


def determinant() -> bytes:
    """Y = the determinant of 2 x, [batch, 3, 3]: an operator that ONNX Runtime computes on the processor only."""
    nodes = [node("Add", ["x", "x"], ["d"]), node("Det", ["d"], ["y"])]
    return model(nodes, [tensor("x", FLOAT, ["batch", 3, 3])], [tensor("y", FLOAT, ["batch"])])


def reshaped() -> bytes:
    """Y = x [batch, 8] in the shape asked for; fails where the elements do not fit."""
    inputs = [tensor("x", FLOAT, ["batch", 8]), tensor("s", INT64, [2])]
    return model([node("Reshape", ["x", "s"], ["y"])], inputs, [tensor("y", FLOAT, ["rows", "columns"])])


def endless() -> bytes:
    """Y = x, doubled as long as `go` is true: a run that ends only when it is stopped."""
    body = helper.make_graph(
        [node("Identity", ["go_in"], ["go_out"]), node("Add", ["v_in", "v_in"], ["v_out"])],
        "body",
        [tensor("i", INT64, []), tensor("go_in", BOOL, []), tensor("v_in", FLOAT, [1])],
        [tensor("go_out", BOOL, []), tensor("v_out", FLOAT, [1])],
    )
    loop = node("Loop", ["", "go", "x"], ["y"], body=body)
    return model([loop], [tensor("x", FLOAT, [1]), tensor("go", BOOL, [])], [tensor("y", FLOAT, [1])])


def endless_inputs(go: bool) -> dict[str, np.ndarray]:
    """Inputs of `endless`."""
    return {"x": np.ones(1, np.float32), "go": np.array(go)}


def recorded_sessions(monkeypatch: pytest.MonkeyPatch) -> list[SessionConfig]:
    """The configurations of the sessions that runners load from now on."""
    loaded: list[SessionConfig] = []

    def load(model: str | bytes, config: SessionConfig) -> Session:
        loaded.append(config)
        return Session(model, config)

    monkeypatch.setattr("parallel_infer.runner.runner.Session", load)
    return loaded


def recorded_options(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options of the sessions that ONNX Runtime is asked for from now on."""
    asked: list[Any] = []
    original = ort.InferenceSession

    def load(model: str | bytes, options: Any, *more: Any, **named: Any) -> Any:
        asked.append(options)
        return original(model, options, *more, **named)

    monkeypatch.setattr(ort, "InferenceSession", load)
    return asked
