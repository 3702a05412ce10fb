"""What the options of a session do, and that a server's configuration reaches the session."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from parallel_infer.config.sources import load_config
from parallel_infer.inference.options import ArenaStrategy, GraphOptimization, SessionConfig
from parallel_infer.inference.session import Session
from parallel_infer.supervisor.plan import make_plan
from stages.infer import session_config
from tests.inference import session_models as models

WIDE = 64 << 20  # bytes of an intermediate tensor
RESIDENT = """
import sys, psutil, numpy as np
from parallel_infer.inference.session import Session
from parallel_infer.inference.options import SessionConfig
session = Session(sys.argv[1], SessionConfig(provider="cpu", threads=1, cpu_arena=sys.argv[2] == "on"))
before = psutil.Process().memory_info().rss
session.run({"x": np.ones(1, np.float32)})
print(psutil.Process().memory_info().rss - before)
"""


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """x plus a sum of constants that can be computed when the model is loaded."""
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("Add", ["one", "one"], ["two"]),
        helper.make_node("Add", ["two", "two"], ["four"]),
        helper.make_node("Add", ["x", "four"], ["y"]),
    ]
    return saved(tmp_path / "chain.onnx", nodes, [one], [1])


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Makes a large tensor of x and sums it up."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [WIDE // 4])
    nodes = [
        helper.make_node("Expand", ["x", "shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["y"], keepdims=0),
    ]
    return saved(tmp_path / "wide.onnx", nodes, [shape], [])


def saved(path: Path, nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto], shape: list[int]) -> Path:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "g", [given], [answer], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def operators_run(model: Path, level: GraphOptimization, folder: Path) -> int:
    """How many operators one run computes, as the profile tells."""
    config = SessionConfig(provider="cpu", threads=1, optimization=level, profile=str(folder / level.value))
    session = Session(model, config)
    assert session.run({"x": np.ones(1, np.float32)})["y"] == 5.0
    events = json.loads(Path(session.end_profile()).read_text())
    return sum(1 for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"))


def test_optimization_computes_constants_ahead(chain: Path, tmp_path: Path):
    assert operators_run(chain, GraphOptimization.NONE, tmp_path) == 3
    assert operators_run(chain, GraphOptimization.BASIC, tmp_path) == 1
    assert operators_run(chain, GraphOptimization.ALL, tmp_path) == 1


def test_the_arena_keeps_memory_and_no_arena_gives_it_back(wide: Path):
    grown = {}
    for arena in ("on", "off"):
        command = [sys.executable, "-c", RESIDENT, str(wide), arena]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        grown[arena] = int(ran.stdout)
    assert grown["on"] > WIDE / 2
    assert grown["off"] < WIDE / 2


def test_memory_patterns_can_be_turned_off(chain: Path, monkeypatch: pytest.MonkeyPatch):
    asked = models.recorded_options(monkeypatch)
    for wanted in (True, False):
        Session(chain, SessionConfig(provider="cpu", threads=1, memory_pattern=wanted))
        assert asked[-1].enable_mem_pattern is wanted


def test_what_a_server_is_told_reaches_its_sessions(tmp_path: Path):
    told = {
        "models": ["detector=zoo:detector"],
        "provider": "cuda",
        "precision": "fp32",
        "threads": 3,
        "inter_threads": 2,
        "streams": 4,
        "optimization": "extended",
        "cpu_arena": False,
        "memory_pattern": False,
        "device": 1,
        "gpu_mem_limit_mb": 512,
        "arena_strategy": "as-requested",
        "page_locked": False,
        "cuda_graphs": False,
        "cuda_overlap": False,
        "cache": str(tmp_path / "cache"),
        "profile": str(tmp_path / "profile"),
    }
    (plan,) = make_plan(load_config(told, None, {})).models
    assert session_config(plan) == SessionConfig(
        provider="cuda",
        precision="fp32",
        threads=3,
        inter_threads=2,
        streams=4,
        batches=(1, 2, 4, 8),
        rows={"images": (416, 416, 3)},
        optimization=GraphOptimization.EXTENDED,
        cpu_arena=False,
        memory_pattern=False,
        device=1,
        gpu_mem_limit=512 << 20,
        arena_strategy=ArenaStrategy.SAME_AS_REQUESTED,
        page_locked=False,
        cuda_graphs=False,
        cuda_overlap=False,
        cache=tmp_path / "cache",
        profile=str(tmp_path / "profile" / plan.key.replace("/", "_")),
    )
    assert (tmp_path / "profile").is_dir()
