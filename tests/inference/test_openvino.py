"""OpenVINO's own runtime: what it takes, what it leaves to the CPU provider, and how its runs end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from parallel_infer.errors import ConfigError, Dropped, ModelRejected
from parallel_infer.inference.engines import Stop
from parallel_infer.inference.options import SessionConfig
from parallel_infer.inference.providers import Choice, choose, survey
from parallel_infer.inference.session import Session
from tests.engine.test_model_copies import times
from tests.inference import session_models as models

EXACT = SessionConfig(provider="openvino", precision="fp32", threads=1)


def _obstacle() -> str | None:
    try:
        return None if choose(EXACT, survey(EXACT)).direct else "ONNX Runtime reaches OpenVINO here"
    except ConfigError as error:
        return str(error)


if (obstacle := _obstacle()) is not None:
    pytest.skip(obstacle, allow_module_level=True)


openvino = pytest.importorskip("openvino")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch sizes of the graphs that OpenVINO compiles; -1 is any."""
    sizes: list[int] = []

    class Core(openvino.Core):
        def compile_model(self, graph: Any, *rest: Any) -> Any:
            batch = graph.input(0).get_partial_shape()[0]
            sizes.append(batch.get_length() if batch.is_static else -1)
            return super().compile_model(graph, *rest)

    monkeypatch.setattr(openvino, "Core", Core)
    return sizes


def only_in_onnx_runtime() -> bytes:
    """Y = |x - x|, with an operator that OpenVINO does not have."""
    node = helper.make_node("CDist", ["x", "x"], ["y"], domain="com.microsoft", metric="euclidean")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "m"]) for name in "xy")
    graph = helper.make_graph([node], "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


def long_chain(length: int = 400) -> bytes:
    """X multiplied by itself again and again: many operators, each of some milliseconds."""
    nodes = [
        helper.make_node("MatMul", ["x" if i == 0 else f"v{i}", "x"], [f"v{i + 1}" if i + 1 < length else "y"])
        for i in range(length)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "n"]) for name in "xy")
    return models.model(nodes, [x], [y])


def test_the_shipped_classifier_answers_as_on_the_cpu_provider_whatever_the_batch(zoo: Path, compiled: list[int]):
    images = np.random.default_rng(5).random((5, 3, 224, 224), dtype=np.float32)
    reference = Session(zoo / "classifier.onnx", SessionConfig(provider="cpu", threads=1))
    sized = Session(zoo / "classifier.onnx", SessionConfig(provider="openvino", precision="fp32", batches=(1, 4)))
    assert sorted(compiled) == [1, 4]
    assert sized.signature == reference.signature
    assert sized.metadata == reference.metadata
    for count in (1, 4, 5, 3):
        expected = reference.run({"images": images[:count]})["probs"]
        slot = np.full((6, 1000), -1, np.float32)
        sized.bind({"images": images[:count]}, {"probs": slot[:count]}).run()
        np.testing.assert_allclose(slot[:count], expected, atol=1e-4)
        assert (slot[count:] == -1).all()
        np.testing.assert_array_equal(sized.run({"images": images[:count]})["probs"], slot[:count])


def test_a_graph_that_leaves_more_open_is_compiled_for_the_rows_it_gets(compiled: list[int]):
    config = SessionConfig(provider="openvino", threads=1, batches=(1, 4), rows={"x": (3,)})
    session, x = Session(models.identity(("batch", "width")), config), np.ones((6, 3), np.float32)
    assert sorted(compiled) == [1, 4]
    np.testing.assert_array_equal(session.run({"x": x})["y"], x)


def test_a_session_for_single_pictures_compiles_nothing_else(zoo: Path, compiled: list[int]):
    config = SessionConfig(provider="openvino", batches=(1,))
    Session(zoo / "classifier.onnx", config)
    assert compiled == [1]


@pytest.mark.parametrize(
    "graph",
    [models.identity((4, 8)), models.identity(("batch", "width")), models.wrong_about_its_batch(), models.nonzero()],
)
def test_a_graph_that_cannot_be_compiled_by_size_still_runs(graph: bytes, compiled: list[int]):
    session = Session(graph, SessionConfig(provider="openvino", threads=1, batches=(1, 4)))
    tensors = session.signature.inputs
    inputs = {
        tensor.name: np.ones([size if isinstance(size, int) else 4 for size in tensor.dimensions], np.float32)
        for tensor in tensors
    }
    assert all(array.size for array in session.run(inputs).values())
    assert len(compiled) == 1


