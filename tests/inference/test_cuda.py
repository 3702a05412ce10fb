"""Copies and graphs on CUDA. Here the host plays the GPU: what is tested is what is copied when, and what is done about
a GPU that answers wrongly. The last tests ask a real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from parallel_infer.errors import ConfigError, Dropped
from parallel_infer.inference.engines import Stop, address_of
from parallel_infer.inference.engines.cuda import CudaBoundRun
from parallel_infer.inference.engines.onnx_runtime import OrtBoundRun, OrtEngine
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import choose, survey
from parallel_infer.inference.session import Session
from tests.inference import session_models as models
from tests.inference.host_cuda import HostRuntime
from tests.inference.host_cuda import host_engine as engine


def floats(*shape: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)


def test_a_run_copies_in_runs_copies_out_and_waits_once():
    runtime = HostRuntime()
    made = engine(models.identity(), runtime)
    x, y = floats(2, 8), np.zeros((2, 8), np.float32)
    bound = made.bind({"x": x}, {"y": y}, ())
    assert isinstance(bound, CudaBoundRun)
    for start in (5, 9):
        x[:] = floats(2, 8, start=start)
        runtime.calls.clear()
        assert bound.run(Stop(), prompt=False) == []
        np.testing.assert_array_equal(y, x)
        assert runtime.calls == ["to device", "to host", "wait"]


def test_memory_on_the_gpu_stays_where_it_is_for_each_batch_size():
    runtime = HostRuntime()
    made = engine(models.addition(), runtime)
    ring, slot = floats(8, 3), np.zeros((8, 3), np.float32)
    for first, count in ((0, 2), (3, 2), (1, 3), (6, 2)):
        rows = slice(first, first + count)
        slot[:] = -1
        made.bind({"a": ring[rows], "b": ring[rows]}, {"y": slot[rows]}, ()).run(Stop(), prompt=False)
        np.testing.assert_array_equal(slot[rows], ring[rows] * 2)
        assert (np.delete(slot, range(first, first + count), 0) == -1).all()
    assert len(runtime.targets) == 4  # two inputs for each of two sizes
    # a graph of its own for each size: each run, and the first of a size once more to compare
    assert made.session.graphs == ["0", "0", "0", "1", "1", "0"]


def test_a_batch_is_filled_up_to_the_next_of_a_few_sizes():
    runtime = HostRuntime()
    made = engine(models.addition(), runtime, batches=(1, 2, 4))
    ring, slot = floats(8, 3), np.zeros((8, 3), np.float32)
    for first, count in ((0, 4), (1, 3), (3, 4), (5, 1), (2, 5)):
        rows = slice(first, first + count)
        slot[:] = -1
        made.bind({"a": ring[rows], "b": ring[rows]}, {"y": slot[rows]}, ()).run(Stop(), prompt=False)
        np.testing.assert_array_equal(slot[rows], ring[rows] * 2)
        assert (np.delete(slot, range(first, first + count), 0) == -1).all()
    assert made.session.graphs == [
        "0",
        "0",
        "0",
        "0",
        "1",
        "1",
        "2",
        "2",
    ]  # three rows are computed as four, five as five


@pytest.mark.parametrize("graphs", [False, True])
def test_onnx_runtime_waits_itself_where_it_runs_operators(graphs):
    # Without its wait it keeps what operators lend until the session ends, and then takes the process with it.
    options = engine(models.identity(), HostRuntime(), cuda_graphs=graphs).run_options(3)
    assert options.get_run_config_entry("gpu_graph_id") == "3"
    assert _entry(options, "disable_synchronize_execution_providers") == ("1" if graphs else "")


def test_without_graphs_every_batch_is_the_largest():
    runtime = HostRuntime()
    made = engine(models.addition(), runtime, batches=(1, 2, 4), cuda_graphs=False)
    rows, slot = floats(4, 3), np.zeros((4, 3), np.float32)
    for count in (4, 1, 2):
        made.bind({"a": rows[:count], "b": rows[:count]}, {"y": slot[:count]}, ()).run(Stop(), prompt=False)
        np.testing.assert_array_equal(slot[:count], rows[:count] * 2)
    assert made.session.graphs == ["0"] * 4


def test_a_model_that_cannot_be_recorded_runs_without_graphs(monkeypatch, caplog):
    begin = OrtEngine.__init__

    def refuse(engine: OrtEngine, model: bytes, config: SessionConfig, *others: Any) -> None:
        if config.cuda_graphs:
            raise RuntimeError("This session cannot use the graph capture feature as requested by the user")
        begin(engine, model, config, *others)

    monkeypatch.setattr(OrtEngine, "__init__", refuse)
    made = engine(models.identity(), HostRuntime(), batches=(1, 2))
    assert _entry(made.run_options(0), "disable_synchronize_execution_providers") == ""
    assert caplog.text.count("no CUDA graphs: this model has operators that do not run on the GPU") == 1


def test_outputs_of_unknown_size_go_the_plain_way():
    made = engine(models.three_kinds_of_output(), HostRuntime())
    x, negative = np.array([[0, 1, 0, 1]], np.float32), np.zeros((1, 4), np.float32)
    bound = made.bind({"x": x}, {"negative": negative}, ("found", "shape"))
    assert isinstance(bound, OrtBoundRun)
    found, shape = bound.run(Stop(), prompt=False)
    assert shape.tolist() == [1, 4]
    np.testing.assert_array_equal(found, np.nonzero(x))
    np.testing.assert_array_equal(negative, -x)


def test_a_gpu_that_answers_wrongly_is_left_to_onnx_runtime(caplog):
    made = engine(models.addition(), HostRuntime(spoils=True))
    x, y = floats(2, 3), np.zeros((2, 3), np.float32)
    for _ in range(2):
        bound = made.bind({"a": x, "b": x}, {"y": y}, ())
        assert isinstance(bound, OrtBoundRun)
        bound.run(Stop(), prompt=False)
        np.testing.assert_array_equal(y, x * 2)
    assert caplog.text.count("its answers differ from those of a plain run") == 1


def test_pages_are_locked_and_let_go_of():
    runtime = HostRuntime()
    made = engine(models.identity(), runtime)
    rows, outputs = floats(16, 8), floats(4, 4, 8)
    made.lock_pages([rows, outputs])
    assert runtime.locked == {address_of(rows): rows.nbytes, address_of(outputs): outputs.nbytes}
    made.close()
    assert runtime.locked == {}


def test_pages_that_cannot_be_locked_are_a_warning(caplog):
    made = engine(models.identity(), HostRuntime(refuses_to_lock=True))
    made.lock_pages([floats(16, 8), floats(4, 8)])
    assert caplog.text.count("operation not supported") == 1
    made.close()


def test_a_stop_that_is_set_prevents_the_run_and_later_ones_go_on():
    made, stop = engine(models.identity(), HostRuntime()), Stop()
    x, y = floats(1, 8), np.zeros((1, 8), np.float32)
    bound = made.bind({"x": x}, {"y": y}, ())
    stop.set()
    with pytest.raises(Dropped):
        bound.run(stop, prompt=True)
    bound.run(Stop(), prompt=True)
    np.testing.assert_array_equal(y, x)


def _entry(options: Any, name: str) -> str:
    try:
        return str(options.get_run_config_entry(name))
    except RuntimeError:
        return ""


def test_page_locking_is_asked_for_by_the_configuration(monkeypatch):
    locked: list[int] = []
    monkeypatch.setattr(OrtEngine, "lock_pages", lambda engine, arrays: locked.append(1))
    for wanted in (False, True):
        session = Session(models.identity(), SessionConfig(provider="cpu", threads=1, page_locked=wanted))
        session.lock_pages([floats(1, 8)])
        assert len(locked) == wanted


@contextmanager
def real_gpu(config: SessionConfig, model: bytes | None = None) -> Iterator[Session]:
    try:
        choose(config, survey(config))
    except ConfigError as error:
        pytest.skip(str(error))
    session = Session(model or models.addition(), config)
    yield session
    session.close()


ENDING = """
import sys
import numpy as np
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.session import Session
graphs, ending = sys.argv[2] == "True", sys.argv[3]
session = Session(sys.argv[1], SessionConfig(provider="cuda", cuda_graphs=graphs, batches=(1, 2, 4)))
(tensor,) = session.inputs
for count in (4, 3, 1, 4, 2):
    rows = np.zeros((count, *tensor.shape), tensor.dtype)
    expected = session.run({tensor.name: rows})
    found = {name: np.empty_like(array) for name, array in expected.items()}
    bound = session.bind({tensor.name: rows}, found)
    for _ in range(20):
        bound.run()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=0.02 * np.abs(expected[name]).max())
