"""The infer stage with batches under way at once, on a host that plays the GPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from parallel_infer.config.sources import load_config
from parallel_infer.errors import DeviceLost, InferError
from parallel_infer.inference import session as session_module
from parallel_infer.inference.engines.cuda import CudaEngine
from parallel_infer.inference.providers import Choice
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.supervisor.plan import make_plan
from stages.infer import Infer
from tests.inference import session_models as models
from tests.inference.host_cuda import HostRuntime, host_engine


class Bench:
    """A stage of y = a + b, rows of three numbers, and the GPU under it."""

    def __init__(self, plan: ModelPlan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runtime = HostRuntime()
        self.engines: list[CudaEngine] = []
        monkeypatch.setattr(session_module, "choose", lambda config, machine: Choice("cuda", "fp32", "gpu 0"))
        monkeypatch.setattr(session_module, "CudaEngine", self._engine)
        self.rows = np.random.default_rng(1).random((12, 3), dtype=np.float32)
        self.slots = np.full((4, 4, 3), -1, np.float32)
        rows = {"a": self.rows, "b": self.rows.copy()}
        self.stage = Infer(plan, SimpleNamespace(arrays=rows), SimpleNamespace(arrays={"y": self.slots}))
        self.stage.warm_up()

    def _engine(self, model: bytes, config: object, choice: object) -> CudaEngine:
        self.engines.append(host_engine(model, self.runtime, batches=(1, 2, 4)))
        return self.engines[-1]

    def check(self, rows: tuple[int, ...], slot: int) -> None:
        np.testing.assert_allclose(self.slots[slot, : len(rows)], self.rows[list(rows)] * 2, rtol=1e-6)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ModelPlan:
    path = tmp_path_factory.mktemp("model") / "sum.onnx"
    path.write_bytes(models.addition())
    told = {"models": [f"m={path}"], "max_batch_size": 4, "instances": 1, "provider": "cuda"}
    (made,) = make_plan(load_config(told, None, {})).models
    return made


@pytest.fixture
def bench(plan: ModelPlan, monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(plan, monkeypatch)


def test_batches_under_way_do_not_share_memory_though_their_rows_are_gathered(bench: Bench) -> None:
    assert bench.stage.at_once == 2
    batches = [((0, 2, 5), 0), ((7, 1), 1), ((3, 4), 2), ((11, 0, 6, 9), 3)]
    (first, *others), begun = batches, []
    begun.append(bench.stage.begin(*first))
    for rows, slot in others:
        begun.append(bench.stage.begin(rows, slot))
        begun[-2].wait()
        assert begun[-2].finish().failed == ()
    begun[-1].wait()
    assert begun[-1].finish().gathered == 4
    for rows, slot in batches:
        bench.check(rows, slot)


def test_every_size_was_recorded_for_every_buffer_set_before_serving(bench: Bench) -> None:
    (engine,) = bench.engines
    engine.session.graphs.clear()
    before = set(bench.runtime.targets)
    for count in (1, 2, 3, 4):
        for _ in range(2):
            bench.stage.run(tuple(range(count)), 0)
    assert bench.runtime.targets == before
    assert len(engine.session.graphs) == 8  # each run is a run, none a comparison


def test_rows_of_a_batch_that_fails_are_run_one_by_one_beside_the_next_batch(bench: Bench) -> None:
    first = bench.stage.begin((0, 1), 0)
    bench.runtime.broken = "to host"
    first.wait()
    second = bench.stage.begin((2, 3), 1)
    assert first.finish().failed == ()
    second.wait()
    assert second.finish().failed == ()
    bench.check((0, 1), 0)
    bench.check((2, 3), 1)


def test_a_row_that_fails_is_named(bench: Bench) -> None:
    bench.runtime.broken = "to host"
    (failed,) = bench.stage.run((0,), 0).failed
    assert (failed.index, failed.text) == (0, "CUDA: no copy to host")


def test_a_lost_device_is_nothing_that_other_rows_could_help(bench: Bench) -> None:
    bench.runtime.lost = True
    bench.runtime.broken = "to host"
    begun = bench.stage.begin((0, 1), 0)
    begun.wait()
    with pytest.raises(DeviceLost, match="gpu 0 has failed: CUDA: no copy to host"):
        begun.finish()
    assert issubclass(DeviceLost, InferError)
