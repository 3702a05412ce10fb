"""The same model in a plain loop: decode, infer, postprocess, one request after the other, in one process.

This is what most people write first, with the very code of the stages, so that the difference to the pipeline is the
pipeline. The loop runs in a process of its own; `Synchronous` is how its parent sees it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection as Pipe
from typing import Any, TypeVar

import msgspec
import numpy as np
from msgspec import Struct

from parallel_infer.client.payload import Payload
from parallel_infer.errors import InferError
from parallel_infer.ipc.messages import AnswerFormat, ModelPlan, PayloadKind, PostJob
from parallel_infer.ipc.stages import EncodedAnswer, Stages
from parallel_infer.loading import load_by_name
from parallel_infer.shm.ring import RingSpec
from parallel_infer.tools.bench.bench_process import BenchProcess, messages
from parallel_infer.tools.bench.figures import Steps
from parallel_infer.tools.bench.payloads import Source

_KINDS = {"picture": PayloadKind.PICTURE, "frame": PayloadKind.FRAME, "tensors": PayloadKind.TENSORS}
_NO_OPTIONS = b"\x80"
_START_TIMEOUT = 300.0  # seconds, model loading included
_GRACE = 60.0  # seconds a measurement may take beyond its length

_encode = msgspec.msgpack.Encoder().encode
Reply = TypeVar("Reply")


class Subject(Struct, frozen=True):
    """What the loop runs: a model, the pictures, and the limits of decoding. `threads` are ONNX Runtime's."""

    plan: ModelPlan
    source: Source
    limits: dict[str, Any]


class LoopOrder(Struct, frozen=True, tag="loop"):
    """Loop in batches of `batch` for that many seconds, after a warm-up of the same kind."""

    batch: int
    seconds: float
    warm_up: float


class StepsOrder(Struct, frozen=True, tag="steps"):
    """Tell the processor time of each step alone, each measured for that many seconds."""

    seconds: float


class Facts(Struct, frozen=True):
    """How the loop runs its model."""

    provider: str
    on_processor: bool


class PrivateRing:
    """The arrays of a ring in ordinary memory."""

    def __init__(self, spec: RingSpec, slots: int) -> None:
        self.arrays = {tensor.name: np.zeros((slots, *tensor.shape), tensor.dtype) for tensor in spec.tensors}


class Loop:
    """Decode, infer, postprocess, by the stages' own classes."""

    def __init__(self, subject: Subject) -> None:
        stages: Stages = load_by_name("stages.inline:STAGES")
        plan = subject.plan
        self._plan = plan
        self._payloads = itertools.cycle(subject.source.payloads())
        self._rows, self._outputs = PrivateRing(plan.rows, plan.max_batch), PrivateRing(plan.outputs, 1)
        self._decode = stages.decode(subject.limits)
        self._decode.add(plan)
        self._infer = stages.infer(plan, self._rows, self._outputs)
        self._postprocess = stages.postprocess()
        self._postprocess.add(plan)

    @property
    def facts(self) -> Facts:
        return Facts(self._infer.provider, self._infer.on_processor)

    def answer(self, batch: int) -> None:
        """The next `batch` pictures, from payload to answers."""
        geometries = [self.decode(row) for row in range(batch)]
        outputs = self.infer(batch)
        for index, geometry in enumerate(geometries):
            self.postprocess(outputs, index, geometry)

    def decode(self, row: int) -> tuple[float, ...]:
        """The next picture into a row; its geometry."""
        payload: Payload = next(self._payloads)
        rows = {name: array[row, ...] for name, array in self._rows.arrays.items()}
        kind, data = _KINDS[payload.kind], memoryview(payload.data)
        return self._decode.decode(self._plan.name, kind, payload.tensors, data, _NO_OPTIONS, rows).geometry

    def infer(self, batch: int) -> dict[str, Any]:
        """The outputs [batch, ...] of the first rows. Raises InferError where the model fails."""
        ran = self._infer.run(tuple(range(batch)), 0)
        if ran.failed:
            raise InferError(ran.failed[0].text)
        return {tensor.name: self._output(tensor, ran.shapes.get(tensor.name)) for tensor in self._plan.spec.outputs}

    def postprocess(self, outputs: dict[str, Any], index: int, geometry: tuple[float, ...]) -> EncodedAnswer:
        """The answer of one picture, encoded as it would travel."""
        job = PostJob(0, index, geometry, _NO_OPTIONS, AnswerFormat.ARRAYS, ())
        return self._postprocess.answer(
            self._plan.name, {name: array[index, ...] for name, array in outputs.items()}, job
        )

    def _output(self, tensor: Any, shape: tuple[int, ...] | None) -> Any:
        array = self._outputs.arrays[tensor.name][0]
        if shape is None:
            return array
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
        return array[:size].view(tensor.dtype).reshape(shape)


