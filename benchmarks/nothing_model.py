"""Models that do nothing, so that only the pipeline is measured."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def write_nothing_model(path: Path, size: int) -> None:
    """Write a model that takes uint8 [batch, size] and answers its first byte, uint8 [batch, 1]."""
    picture = helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", size])
    answer = helper.make_tensor_value_info("y", TensorProto.UINT8, ["batch", 1])
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value])
        for name, value in (("starts", 0), ("ends", 1), ("axes", 1))
    ]
    node = helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"])
    graph = helper.make_graph([node], "nothing", [picture], [answer], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
