"""An infer worker on real sockets whose device computes beside its copies."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from parallel_infer.errors import DeviceLost
from parallel_infer.ipc.channel import Hello, Router, new_context
from parallel_infer.ipc.messages import (
    AnswerFormat,
    InferLease,
    Inferred,
    Onward,
    PostJob,
    PostLease,
    Register,
    StopWorker,
    ToDispatcher,
    WorkerReady,
)
from parallel_infer.model_spec import TensorSpec
from parallel_infer.process.options import InferOptions
from parallel_infer.shm.ring import Ring, RingSpec
from parallel_infer.worker.infer import InferWorker
from tests.dispatcher.core_rig import plan
from tests.worker.held_device import Stage


class Wires:
    """A worker in a thread; this test is its dispatcher."""

    def __init__(self, folder: Path) -> None:
        self.context = new_context()
        self.dispatcher: Router[ToDispatcher] = Router(self.context, f"ipc://{folder}/d", ToDispatcher)
        run = secrets.token_hex(4)
        tensor = (TensorSpec("x", "float32", (1,)),)
        specs = [RingSpec(f"pi-test-{run}-{name}", 8, tensor) for name in ("rows", "outputs")]
        self.rings = [Ring.create(spec) for spec in specs]
        child: Any = SimpleNamespace(name="infer-0.1", tell=lambda message: None)
        options = InferOptions(
            log_format="text",
            log_level="error",
            dispatcher=f"ipc://{folder}/d",
            stage="tests.worker.held_device:Stage",
            plan=replace(plan(), rows=specs[0], outputs=specs[1]),
        )
        self.worker = InferWorker(child, options)
        self.last_words = 0.0  # seconds that it has to say what it still has to say
        self.died: list[Exception] = []
        self._heard: list[object] = []
        self.thread = threading.Thread(target=self._live)
        self.thread.start()
        assert isinstance(self.hear(), Hello)
        self.say(Register(1))
        ready = self.hear()
        assert isinstance(ready, WorkerReady)
        assert ready.at_once == 2

    def _live(self) -> None:
        try:
            self.worker.run_forever()
        except DeviceLost as error:
            self.died.append(error)
        self.worker.close()

    def say(self, *messages: object) -> None:
        for message in messages:
            self.dispatcher.send(b"infer-0.1", message)
        self.dispatcher.flush()

    def hear(self) -> object:
        """The next that the worker says."""
        while not self._heard:
            self._heard += [message for _, message in self.dispatcher.receive(30.0)]
        return self._heard.pop(0)

    def close(self) -> None:
        for batch in list(Stage.begun.values()):
            batch.over.set()
        self.say(StopWorker(time.monotonic() + self.last_words))
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.dispatcher.close()
        self.context.term()
        for ring in self.rings:
            ring.close()
            ring.unlink()


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Wires]:
    made = Wires(tmp_path)
    yield made
    Stage.broken = -1
    made.close()


def lease(slot: int, alone: bool = False) -> InferLease:
    return InferLease(slot, (slot,), slot, alone)


def test_a_batch_is_begun_while_the_one_before_is_under_way_but_no_third(wires: Wires) -> None:
    wires.say(lease(0))
    first = Stage.await_begun(0)
    wires.say(lease(1), lease(2))
    second = Stage.await_begun(1)
    assert 2 not in Stage.begun
    first.over.set()
    told = wires.hear()
    assert isinstance(told, Inferred)
    assert told.lease == 0
    third = Stage.await_begun(2)
    second.over.set()
    third.over.set()
    assert [getattr(wires.hear(), "lease", None) for _ in range(2)] == [1, 2]


def test_the_time_of_a_batch_is_without_the_one_before_it(wires: Wires) -> None:
    wires.say(lease(0), lease(1))
    first, second = (Stage.await_begun(slot) for slot in (0, 1))
    first.over.set()
    one = wires.hear()
    between = time.monotonic()
    second.over.set()
    two = wires.hear()
    assert isinstance(one, Inferred)
    assert isinstance(two, Inferred)
    assert two.started == one.started + one.seconds  # not when it was begun
    assert two.started + two.seconds >= between


def test_all_else_waits_until_nothing_is_under_way(wires: Wires) -> None:
    wires.say(lease(0), lease(1))
    batches = [Stage.await_begun(slot) for slot in (0, 1)]
    wires.say(Register(2), lease(2))
    for batch in batches:
        batch.over.set()
    assert [getattr(wires.hear(), "lease", None) for _ in range(2)] == [0, 1]
    assert isinstance(wires.hear(), WorkerReady)  # it holds nothing now
    Stage.await_begun(2).over.set()
    assert getattr(wires.hear(), "lease", None) == 2


def test_a_batch_that_is_alone_is_run_without_another_thread(wires: Wires) -> None:
    wires.say(lease(3, alone=True))
    assert getattr(wires.hear(), "lease", None) == 3
    assert not Stage.begun


def test_who_was_handed_a_job_and_is_dead_holds_up_no_stop(wires: Wires, tmp_path: Path) -> None:
    job = PostJob(1, 0, (1.0, 1.0, 1.0, 1.0, 0.0, 0.0), b"", AnswerFormat.ARRAYS, (0.0, 0.0))
    onward = Onward(f"ipc://{tmp_path}/nobody", PostLease(9, "m", 3, 1, 0.0, {}, (job,)), 0.0)
    wires.say(replace(lease(3, alone=True), onward=onward))
    assert getattr(wires.hear(), "lease", None) == 3
    wires.last_words = 3600.0


def test_a_lost_device_ends_the_worker(wires: Wires) -> None:
    Stage.broken = 1
    wires.say(lease(0), lease(1))
    for slot in (0, 1):
        Stage.await_begun(slot).over.set()
    assert getattr(wires.hear(), "lease", None) == 0  # what was over before is told
    wires.thread.join(30)
    assert [str(error) for error in wires.died] == ["gpu 0 has failed"]
