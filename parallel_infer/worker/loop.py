"""Worker processes: the link to the dispatcher around a stage. Leases come in, the stage works, reports go out."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from typing import Any, Generic, TypeVar, assert_never

import msgspec
import numpy as np

from parallel_infer.errors import BadInput, InferError
from parallel_infer.ipc.channel import AnswerLink, Link, new_context
from parallel_infer.ipc.messages import (
    Answered,
    Decoded,
    DecodeFailed,
    DecodeLease,
    InferLease,
    Inferred,
    JobError,
    ModelAdded,
    ModelPlan,
    ModelRemoved,
    PostJob,
    PostLease,
    Postprocessed,
    Register,
    SlotRef,
    Started,
    StopWorker,
    ToDecodeWorker,
    ToEveryWorker,
    ToInferWorker,
    ToPostprocessWorker,
    WorkerReady,
)
from parallel_infer.loading import load_by_name
from parallel_infer.process.child import Child
from parallel_infer.process.native_output import NativeOutput
from parallel_infer.process.options import DecodeOptions, InferOptions, PostprocessOptions, WorkerOptions
from parallel_infer.process.sandbox.confinement import confine_decoder
from parallel_infer.shm.ring import Ring
from parallel_infer.shm.segment import Segment, exists

Received = TypeVar("Received")
log = logging.getLogger(__name__)
_LOOKS = 2  # rings that are looked at for each new one: all of them before as many again have come
_HOLD_BACK = 0.0005  # seconds a finished job's report may wait for the next one's
_SMALL = 32768  # bytes of an answer that travel inside its message instead of in a frame of their own
_INTERNAL = "internal error in this stage"


class _Worker(ABC, Generic[Received]):
    """What all workers have in common: the link, the announcement, the loop."""

    stage = ""

    def __init__(self, child: Child, options: WorkerOptions, received: Any) -> None:
        self._child = child
        self._context = new_context()
        self._link: Link[Received] = Link(self._context, options.dispatcher, child.name, received)
        self._running = True
        self._announced = False
        self._flushed = 0.0
        self._until: float | None = None  # what was sent at the end has time to leave

    def run_forever(self) -> None:
        """Receive, work, report."""
        while self._running:
            for message in self._link.receive():
                self._take(message)
            self._flush()

    def close(self) -> None:
        """Hand over what was sent: a process that ends takes with it what its ZeroMQ still holds."""
        self._link.close(self._until)
        self._context.term()

    @abstractmethod
    def _take(self, message: Received) -> None: ...

    def _take_common(self, message: ToEveryWorker) -> None:
        match message:
            case Register():
                self._link.send(self._ready())
                self._flush()  # now: what comes next may take long
                if not self._announced:
                    self._announced = True
                    self._child.tell(self._started())
            case StopWorker():
                self._running = False
                self._until = message.until
            case _:
                assert_never(message)

    def _ready(self) -> WorkerReady:
        return WorkerReady(self.stage, "", {})

    def _started(self) -> Started:
        return Started()

    def _flush(self) -> None:
        self._link.flush()
        self._flushed = time.monotonic()

    def _flush_if_due(self) -> None:
        if time.monotonic() - self._flushed > _HOLD_BACK:
            self._flush()


class Payloads:
    """Payloads of jobs where they lie: ingress rings, and rings lent to clients that come and go.

    The rings used last stay attached. Each new one looks at a few others, in turns, whether they are there still: a
    ring that was given back takes memory for as long as anybody has it mapped.
    """

    def __init__(self, most: int = 1024) -> None:
        self._segments: OrderedDict[str, tuple[Segment, memoryview]] = OrderedDict()  # the one used last at the end
        self._turns: deque[str] = deque()  # the same names, the one looked at next in front
        self._most = most

    def read(self, ref: SlotRef) -> memoryview:
        """The payload's bytes, read-only, without a copy. Raises BadInput when its ring is gone."""
        known = self._segments.get(ref.ring)
        if known is None:
            known = self._attach(ref.ring)
        else:
            self._segments.move_to_end(ref.ring)
        start = ref.index * ref.slot_size
        return known[1][start : start + ref.size]

    def _attach(self, name: str) -> tuple[Segment, memoryview]:
        self._look_at_some()
        try:
            segment = Segment.attach(name)
        except FileNotFoundError:
            raise BadInput("the ring that holds the payload was given back") from None
        if len(self._segments) >= self._most:
            self._segments.popitem(last=False)[1][0].close()
        known = segment, segment.view("uint8", (segment.size,)).data.toreadonly()
        self._segments[name] = known
        self._turns.append(name)
        return known

    def _look_at_some(self) -> None:
        for _ in range(min(_LOOKS, len(self._turns))):
            name = self._turns.popleft()
            if name not in self._segments:
                continue  # it was let go to make room
            if exists(name):
                self._turns.append(name)
            else:
                self._segments.pop(name)[0].close()