if ending == "closed":
    session.close()
if ending != "left":
    del bound, session
print("ended")
"""


@pytest.mark.gpu
@pytest.mark.parametrize("ending", ["left", "dropped", "closed"])
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("name", ["detector", "classifier"])
def test_the_process_outlives_its_session_on_a_real_gpu(name, graphs, ending, zoo):
    with real_gpu(SessionConfig(provider="cuda", cuda_graphs=graphs)):
        pass
    command = [sys.executable, "-c", ENDING, str(zoo / f"{name}.onnx"), str(graphs), ending]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "ended\n", "")


BROKEN = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry broken() { trap; }
"""
LOSING = f"""
import ctypes, os, sys
import numpy as np
from parallel_infer.errors import DeviceLost, InferError
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.session import Session
session = Session(sys.argv[1], SessionConfig(provider="cuda", batches=(1, 2)))
x = np.ones((2, 8), np.float32)
bindings = [session.bind({{"x": x}}, {{"y": np.zeros_like(x)}}, number) for number in range(2)]
for binding in bindings:
    assert (binding.run()["y"] == x).all()
driver = ctypes.CDLL("libcuda.so.1")
module, kernel = ctypes.c_void_p(), ctypes.c_void_p()
assert driver.cuModuleLoadData(ctypes.byref(module), {BROKEN!r}) == 0
assert driver.cuModuleGetFunction(ctypes.byref(kernel), module, b"broken") == 0
assert driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, None, None, None) == 0
assert driver.cuCtxSynchronize() != 0  # else a run on another stream may be done before the kernel is
for run in (bindings[0].run, lambda: bindings[1].begin()(), lambda: session.run({{"x": x}})):
    try:
        run()
    except DeviceLost as error:
        print("lost", "gpu 0 has failed" in str(error), flush=True)
    except InferError as error:
        print("not told apart:", error, flush=True)
os._exit(0)
"""


