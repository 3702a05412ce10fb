"""`Runner.run_parallel`: a list of inputs on several workers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from parallel_infer import Runner
from parallel_infer.errors import BadInput, ConfigError, DeadlineExceeded, Dropped, InferError
from parallel_infer.runner.parallel_run import split_threads
from tests.inference import session_models as models

FOREVER = models.endless_inputs(go=True)
AT_ONCE = models.endless_inputs(go=False)


def rows(value: float, batch: int = 1) -> dict[str, np.ndarray]:
    return {"x": np.full((batch, 8), value, np.float32)}


def runner(model: bytes, threads: int = 2) -> Runner:
    return Runner(model, provider="cpu", threads=threads)


@pytest.mark.parametrize(
    ("inputs", "budget", "workers", "taken"),
    [
        (1, 8, None, (1, 8)),  # one big input: all threads
        (100, 8, None, (8, 1)),  # many inputs: one thread each
        (3, 8, None, (3, 2)),
        (100, 8, 2, (2, 4)),  # overridden
        (2, 8, 6, (2, 4)),  # more workers than inputs are no use
        (100, 2, 5, (5, 1)),
        (0, 8, None, (1, 8)),
    ],
)
def test_threads_are_split_by_how_many_inputs_there_are(inputs, budget, workers, taken):
    assert split_threads(inputs, budget, workers) == taken


def test_workers_below_one_are_refused():
    with runner(models.identity()) as identity, pytest.raises(ConfigError, match="workers = 0"):
        identity.run_parallel([rows(1)], workers=0)


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_outputs_come_in_the_order_of_the_inputs(workers):
    with runner(models.identity()) as identity:
        outputs = identity.run_parallel([rows(value, 1 + value % 3) for value in range(50)], workers)
    for value, output in enumerate(outputs):
        assert not isinstance(output, InferError)
        np.testing.assert_array_equal(output["y"], np.full((1 + value % 3, 8), value))


def test_no_inputs_no_outputs():
    with runner(models.identity()) as identity:
        assert identity.run_parallel([]) == []


def test_one_bad_input_does_not_lose_the_others():
    with runner(models.identity()) as identity:
        outputs = identity.run_parallel([rows(1), {"x": np.zeros(3)}, rows(3), {}, rows(5), None])  # type: ignore[list-item]
    assert [type(output) for output in outputs] == [dict, BadInput, dict, BadInput, dict, BadInput]


def test_an_input_that_takes_too_long_is_an_error_in_its_place():
    with runner(models.endless()) as endless:
        outputs = endless.run_parallel([AT_ONCE, FOREVER, AT_ONCE, FOREVER, AT_ONCE], timeout=0.2)
    assert [type(output) for output in outputs] == [dict, DeadlineExceeded, dict, DeadlineExceeded, dict]
    assert "input 1 took longer than timeout = 0.2 s" in str(outputs[1])


def test_a_worker_whose_input_was_given_up_takes_the_next():
    with runner(models.endless()) as endless:
        outputs = endless.run_parallel([FOREVER, FOREVER, AT_ONCE], workers=1, timeout=0.1)
    assert [type(output) for output in outputs] == [DeadlineExceeded, DeadlineExceeded, dict]


def test_closing_the_runner_ends_a_list():
    started = threading.Event()

    class Telling(dict):  # type: ignore[type-arg]
        def __contains__(self, key: object) -> bool:
            started.set()
            return super().__contains__(key)

    endless = runner(models.endless())
    with ThreadPoolExecutor(1) as pool:
        listing = pool.submit(endless.run_parallel, [Telling(FOREVER), AT_ONCE, FOREVER], 1, None)
        assert started.wait(20)
        endless.close()
        assert [type(output) for output in listing.result(20)] == [Dropped, Dropped, Dropped]


def test_threads_are_gone_soon_after():
    before = set(threading.enumerate())
    with runner(models.endless()) as endless:
        endless.run_parallel([FOREVER] * 3, timeout=0.05)
    for thread in set(threading.enumerate()) - before:
        thread.join(20)
    assert set(threading.enumerate()) <= before


def test_the_session_for_many_inputs_is_loaded_once(monkeypatch: pytest.MonkeyPatch):
    loaded = models.recorded_sessions(monkeypatch)
    with runner(models.identity()) as identity:
        identity.run_parallel([rows(1)])
        assert [config.threads for config in loaded] == [2]  # one input runs on the session that is there
        identity.run_parallel([rows(1)] * 4)
        identity.run_parallel([rows(1)] * 9)
        assert [config.threads for config in loaded] == [2, 1]
