"""Runs that are under way at once in one CUDA session, on a host that plays the GPU and does everything as late, or as
early, as it may."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from parallel_infer.errors import DeviceLost, InferError
from parallel_infer.inference import session as session_module
from parallel_infer.inference.engines import Stop
from parallel_infer.inference.engines.cuda import CudaBoundRun
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import Choice
from parallel_infer.inference.session import Session
from tests.inference import session_models as models
from tests.inference.host_cuda import HostRuntime, HostSession, host_engine


def floats(*shape: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


class Crowd:
    """Neighbouring batches of two rows of one ring, bound to buffer sets in turns."""

    def __init__(self, runtime: HostRuntime, *, batches: int, sets: int) -> None:
        self.engine = host_engine(models.addition(), runtime, batches=(1, 2))
        self.rows, self.found = floats(2 * batches, 3), np.full((2 * batches, 3), -1, np.float32)
        self.bound = []
        for number in range(batches):
            inputs = dict.fromkeys("ab", self.rows[2 * number : 2 * number + 2])
            bound = self.engine.bind(inputs, {"y": self.found[2 * number : 2 * number + 2]}, (), number % sets)
            assert isinstance(bound, CudaBoundRun)
            self.bound.append(bound)
        runtime.calls.clear()

    def answered(self, number: int) -> bool:
        part = slice(2 * number, 2 * number + 2)
        return bool((self.found[part] == self.rows[part] * 2).all())


@pytest.fixture(params=[False, True], ids=["late", "early"])
def runtime(request) -> HostRuntime:
    return HostRuntime(early=request.param)


def test_two_runs_are_under_way_and_none_was_waited_for(runtime):
    crowd = Crowd(runtime, batches=2, sets=2)
    waits = [bound.begin() for bound in crowd.bound]
    assert runtime.calls == ["to device", "to device", "to host"] * 2
    assert (crowd.found == -1).all()
    waits[0]()
    assert crowd.answered(0)
    assert (crowd.found[2:] == -1).all()  # nobody has waited for it
    waits[1]()
    assert crowd.answered(1)
    assert runtime.calls.count("wait") == 2


@pytest.mark.parametrize("sets", [1, 2])
def test_memory_on_the_gpu_is_not_used_again_before_the_run_before_is_done_with_it(runtime, sets):
    crowd = Crowd(runtime, batches=5, sets=sets)
    waits = [bound.begin() for bound in crowd.bound]
    for wait in reversed(waits):
        wait()
    assert all(crowd.answered(number) for number in range(5))


def test_each_buffer_set_has_memory_and_a_graph_of_its_own(runtime):
    crowd = Crowd(runtime, batches=4, sets=2)
    for bound in crowd.bound:
        bound.begin()()
    assert crowd.engine.session.graphs == ["0", "1", *"0101"]
    assert len(runtime.targets) == 4  # two inputs in each of two sets


@pytest.mark.parametrize("broken", ["to device", "to host"])
def test_an_error_belongs_to_its_run(runtime, broken):
    crowd = Crowd(runtime, batches=3, sets=2)
    first = crowd.bound[0].begin()
    first()
    runtime.broken = broken
    with pytest.raises(InferError, match=f"no copy {broken}"):
        crowd.bound[1].begin()()
    crowd.bound[2].begin()()
    assert crowd.answered(0)
    assert crowd.answered(2)


def test_a_run_that_does_not_begin_leaves_the_one_before_alone(runtime):
    crowd = Crowd(runtime, batches=2, sets=2)
    first = crowd.bound[0].begin()
    crowd.engine.session.fails = True
    with pytest.raises(RuntimeError, match="this run fails"):
        crowd.bound[1].begin()
    first()
    assert crowd.answered(0)
    crowd.bound[1].begin()()
    assert crowd.answered(1)


def test_another_thread_may_wait(runtime):
    crowd = Crowd(runtime, batches=2, sets=2)
    threads = [threading.Thread(target=bound.begin()) for bound in crowd.bound]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert crowd.answered(0)
    assert crowd.answered(1)


def test_no_graph_is_recorded_while_a_run_is_under_way(runtime):
    crowd = Crowd(runtime, batches=1, sets=1)
    wait = crowd.bound[0].begin()
    x, y = floats(1, 3), np.zeros((1, 3), np.float32)
    new = crowd.engine.bind({"a": x, "b": x}, {"y": y}, ())
    assert not isinstance(new, CudaBoundRun)
    wait()
    assert crowd.answered(0)
    assert isinstance(crowd.engine.bind({"a": x, "b": x}, {"y": y}, ()), CudaBoundRun)


def test_nothing_else_runs_while_a_graph_is_recorded(runtime):
    made = host_engine(models.identity(), runtime, batches=(1,))
    x, y = floats(1, 8), np.zeros((1, 8), np.float32)
    recording, ran, seen = threading.Event(), threading.Event(), []

    class Recorder(HostSession):
        """Another thread begins a plain run while this records, which must not come to its end meanwhile."""

        def run_with_iobinding(self, binding, options):
            recording.set()
            seen.append(ran.wait(0.05))
            super().run_with_iobinding(binding, options)

    made.session = Recorder(made.session, runtime)

    def plain():
        recording.wait(30)
        made.run({"x": x}, Stop())
        ran.set()

    thread = threading.Thread(target=plain)
    thread.start()
    made.bind({"x": x}, {"y": y}, ())
    thread.join()
    assert seen == [False]


@pytest.mark.parametrize(
    ("settings", "refuses", "expected"),
    [
        ({}, False, 2),
        ({}, True, 1),
        ({"cuda_overlap": False}, False, 1),
        ({"cuda_graphs": False}, False, 1),
        ({"page_locked": False}, False, 1),
    ],
)
def test_runs_overlap_where_copies_and_runs_return_at_once(settings, refuses, expected):
    made = host_engine(models.identity(), HostRuntime(refuses_to_lock=refuses), **settings)
    made.lock_pages([floats(4, 8)])
    assert made.at_once == expected
    made.close()


def test_a_gpu_that_answers_wrongly_runs_one_batch_at_a_time(caplog):
    made = host_engine(models.identity(), HostRuntime(spoils=True))
    x = floats(1, 8)
    made.bind({"x": x}, {"y": np.zeros_like(x)}, (), 1)
    assert made.at_once == 1
    assert "its answers differ" in caplog.text


@pytest.fixture
def on_host(monkeypatch) -> HostRuntime:
    """Sessions run on this GPU."""
    runtime = HostRuntime()
    monkeypatch.setattr(session_module, "choose", lambda config, machine: Choice("cuda", "fp32", "gpu 0"))
    monkeypatch.setattr(
        session_module, "CudaEngine", lambda model, config, choice: host_engine(model, runtime, batches=config.batches)
    )
    return runtime


def test_a_session_begins_runs_and_tells_what_a_run_would(on_host):
    session = Session(models.identity(), SessionConfig(batches=(1, 2)))
    x, y = floats(2, 8), np.zeros((2, 8), np.float32)
    binding = session.bind({"x": x}, {"y": y}, buffer_set=1)
    finish = binding.begin()
    np.testing.assert_array_equal(y, 0)
    assert finish()["y"] is y
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("lost", [False, True])
def test_a_device_that_is_lost_is_told_apart_from_a_run_that_fails(on_host, lost):
    session = Session(models.identity(), SessionConfig(batches=(1, 2)))
    x = floats(2, 8)
    binding = session.bind({"x": x}, {"y": np.zeros_like(x)})
    on_host.lost = lost
    on_host.broken = "to host"
    with pytest.raises(InferError) as raised:
        binding.run()
    assert isinstance(raised.value, DeviceLost) == lost
    on_host.broken = "to host"
    finish = binding.begin()
    with pytest.raises(InferError, match="gpu 0 has failed" if lost else "no copy to host"):
        finish()


def test_what_cannot_overlap_is_over_when_it_has_begun():
    session = Session(models.identity(), SessionConfig(provider="cpu", threads=1))
    assert session.at_once == 1
    x, y = floats(2, 8), np.zeros((2, 8), np.float32)
    finish = session.bind({"x": x}, {"y": y}).begin()
    np.testing.assert_array_equal(y, x)
    assert finish()["y"] is y
