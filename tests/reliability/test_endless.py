"""A model that never comes back: the job is answered, the worker is replaced, and other models do not notice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from parallel_infer import Client
from parallel_infer.errors import DeadlineExceeded, Poison
from parallel_infer.tools.local_server import local_server
from tests.engine.serving import eventually


def endless(path: Path) -> Path:
    """y = x [batch, 1], doubled for ever where x is a million."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["goes_on"]), helper.make_node("Add", ["v", "v"], ["v_next"])],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, ["batch", 1]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_next", TensorProto.FLOAT, ["batch", 1]),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "bound"], ["going"]),
        helper.make_node("Loop", ["turns", "going", "x"], ["y"], body=body),
    ]
    constants = [
        numpy_helper.from_array(np.array(999_999.0, np.float32), "bound"),
        numpy_helper.from_array(np.array(2**62, np.int64), "turns"),
    ]
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])
    graph = helper.make_graph(nodes, "endless", [given], [answer], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def row(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 1), value, np.float32)}


def test_a_run_without_end_is_stopped_and_the_others_serve_on(tmp_path, pictures):
    model = endless(tmp_path / "endless.onnx")
    options = ["--model", f"endless={model}", "--model", "classifier=zoo:classifier", "--provider", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARALLEL_INFER_STAGE_LIMIT_MS", "500")
        with local_server(*options) as server, Client(server.address, timeout=60) as client:
            stuck = client.submit("endless", row(1e6))
            late = client.submit("endless", row(2e6), timeout=0.3)
            for answer in client.infer_many("classifier", [pictures / "coffee.png"] * 8):
                assert len(answer.names) > 0
            assert isinstance(late.exception(60), DeadlineExceeded)
            assert isinstance(stuck.exception(60), Poison)
            eventually(lambda: client.status()["processes"]["infer-endless-0"]["state"] == "up")
            np.testing.assert_array_equal(client.infer("endless", row(-1.0)).tensors["y"], [-1.0])
