"""Loading a model and running it with arrays of its own."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from parallel_infer.errors import BadInput, ConfigError, Dropped, InferError, ModelRejected, ResourceUnavailable
from parallel_infer.inference.engines import Stop
from parallel_infer.inference.options import GraphOptimization, SessionConfig
from parallel_infer.inference.session import Session
from parallel_infer.model_spec import TensorSpec
from tests.inference import session_models as models

ONE_THREAD = SessionConfig(provider="cpu", threads=1)


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def test_a_shipped_model_tells_its_tensors_and_metadata(zoo: Path):
    session = Session(zoo / "classifier.onnx", ONE_THREAD)
    assert session.inputs == (TensorSpec("images", "float32", (3, 224, 224)),)
    assert session.outputs == (TensorSpec("probs", "float32", (1000,)),)
    assert session.batch is None
    assert session.metadata["task"] == "classify"
    assert session.describe() == "cpu fp32 (cpu)"


def test_a_fixed_batch_is_told(zoo: Path):
    assert Session(zoo / "pose.onnx", ONE_THREAD).batch == 1


def test_a_shipped_model_runs(zoo: Path):
    probabilities = Session(str(zoo / "classifier.onnx"), ONE_THREAD).run({"images": floats(2, 3, 224, 224)})["probs"]
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-4)


def test_bytes_load_like_a_file(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(models.identity())
    x = floats(3, 8)
    for model in (models.identity(), tmp_path / "m.onnx"):
        np.testing.assert_array_equal(Session(model, ONE_THREAD).run({"x": x})["y"], x)


def test_open_dimensions_are_minus_one():
    assert Session(models.identity(("batch", 3, "height", None)), ONE_THREAD).inputs[0].shape == (3, -1, -1)


def test_strided_inputs_are_taken():
    x = floats(8, 4).T
    np.testing.assert_array_equal(Session(models.identity(), ONE_THREAD).run({"x": x})["y"], x)


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, r"takes x: float32 \[batch, 8\]; it was given nothing"),
        ({"z": floats(1, 8)}, r"takes x: .* given z"),
        ({"x": floats(1, 8), "z": floats(1, 8)}, r"given x, z"),
        ({"x": floats(1, 8).astype(np.float64)}, r"float32 \[batch, 8\]; it was given float64 \[1, 8\]"),
        ({"x": floats(1, 8).astype(">f4")}, r"float32"),
        ({"x": floats(1, 7)}, r"given float32 \[1, 7\]"),
        ({"x": floats(8)}, r"given float32 \[8\]"),
        (None, "a map of x"),
        ({"x": [[1.0] * 8]}, r"a list, not a NumPy array"),
    ],
)
def test_a_wrong_input_is_told_what_was_expected(inputs, text):
    session = Session(models.identity(), ONE_THREAD)
    with pytest.raises(BadInput, match=text):
        session.run(inputs)
    with pytest.raises(BadInput, match=text):
        session.bind(inputs)


def test_inputs_that_disagree_about_a_symbol_are_refused():
    with pytest.raises(BadInput, match=r"batch is 3 here and 2"):
        Session(models.addition(), ONE_THREAD).run({"a": floats(2, 3), "b": floats(3, 3)})


def test_a_failing_run_says_why_without_positions_in_sources():
    session = Session(models.reshaped(), ONE_THREAD)
    with pytest.raises(InferError, match="cannot be reshaped") as caught:
        session.run({"x": floats(2, 8), "s": np.array([3, 5])})
    assert ".cc" not in str(caught.value)
    assert "/" not in str(caught.value)
    assert session.run({"x": floats(2, 8), "s": np.array([4, 4])})["y"].shape == (4, 4)


def test_a_run_that_asks_for_too_much_memory_is_named():
    with pytest.raises(
        ResourceUnavailable, match="memory"
    ):  # more than an address holds: less may be promised at first
        Session(models.filled(), ONE_THREAD).run({"s": np.array([2**52])})


def unknown_operator() -> bytes:
    graph = onnx.load_from_string(models.identity())
    graph.graph.node[0].op_type = "Nonsense"
    return bytes(graph.SerializeToString())


def text_input() -> bytes:
    node = helper.make_node("Identity", ["x"], ["y"])
    tensors = [helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "xy"]
    return models.model([node], tensors[:1], tensors[1:])


@pytest.mark.parametrize(
    ("model", "text"),
    [(b"junk", "parsing failed"), (unknown_operator(), "Nonsense"), (text_input(), r"x is a tensor\(string\)")],
)
def test_what_is_no_usable_model_is_rejected(model, text):
    with pytest.raises(ModelRejected, match=text):
        Session(model, ONE_THREAD)


def test_a_rejected_file_is_not_named_in_the_error(tmp_path: Path):
    file = tmp_path / "broken.onnx"
    with pytest.raises(ModelRejected, match="no model file"):
        Session(file, ONE_THREAD)
    file.write_bytes(models.identity()[:-9])
    with pytest.raises(ModelRejected) as caught:
        Session(file, ONE_THREAD)
    assert str(tmp_path) not in str(caught.value)


def test_an_endless_run_is_terminated_and_the_session_goes_on():
    session = Session(models.endless(), ONE_THREAD)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(session.run, models.endless_inputs(go=True))
        while not run.done():  # a run that has not begun is not terminated
            session.terminate()
        with pytest.raises(Dropped, match="stopped"):
            run.result()
    assert session.run(models.endless_inputs(go=False))["y"] == 1


def test_a_stop_ends_its_own_run_only():
    session = Session(models.endless(), ONE_THREAD)
    stops = [Stop(), Stop()]
    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(session.run, models.endless_inputs(go=True), stop) for stop in stops)
        stops[0].set()
        with pytest.raises(Dropped):
            first.result()
        assert not second.done()
        stops[1].set()
        with pytest.raises(Dropped):
            second.result()


def test_a_stop_that_is_set_already_prevents_the_run():
    stop = Stop()
    stop.set()
    with pytest.raises(Dropped):
        Session(models.endless(), ONE_THREAD).run(models.endless_inputs(go=True), stop)


def test_threads_run_side_by_side_without_mixing_their_data():
    session = Session(models.addition(), SessionConfig(provider="cpu", threads=2))
    wrong = []

    def add(number: int) -> None:
        a = np.full((number + 1, 3), number, np.float32)
        for _ in range(50):
            if not np.array_equal(session.run({"a": a, "b": a})["y"], a * 2):
                wrong.append(number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_no_session_spins_and_threads_are_explicit(monkeypatch: pytest.MonkeyPatch):
    config = SessionConfig(provider="cpu", threads=3, inter_threads=2, cpu_arena=False, memory_pattern=False)
    asked = models.recorded_options(monkeypatch)
    Session(models.identity(), config)
    (options,) = asked
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 2)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.inter_op.allow_spinning") == "0"
    assert not options.enable_cpu_mem_arena
    assert not options.enable_mem_pattern


def test_a_profile_is_written(tmp_path: Path):
    config = SessionConfig(provider="cpu", threads=1, profile=str(tmp_path / "p"), optimization=GraphOptimization.NONE)
    session = Session(models.identity(), config)
    session.run({"x": floats(1, 8)})
    assert "Identity" in Path(session.end_profile()).read_text()


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"provider": "gpu"}, "provider = 'gpu' is unknown; it is one of auto, cpu"),
        ({"precision": "int8"}, "precision = 'int8'"),
        ({"threads": -1}, "threads = -1"),
        ({"threads": 1.5}, "threads = 1.5"),
        ({"streams": 0}, "streams = 0"),
        ({"device": -1}, "device"),
        ({"gpu_mem_limit": 0}, "gpu_mem_limit"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(values, text):
    with pytest.raises(ConfigError, match=text):
        SessionConfig(**values)