class Synchronous:
    """The loop in a process of its own."""

    def __init__(self, subject: Subject) -> None:
        self._process = BenchProcess("synchronous loop", f"{__name__}:run", _encode(subject))

    def ready(self) -> Facts:
        """Wait until the model is loaded. Raises InferError where that fails."""
        return self._reply(_START_TIMEOUT, Facts)

    def per_second(self, batch: int, seconds: float, warm_up: float) -> float:
        """Pictures per second in batches of `batch`."""
        self._process.send(_encode(LoopOrder(batch, seconds, warm_up)))
        return self._reply(seconds + warm_up + _GRACE, float)

    def steps(self, seconds: float) -> Steps:
        """Processor time of each step alone."""
        self._process.send(_encode(StepsOrder(seconds)))
        return self._reply(6 * seconds + _START_TIMEOUT, Steps)

    def close(self) -> None:
        """End the process."""
        self._process.close()

    def _reply(self, patience: float, kind: type[Reply]) -> Reply:
        reply: Reply | str = msgspec.msgpack.decode(self._process.receive(patience), type=kind | str)
        if isinstance(reply, str):
            raise InferError(f"the synchronous loop failed: {reply}")
        return reply


def measured_steps(subject: Subject, loop: Loop, seconds: float) -> Steps:
    """Processor time per picture of each step, all threads of this process included, when nothing else runs.

    Inference counts with the batch size and the number of threads that take least: this is for a ceiling.
    """
    batches = sorted({subject.plan.fixed_batch or 1, subject.plan.max_batch})
    lone = Loop(msgspec.structs.replace(subject, plan=_with_threads(subject.plan, 1)))
    geometry = loop.decode(0)
    outputs = loop.infer(1)
    return Steps(
        decode=_cost(lambda: loop.decode(0), seconds),
        infer=min(_cost(_bound(one, batch), seconds) / batch for one in (loop, lone) for batch in batches),
        postprocess=_cost(lambda: loop.postprocess(outputs, 0, geometry), seconds),
    )


def _bound(loop: Loop, batch: int) -> Callable[[], object]:
    for row in range(batch):
        loop.decode(row)
    return lambda: loop.infer(batch)


def _cost(step: Callable[[], object], seconds: float) -> float:
    """Milliseconds of processor time per call, the first calls left out."""
    _repeat(step, seconds / 4)
    before = time.process_time()
    calls = _repeat(step, seconds)
    return (time.process_time() - before) / calls * 1000


def _repeat(step: Callable[[], object], seconds: float) -> int:
    calls, end = 0, time.monotonic() + seconds
    while time.monotonic() < end or not calls:
        step()
        calls += 1
    return calls


def _with_threads(plan: ModelPlan, threads: int) -> ModelPlan:
    session = msgspec.structs.replace(plan.session, threads=threads)
    return msgspec.structs.replace(plan, session=session)


def _looped(loop: Loop, order: LoopOrder) -> float:
    _repeat(lambda: loop.answer(order.batch), order.warm_up)
    began = time.monotonic()
    calls = _repeat(lambda: loop.answer(order.batch), order.seconds)
    return calls * order.batch / (time.monotonic() - began)


def run(pipe: Pipe) -> None:
    """The process of the loop: its messages are a Facts, then one reply per order; a text where something failed."""
    try:
        for reply in _replies(messages(pipe)):
            pipe.send_bytes(_encode(reply))
    except Exception as error:
        pipe.send_bytes(_encode(f"{type(error).__name__}: {error}"))


def _replies(received: Iterator[bytes]) -> Iterator[object]:
    subject = msgspec.msgpack.decode(next(received), type=Subject)
    loop = Loop(subject)
    yield loop.facts
    for encoded in received:
        order = msgspec.msgpack.decode(encoded, type=LoopOrder | StepsOrder)
        yield _looped(loop, order) if isinstance(order, LoopOrder) else measured_steps(subject, loop, order.seconds)
