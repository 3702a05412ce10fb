"""The steps of docs/models.md for a task of one's own, walked: in a copy of the packages, with a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

ROOT = Path(__file__).resolve().parents[2]

CLIENT = """
import sys
import numpy as np
from parallel_infer import Client
from parallel_infer.local_server import local_server

with local_server("--config", sys.argv[1]) as server, Client(server.address, timeout=30.0) as client:
    frame = np.zeros((40, 30, 3), np.uint8)
    frame[..., 2] = 200
    answer = client.infer("look", frame)
    print(answer.task, *answer.arrays["embedding"].tolist())
"""


def steps() -> tuple[str, str]:
    """The file and the line that the document tells the reader to write."""
    section = (ROOT / "docs" / "models.md").read_text().split("## Add a task in one file")[1]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return blocks[0], blocks[1]


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
    code, line = steps()
    for package in ("parallel_infer", "stages"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("*.onnx", "__pycache__"))
    (tmp_path / "stages" / "tasks" / "embed.py").write_text(code)
    pipeline = tmp_path / "stages" / "pipeline.py"
    pipeline.write_text(pipeline.read_text().replace("TASKS = {\n", f"TASKS = {{\n{line}"))
    write_model(tmp_path / "look.onnx")
    (tmp_path / "server.toml").write_text('[models.look]\npath = "look.onnx"\ntask = "embed"\nresize = "stretch"\n')
    (tmp_path / "client.py").write_text(CLIENT)

    ran = subprocess.run(
        [sys.executable, "client.py", "server.toml"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    task, *vector = ran.stdout.split()
    assert task == "embed"
    np.testing.assert_allclose([float(number) for number in vector], [1.0, 0.0, 0.0], atol=1e-6)
