"""The runner: jobs in flight, what they own, how they end."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path

import numpy as np
import pytest

from parallel_infer import JobStatus, Runner
from parallel_infer.errors import BadInput, ConfigError, Dropped, InferError, ModelRejected, ResourceUnavailable
from parallel_infer.inference.options import SessionConfig
from parallel_infer.model_spec import TensorSpec
from parallel_infer.runner.runner import JobHandle
from tests.inference import session_models as models

FOREVER = models.endless_inputs(go=True)
AT_ONCE = models.endless_inputs(go=False)


def runner(model: bytes, jobs: int = 2) -> Runner:
    return Runner(model, provider="cpu", jobs=jobs, threads=1)


def pair(value: float, batch: int = 1) -> dict[str, np.ndarray]:
    return {"a": np.full((batch, 3), value, np.float32), "b": np.ones((batch, 3), np.float32)}


def test_a_shipped_model_gives_the_same_either_way(zoo: Path):
    images = np.random.default_rng(0).random((2, 3, 224, 224), dtype=np.float32)
    with Runner(zoo / "classifier.onnx", provider="cpu") as classifier:
        assert classifier.inputs == (TensorSpec("images", "float32", (3, 224, 224)),)
        assert classifier.outputs[0].name == "probs"
        assert classifier.batch is None
        assert classifier.describe() == "cpu fp32 (cpu)"
        handle = classifier.execute_async({"images": images})
        np.testing.assert_array_equal(
            classifier.result(handle)["probs"], classifier.execute({"images": images})["probs"]
        )


def test_results_belong_to_the_caller_and_inputs_may_change_at_once():
    with runner(models.addition(), jobs=1) as adder:
        inputs = pair(1)
        first = adder.execute_async(inputs)
        inputs["a"][:] = 50  # the job has its copy
        kept = adder.result(first)["y"]
        second = adder.result(adder.execute_async(inputs))["y"]
        assert (kept == 2).all()
        assert (second == 51).all()


def test_a_slot_takes_jobs_of_any_shape():
    with runner(models.addition(), jobs=1) as adder:
        for batch in (1, 5, 2, 2, 7):
            assert (adder.result(adder.execute_async(pair(batch, batch)))["y"] == np.full((batch, 3), batch + 1)).all()


def test_outputs_of_unknown_size_come_back():
    with runner(models.nonzero(), jobs=1) as finder:
        for x in ([[0, 1, 0, 1]], [[1, 1, 1, 1]], [[0, 0, 0, 0]]):
            array = np.array(x, np.float32)
            found = finder.result(finder.execute_async({"x": array}))["y"]
            np.testing.assert_array_equal(found, np.nonzero(array))


def test_outputs_whose_batch_is_declared_wrongly_come_back():
    with runner(models.wrong_about_its_batch(), jobs=1) as negative:
        for batch in (1, 3, 2):
            x = np.full((batch, 4), batch, np.float32)
            np.testing.assert_array_equal(negative.result(negative.execute_async({"x": x}))["y"], -x)


def test_when_all_jobs_are_busy_the_next_is_refused_at_once():
    with runner(models.endless()) as endless:
        handles = [endless.execute_async(FOREVER) for _ in range(2)]
        with pytest.raises(ResourceUnavailable, match="all 2 jobs are busy.*jobs"):
            endless.execute_async(AT_ONCE)
        assert endless.wait(handles[0], timeout=0) is JobStatus.PENDING
        endless.cancel(handles[0])
        assert endless.wait(handles[0]) is JobStatus.DONE
        with pytest.raises(Dropped):
            endless.result(handles[0])
        assert endless.result(endless.execute_async(AT_ONCE))["y"] == 1  # its slot is free again
        assert endless.wait(handles[1], timeout=0) is JobStatus.PENDING


def test_execute_needs_no_job_slot():
    with runner(models.endless(), jobs=1) as endless:
        endless.execute_async(FOREVER)
        assert endless.execute(AT_ONCE)["y"] == 1


def test_a_wrong_input_is_refused_at_once_and_costs_no_slot():
    with runner(models.addition(), jobs=1) as adder:
        for _ in range(3):
            with pytest.raises(BadInput, match=r"takes a: float32 \[batch, 3\]; it was given float32 \[1, 2\]"):
                adder.execute_async({**pair(1), "a": np.ones((1, 2), np.float32)})
        assert (adder.result(adder.execute_async(pair(1)))["y"] == 2).all()


def test_a_failed_job_raises_its_error_and_frees_its_slot():
    with runner(models.reshaped(), jobs=1) as reshaper:
        x = np.ones((1, 8), np.float32)
        for shape, works in (([3, 3], False), ([2, 4], True), ([5, 1], False), ([4, 2], True)):
            handle = reshaper.execute_async({"x": x, "s": np.array(shape)})
            assert reshaper.wait(handle) is JobStatus.DONE
            if works:
                assert reshaper.result(handle)["y"].shape == tuple(shape)
            else:
                with pytest.raises(InferError, match="reshaped"):
                    reshaper.result(handle)


def test_a_callback_runs_on_a_thread_of_the_runner_with_the_result_there():
    seen: list[tuple[str, JobStatus, float]] = []
    over = threading.Event()

    def callback(handle: JobHandle) -> None:
        status = adder.wait(handle, timeout=0)
        seen.append((threading.current_thread().name, status, adder.result(handle)["y"][0, 0]))
        over.set()

    with runner(models.addition()) as adder:
        adder.execute_async(pair(4), callback)
        assert over.wait(20)
    assert seen == [("runner_0", JobStatus.DONE, 5)]


def test_a_callback_is_called_for_failed_jobs_too():
    failed = threading.Event()
    with runner(models.reshaped()) as reshaper:
        inputs = {"x": np.ones((1, 8), np.float32), "s": np.array([3, 3])}
        reshaper.execute_async(inputs, lambda _: failed.set())
        assert failed.wait(20)


def test_a_chain_of_callbacks_keeps_the_only_slot_busy():
    results: list[float] = []
    over = threading.Event()

    def callback(handle: JobHandle) -> None:
        results.append(float(adder.result(handle)["y"][0, 0]))
        if len(results) == 20:
            over.set()
        else:
            adder.execute_async(pair(results[-1]), callback)

    with runner(models.addition(), jobs=1) as adder:
        adder.execute_async(pair(0), callback)
        assert over.wait(20)
    assert results == list(range(1, 21))


def test_an_error_in_a_callback_is_logged_and_harms_nothing(caplog: pytest.LogCaptureFixture):
    def callback(_: JobHandle) -> None:
        raise ValueError("from the callback")

    with caplog.at_level(logging.ERROR, "parallel_infer.runner.runner"), runner(models.addition(), jobs=1) as adder:
        handle = adder.execute_async(pair(1), callback)
        assert (adder.result(handle)["y"] == 2).all()
        assert (adder.result(adder.execute_async(pair(2)))["y"] == 3).all()  # the same thread, afterwards
    assert "from the callback" in caplog.text


def test_cancelling_a_job_that_is_done_changes_nothing():
    with runner(models.addition()) as adder:
        handle = adder.execute_async(pair(1))
        adder.wait(handle)
        adder.cancel(handle)
        assert (adder.result(handle)["y"] == 2).all()


def test_closing_ends_what_is_in_flight_and_leaves_no_thread():
    before = set(threading.enumerate())
    endless = runner(models.endless(), jobs=3)
    handles = [endless.execute_async(FOREVER) for _ in range(3)]
    endless.close()
    for handle in handles:
        assert endless.wait(handle, timeout=0) is JobStatus.DONE
        with pytest.raises(Dropped):
            endless.result(handle)
    endless.close()
    assert set(threading.enumerate()) <= before


def test_a_closed_runner_takes_nothing():
    adder = runner(models.addition())
    adder.close()
    for call in (adder.execute, adder.execute_async, lambda inputs: adder.run_parallel([inputs])):
        with pytest.raises(RuntimeError, match="closed"):
            call(pair(1))


def test_a_callback_may_close_its_runner():
    closed = threading.Event()
    adder = runner(models.addition())

    def callback(_: JobHandle) -> None:
        adder.close()
        closed.set()

    adder.execute_async(pair(1), callback)
    assert closed.wait(20)
    adder.close()


def test_results_outlive_the_runner():
    with runner(models.addition()) as adder:
        handle = adder.execute_async(pair(1))
        adder.wait(handle)
    assert (adder.result(handle)["y"] == 2).all()


def test_many_threads_share_the_slots_without_mixing_their_data():
    wrong: list[float] = []

    def client(value: int) -> None:
        for _ in range(30):
            try:
                handle = adder.execute_async(pair(value, value + 1))
            except ResourceUnavailable:
                continue
            if not (adder.result(handle)["y"] == value + 1).all():
                wrong.append(value)

    with runner(models.addition(), jobs=3) as adder:
        threads = [threading.Thread(target=client, args=(value,)) for value in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        handles = [adder.execute_async(pair(1)) for _ in range(3)]  # no slot was lost
        assert [(adder.result(handle)["y"] == 2).all() for handle in handles] == [True] * 3
    assert not wrong


def test_provider_and_threads_replace_those_of_the_configuration(monkeypatch: pytest.MonkeyPatch):
    loaded = models.recorded_sessions(monkeypatch)
    Runner(models.identity(), "cpu", threads=1, config=SessionConfig(provider="auto", threads=7, streams=3)).close()
    Runner(models.identity(), config=SessionConfig(provider="cpu", threads=1)).close()
    plain = SessionConfig(provider="cpu", threads=1)
    assert loaded == [dataclasses.replace(plain, streams=3), plain]


def test_what_cannot_work_is_refused_at_once():
    with pytest.raises(ConfigError, match="jobs = 0"):
        Runner(models.identity(), jobs=0)
    with pytest.raises(ModelRejected):
        Runner(b"junk")
