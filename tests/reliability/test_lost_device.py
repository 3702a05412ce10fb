"""A device that fails takes its instances down, not the server: what it was working on is computed by others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parallel_infer import Client
from parallel_infer.tools.local_server import local_server
from tests.inference import session_models as models

FAILING = """
import sys
from importlib.machinery import PathFinder


class Failing(PathFinder):
    '''Every tenth batch of an infer worker is one whose device has failed.'''

    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target) if name == "stages.infer" else None
        if spec is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: (execute(module), fail(module.Infer))
        return spec


def fail(stage):
    begin, begun = stage.begin, []

    def begin_and_fail(self, *batch):
        from parallel_infer.errors import DeviceLost

        under_way = begin(self, *batch)
        begun.append(1)
        if len(begun) == 10:
            under_way.error = DeviceLost("gpu 7 has failed: CUDA: an illegal memory access was encountered")
        return under_way

    stage.begin = begin_and_fail


sys.meta_path.insert(0, Failing)
"""


@pytest.mark.slow
def test_every_job_is_answered_though_the_device_of_each_instance_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAILING)
    (tmp_path / "m.onnx").write_bytes(models.identity())
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asked = [{"x": np.full(8, number, np.float32)} for number in range(60)]
    options = ("--model", f"m={tmp_path}/m.onnx", "--provider", "cpu", "--instances", "2", "--max-batch-size", "1")
    with (
        (tmp_path / "log").open("w") as log,
        local_server(*options, "--no-trial", stderr=log) as server,
        Client(server.address) as client,
    ):
        answers = client.infer_many("m", asked, in_flight=8)
    assert [answer.tensors["y"].tolist() for answer in answers] == [job["x"].tolist() for job in asked]
    said = (tmp_path / "log").read_text()
    assert "died (gpu 7 has failed: CUDA: an illegal memory access was encountered); starting it again" in said