@pytest.mark.gpu
def test_a_real_gpu_that_is_lost_is_told_from_then_on(tmp_path):
    with real_gpu(SessionConfig(provider="cuda")):
        pass
    (tmp_path / "model.onnx").write_bytes(models.identity())
    command = [sys.executable, "-c", LOSING, str(tmp_path / "model.onnx")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "lost True\n" * 3), ended.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("overlap", [False, True])
def test_batches_that_overlap_on_a_real_gpu_answer_as_one_by_one(overlap, zoo):
    config = SessionConfig(provider="cuda", batches=(1, 2, 4), cuda_overlap=overlap)
    with real_gpu(config):
        session = Session(zoo / "detector.onnx", config)
    (tensor,) = session.inputs
    random, found = np.random.default_rng(1), []
    rows = [random.random((count, *tensor.shape), np.float32) for count in (4, 1, 3, 2, 4, 4, 1, 2)]
    expected = [session.run({tensor.name: array}) for array in rows]
    outputs = [{name: np.zeros_like(array) for name, array in answer.items()} for answer in expected]
    session.lock_pages([*rows, *(array for answer in outputs for array in answer.values())])
    assert session.at_once == (2 if overlap else 1)
    for number in range(2):  # graphs are recorded while nothing is under way
        for array, answer in zip(rows, outputs, strict=True):
            session.bind({tensor.name: array}, answer, number).run()
    for answer in outputs:
        for array in answer.values():
            array[:] = 0
    for _ in range(5):
        for number, (array, answer) in enumerate(zip(rows, outputs, strict=True)):
            found.append(session.bind({tensor.name: array}, answer, number % 2).begin())
            if number:
                found[-2]()
        found[-1]()
        for answer, wanted in zip(outputs, expected, strict=True):
            for name, array in answer.items():
                np.testing.assert_allclose(array, wanted[name], atol=0.02 * np.abs(wanted[name]).max())
    session.close()


@pytest.mark.gpu
def test_a_model_of_which_a_part_runs_on_the_processor_is_served_by_a_real_gpu(caplog):
    with real_gpu(SessionConfig(provider="cuda", batches=(1, 2, 4)), models.determinant()) as session:
        x = np.random.default_rng(1).random((4, 3, 3), dtype=np.float32)
        for count in (4, 1, 3):
            found = np.zeros(count, np.float32)
            session.bind({"x": x[:count]}, {"y": found}).run()
            np.testing.assert_allclose(found, np.linalg.det(x[:count] * 2), rtol=1e-3, atol=1e-4)
    assert "no CUDA graphs" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_a_real_gpu_reads_and_writes_page_locked_memory_by_itself(graphs: bool, caplog):
    with real_gpu(SessionConfig(provider="cuda", cuda_graphs=graphs)) as session:
        ring, slot = floats(8, 3), np.zeros((8, 3), np.float32)
        session.lock_pages([ring, slot])
        for start in range(6):  # a graph is recorded in the third run and repeated from then on
            ring += start
            session.bind({"a": ring[2:5], "b": ring[2:5]}, {"y": slot[2:5]}).run()
            np.testing.assert_array_equal(slot[2:5], ring[2:5] * 2)
        assert (slot[:2] == 0).all()
        assert not caplog.text
