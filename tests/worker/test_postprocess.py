"""A postprocess worker on real sockets: what comes from other workers, and what is not begun any more."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from parallel_infer.ipc.channel import AnswerInlet, Hello, PeerLinks, Router, Watch, new_context
from parallel_infer.ipc.messages import (
    Answered,
    AnswerFormat,
    ModelAdded,
    PostJob,
    PostLease,
    Postprocessed,
    Recall,
    Recalled,
    Register,
    StopWorker,
    ToDispatcher,
    ToGateway,
    WorkerReady,
)
from parallel_infer.model_spec import TensorSpec
from parallel_infer.process.options import PostprocessOptions
from parallel_infer.shm.ring import Ring, RingSpec
from parallel_infer.worker.postprocess import PostprocessWorker
from tests.dispatcher.core_rig import plan

EPOCH = 3


def lease(number: int, epoch: int = EPOCH) -> PostLease:
    """A batch of one, whose job has the number of the lease."""
    job = PostJob(number, 0, (1.0, 1.0, 1.0, 1.0, 0.0, 0.0), b"\x80", AnswerFormat.ARRAYS, (0.0, 0.0, 0.0, 0.0))
    return PostLease((epoch << 40) + number, "m", 0, 1, 0.0, {}, (job,))


class Wires:
    """A worker in a thread; this test is its dispatcher, its gateway and the worker before it."""

    def __init__(self, folder: Path) -> None:
        self.context = new_context()
        self.dispatcher: Router[ToDispatcher] = Router(self.context, f"ipc://{folder}/dispatcher", ToDispatcher)
        self.answers: AnswerInlet[ToGateway] = AnswerInlet(self.context, f"ipc://{folder}/answers", ToGateway)
        self.peers = PeerLinks(self.context)
        self._watch = Watch()
        self._watch.add(self.answers.socket)
        self._answered: list[ToGateway] = []
        self._heard: list[object] = []
        self.name = b"postprocess-0.2"
        child: Any = SimpleNamespace(name=self.name.decode(), tell=lambda message: None)
        options = PostprocessOptions(
            log_format="text",
            log_level="error",
            dispatcher=f"ipc://{folder}/dispatcher",
            answers=f"ipc://{folder}/answers",
            stage="stages.postprocess:Postprocess",
        )
        self.worker = PostprocessWorker(child, options)
        self._thread = threading.Thread(target=self._live)
        self._thread.start()
        assert isinstance(self.hear(), Hello)
        self.say(Register(EPOCH))
        ready = self.hear()
        assert isinstance(ready, WorkerReady)
        self.address = ready.address

    def _live(self) -> None:
        self.worker.run_forever()
        self.worker.close()

    def say(self, message: object) -> None:
        self.dispatcher.send(self.name, message)
        self.dispatcher.flush()

    def hear(self) -> object:
        """The next that the worker says to its dispatcher."""
        if not self._heard:
            self._heard += [message for _, message in self.dispatcher.receive(30.0)]
        return self._heard.pop(0)

    def answered(self) -> int:
        """The job of the next answer."""
        while not self._answered:
            assert self._watch.wait(30.0)
            self._answered += [message for message, _ in self.answers.drain()]
        message = self._answered.pop(0)
        assert isinstance(message, Answered)
        return message.job

    def close(self) -> None:
        self.say(StopWorker(0.0))
        self._thread.join(30)
        self.peers.close()
        self.answers.close()
        self.dispatcher.close()
        self.context.term()


@pytest.fixture
def model() -> Iterator[ModelAdded]:
    outputs = RingSpec(f"pinfer-test-{secrets.token_hex(4)}", 2, (TensorSpec("x", "float32", (1, 1)),))
    ring = Ring.create(outputs)
    yield ModelAdded(replace(plan(), outputs=outputs))
    ring.close()
    ring.unlink()


@pytest.fixture
def wires(tmp_path: Path) -> Iterator[Wires]:
    (tmp_path / "postprocess-0.1").touch()  # the socket of a predecessor that was killed
    wires = Wires(tmp_path)
    assert not (tmp_path / "postprocess-0.1").exists()
    yield wires
    wires.close()


def test_a_lease_comes_from_another_worker(wires, model):
    wires.say(model)
    wires.peers.send(wires.address, lease(7))
    assert wires.answered() == 7
    assert isinstance(done := wires.hear(), Postprocessed)
    assert done.lease == lease(7).lease


def test_a_lease_that_overtakes_its_model_waits_for_it(wires, model):
    wires.peers.send(wires.address, lease(7))
    wires.peers.send(wires.address, lease(8))
    wires.say(model)
    assert {wires.answered(), wires.answered()} == {7, 8}


def test_a_recalled_lease_is_not_begun(wires, model):
    wires.say(model)
    wires.say(Recall(lease(7).lease))
    assert wires.hear() == Recalled(lease(7).lease)
    wires.peers.send(wires.address, lease(7))
    wires.peers.send(wires.address, lease(8))
    assert wires.answered() == 8


def test_a_lease_of_an_earlier_dispatcher_is_not_begun(wires, model):
    wires.say(model)
    wires.peers.send(wires.address, lease(7, EPOCH - 1))
    wires.peers.send(wires.address, lease(8))
    assert wires.answered() == 8


def test_what_was_done_is_said_before_it_is_recalled(wires, model):
    wires.say(model)
    wires.peers.send(wires.address, lease(7))
    assert wires.answered() == 7
    wires.say(Recall(lease(7).lease))
    heard = [wires.hear(), wires.hear()]
    assert isinstance(heard[0], Postprocessed)
    assert heard[1] == Recalled(lease(7).lease)


def test_who_is_gone_keeps_nobody_waiting(tmp_path):
    context = new_context()
    inlet: AnswerInlet[PostLease] = AnswerInlet(context, f"ipc://{tmp_path}/a", PostLease)
    watch, peers = Watch(), PeerLinks(context, most=1)
    watch.add(inlet.socket)
    peers.send(f"ipc://{tmp_path}/a", lease(1))
    assert watch.wait(30.0)
    assert [message for message, _ in inlet.drain()] == [lease(1)]
    inlet.close()
    for number in range(3):
        peers.send(f"ipc://{tmp_path}/a", lease(number))
        peers.send(f"ipc://{tmp_path}/nobody", lease(number))
    peers.close()
    context.term()