def test_what_openvino_cannot_load_runs_on_the_cpu_provider_unless_openvino_was_asked_for(caplog):
    model, x = only_in_onnx_runtime(), np.eye(3, dtype=np.float32)
    with pytest.raises(ModelRejected, match=r"cannot be loaded \(openvino fp32 \(cpu\)\): .*CDist"):
        Session(model, EXACT)
    session = Session(model, SessionConfig(precision="auto", threads=1))
    if not survey(SessionConfig()).has_bf16:
        pytest.skip("auto is the CPU provider on a processor without bfloat16")
    assert session.choice == Choice("cpu", "fp32", "cpu")
    assert "runs on the CPU provider instead" in caplog.text
    assert session.run({"x": x})["y"][0, 1] == pytest.approx(2**0.5)


def test_a_stop_ends_its_own_run_only_and_the_session_goes_on():
    session = Session(long_chain(), EXACT)
    large, small = np.eye(700, dtype=np.float32), np.eye(2, dtype=np.float32)
    stop = Stop()
    with ThreadPoolExecutor(2) as pool:
        stopped, other = pool.submit(session.run, {"x": large}, stop), pool.submit(session.run, {"x": small})
        stop.set()
        with pytest.raises(Dropped):
            stopped.result()
        np.testing.assert_array_equal(other.result()["y"], small)
    with pytest.raises(Dropped):
        session.run({"x": large}, stop)  # it stays set
    np.testing.assert_array_equal(session.run({"x": small})["y"], small)


def test_terminate_ends_a_run_going_on():
    session, x = Session(long_chain(), EXACT), np.eye(700, dtype=np.float32)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(session.run, {"x": x})
        while not run.done():  # a run that has not begun is not terminated
            session.terminate()
        with pytest.raises(Dropped):
            run.result()


def test_threads_run_side_by_side_without_mixing_their_data(monkeypatch: pytest.MonkeyPatch):
    requests: list[int] = []
    create = openvino.CompiledModel.create_infer_request
    monkeypatch.setattr(
        openvino.CompiledModel, "create_infer_request", lambda compiled: (requests.append(1), create(compiled))[1]
    )
    session = Session(models.addition(), SessionConfig(provider="openvino", precision="fp32", threads=2))
    wrong = []

    def add(number: int) -> None:
        a, y = np.full((number + 1, 3), number, np.float32), np.zeros((number + 1, 3), np.float32)
        for _ in range(50):
            if not np.array_equal(session.bind({"a": a, "b": a}, {"y": y}).run()["y"], a * 2):
                wrong.append(number)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(requests) <= 6  # they are used again


def test_a_failed_run_says_why_and_the_next_one_works():
    session = Session(models.reshaped(), EXACT)
    x = np.zeros((2, 8), np.float32)
    with pytest.raises(Exception, match="the model failed") as caught:
        session.run({"x": x, "s": np.array([3, 5])})
    assert ".cpp" not in str(caught.value)
    assert "/" not in str(caught.value)
    assert session.run({"x": x, "s": np.array([4, 4])})["y"].shape == (4, 4)


def test_compiled_models_are_kept_in_the_cache(zoo: Path, tmp_path: Path):
    config = SessionConfig(provider="openvino", threads=1, cache=tmp_path / "cache")
    Session(zoo / "classifier.onnx", config)
    kept = list((tmp_path / "cache").rglob("*.blob"))
    assert kept
    Session(zoo / "classifier.onnx", config)
    assert list((tmp_path / "cache").rglob("*.blob")) == kept


def test_a_cache_of_compiled_models_knows_weights_apart(tmp_path: Path):
    """Names and shapes are the same, as with a model that was trained again."""
    config = SessionConfig(provider="openvino", precision="fp32", threads=1, cache=tmp_path / "cache")
    answers = []
    for factor in (2, 3, 2):
        session = Session(times(factor).SerializeToString(), config)
        answers.append(float(session.run({"x": np.ones((1, 3), np.float32)})["y"][0, 0]))
    assert answers == [2, 3, 2]
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_nothing_is_reported_to_anybody(tmp_path: Path):
    program = (
        "import sys; told = []\n"
        "sys.addaudithook(lambda event, _: told.append(event) if event.startswith(('socket.', 'urllib.')) else None)\n"
        "from tests.inference import session_models; from parallel_infer.inference.session import Session\n"
        "from parallel_infer.inference.options import SessionConfig\n"
        "Session(session_models.identity(), SessionConfig(provider='openvino'))\n"
        "assert 'openvino' in sys.modules and not [name for name in told if name != 'socket.gethostname'], told\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not (tmp_path / "intel").exists()  # where it would count its uses
    assert not list(tmp_path.rglob("deviceid"))  # ONNX Runtime's


def test_a_profile_is_refused():
    with pytest.raises(ConfigError, match="profile"):
        Session(models.identity(), SessionConfig(provider="openvino", profile="p"))
