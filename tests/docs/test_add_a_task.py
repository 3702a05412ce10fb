"""The steps of docs/models.md for a task of one's own, walked: in a copy of the packages, with a real server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.docs.copied import blocks, copy_packages, run_client

CLIENT = """
import sys
import numpy as np
from parallel_infer import Client
from parallel_infer.tools.local_server import local_server

with local_server("--config", sys.argv[1]) as server, Client(server.address, timeout=30.0) as client:
    frame = np.zeros((40, 30, 3), np.uint8)
    frame[..., 2] = 200
    answer = client.infer("look", frame)
    print(answer.task, *answer.arrays["count"].tolist())
"""
CONFIG = '[models.look]\npath = "look.onnx"\ntask = "count"\nresize = "stretch"\n'


def write_model(path: Path) -> None:
    """Write a model that gives the mean of each colour channel, float32 [batch, 3]."""
    picture = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, 8, 8])
    means = helper.make_tensor_value_info("means", TensorProto.FLOAT, ["batch", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["means"]),
    ]
    graph = helper.make_graph(nodes, "means", [picture], [means])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def test_a_task_of_ones_own_is_one_file_and_one_name(tmp_path: Path) -> None:
    code, line = blocks("Add a task in one file")
    copy_packages(tmp_path)
    (tmp_path / "stages" / "tasks" / "count.py").write_text(code)
    pipeline = tmp_path / "stages" / "pipeline.py"
    pipeline.write_text(pipeline.read_text().replace("TASKS = {\n", f"TASKS = {{\n{line}"))
    write_model(tmp_path / "look.onnx")

    task, count = run_client(tmp_path, CLIENT, CONFIG)

    assert task == "count"
    np.testing.assert_allclose(float(count), 200 / 255, atol=1e-6)