class DecodeWorker(_Worker[ToDecodeWorker]):
    """Decodes payloads into rows."""

    stage = "decode"

    def __init__(self, child: Child, options: DecodeOptions) -> None:
        # First of all, while there is one thread and nothing of a stranger's was read.
        package = options.stage.partition(".")[0]
        self._confined = confine_decoder(options.max_pixels, {package}) if options.confined else ""
        super().__init__(child, options, ToDecodeWorker)
        self._stage = load_by_name(options.stage)({"max_pixels": options.max_pixels, "formats": options.formats})
        self._native = NativeOutput()
        self._rings: dict[str, Ring] = {}
        self._payloads = Payloads()

    def _take(self, message: ToDecodeWorker) -> None:
        match message:
            case DecodeLease():
                self._decode(message)
                self._native.log()
                self._flush_if_due()
            case ModelAdded():
                if message.plan.key not in self._rings:  # else an earlier dispatcher has told it already
                    self._stage.add(message.plan)
                    self._rings[message.plan.key] = Ring.attach(message.plan.rows)
            case ModelRemoved():
                self._stage.remove(message.model)
                self._rings.pop(message.model).close()
            case _:
                self._take_common(message)

    def _started(self) -> Started:
        return Started(confined=self._confined)

    def _decode(self, lease: DecodeLease) -> None:
        started = time.monotonic()
        rows = self._rings[lease.model].arrays
        row = {name: array[lease.row, ...] for name, array in rows.items()}
        try:
            payload = self._payloads.read(lease.ref)
            told = lease.kind, lease.tensors, payload, lease.options, row, lease.part
            geometry = self._stage.decode(lease.model, *told)
        except InferError as error:
            self._link.send(DecodeFailed(lease.lease, error.code, str(error), started, time.monotonic() - started))
        except Exception:
            log.exception("decoding failed in a way nobody foresaw")
            self._link.send(DecodeFailed(lease.lease, InferError.code, _INTERNAL, started, time.monotonic() - started))
        else:
            self._link.send(Decoded(lease.lease, tuple(geometry), started, time.monotonic() - started))


class InferWorker(_Worker[ToInferWorker]):
    """Runs one model."""

    stage = "infer"

    def __init__(self, child: Child, options: InferOptions) -> None:
        super().__init__(child, options, ToInferWorker)
        self._plan = options.plan
        rows, outputs = Ring.attach(self._plan.rows), Ring.attach(self._plan.outputs)
        self._stage = load_by_name(options.stage)(self._plan, rows, outputs)
        self._times, self._costs = self._stage.warm_up()

    def _ready(self) -> WorkerReady:
        cores = self._plan.session.threads if self._stage.on_processor else 0
        return WorkerReady(self.stage, self._plan.key, self._times, cores, self._costs)

    def _started(self) -> Started:
        return Started(provider=self._stage.session.describe())

    def run_forever(self) -> None:
        """Receive, run, report; at the end the stage puts its things in order."""
        super().run_forever()
        self._stage.close()

    def _take(self, message: ToInferWorker) -> None:
        match message:
            case InferLease():
                self._infer(message)
                self._flush()  # each batch at once: others wait for it
            case _:
                self._take_common(message)

    def _infer(self, lease: InferLease) -> None:
        started, used = time.monotonic(), time.process_time()
        ran = self._stage.run(lease.rows, lease.slot, lease.alone)
        seconds, cost = time.monotonic() - started, (time.process_time() - used) * self._stage.on_processor
        self._link.send(Inferred(lease.lease, started, seconds, ran.gathered, ran.shapes, ran.failed, cost))


class PostprocessWorker(_Worker[ToPostprocessWorker]):
    """Computes answers and sends them to the gateway."""

    stage = "postprocess"

    def __init__(self, child: Child, options: PostprocessOptions) -> None:
        super().__init__(child, options, ToPostprocessWorker)
        self._answers = AnswerLink(self._context, options.answers)
        self._stage = load_by_name(options.stage)()
        self._outputs: dict[str, tuple[ModelPlan, Ring]] = {}

    def _take(self, message: ToPostprocessWorker) -> None:
        match message:
            case PostLease():
                self._postprocess(message)
                self._flush_if_due()
            case ModelAdded():
                if message.plan.key not in self._outputs:  # else an earlier dispatcher has told it already
                    self._stage.add(message.plan)
                    self._outputs[message.plan.key] = message.plan, Ring.attach(message.plan.outputs)
            case ModelRemoved():
                self._stage.remove(message.model)
                self._outputs.pop(message.model)[1].close()
            case _:
                self._take_common(message)

    def close(self) -> None:
        """Hand over what was sent, the answers too."""
        self._answers.close(self._until)
        super().close()

    def _flush(self) -> None:
        self._answers.flush()  # first the answer, then the lease's return
        super()._flush()

    def _postprocess(self, lease: PostLease) -> None:
        begun = time.monotonic()
        outputs = self._views(lease)
        for job in lease.jobs:
            self._answer(lease, job, {name: array[job.index, ...] for name, array in outputs.items()})
        self._link.send(Postprocessed(lease.lease, time.monotonic() - begun, begun))

    def _views(self, lease: PostLease) -> dict[str, np.ndarray]:
        """The batch's outputs where they lie, [batch, ...] each."""
        plan, ring = self._outputs[lease.model]
        views = {}
        for tensor in plan.spec.outputs:
            array = ring.arrays[tensor.name][lease.slot]
            shape = lease.shapes.get(tensor.name)
            if shape is not None:
                size = int(np.prod(shape, dtype=np.int64)) * np.dtype(tensor.dtype).itemsize
                array = array[:size].view(tensor.dtype).reshape(shape)
            array.flags.writeable = False
            views[tensor.name] = array
        return views

    def _answer(self, lease: PostLease, job: PostJob, outputs: dict[str, np.ndarray]) -> None:
        started = time.monotonic()
        try:
            body, pieces, crops, left_out = self._stage.answer(lease.model, outputs, job)
        except InferError as error:
            self._answers.send(JobError(job.job, error.code, str(error)))
            return
        except Exception:
            log.exception("postprocessing failed in a way nobody foresaw")
            self._answers.send(JobError(job.job, InferError.code, _INTERNAL))
            return
        size = sum(piece.nbytes for piece in pieces)
        small, number = b"", 0
        if size > _SMALL and len(pieces) == 1:
            number = self._answers.attach(pieces[0])
        elif size > _SMALL:
            number = self._answers.attach(b"".join(pieces))
        else:
            small = b"".join(pieces)
        now = time.monotonic()
        times = (*job.times, started - lease.inferred, now - started)
        self._answers.send(Answered(job.job, body, small, number, times, lease.batch, crops, left_out))


def decode(child: Child, encoded: bytes) -> None:
    """Entry point of a decode worker."""
    _run(DecodeWorker(child, msgspec.msgpack.decode(encoded, type=DecodeOptions)))


def infer(child: Child, encoded: bytes) -> None:
    """Entry point of an infer worker."""
    _run(InferWorker(child, msgspec.msgpack.decode(encoded, type=InferOptions)))


def postprocess(child: Child, encoded: bytes) -> None:
    """Entry point of a postprocess worker."""
    _run(PostprocessWorker(child, msgspec.msgpack.decode(encoded, type=PostprocessOptions)))


def _run(worker: _Worker[Any]) -> None:
    try:
        worker.run_forever()
    finally:
        worker.close()
