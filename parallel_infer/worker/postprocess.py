"""Postprocess workers: from outputs to answers, which go straight to the gateway."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import msgspec
import numpy as np

from parallel_infer.errors import InferError
from parallel_infer.ipc.channel import AnswerInlet, AnswerLink, Watch
from parallel_infer.ipc.messages import (
    EPOCH_BITS,
    Answered,
    JobError,
    ModelAdded,
    ModelPlan,
    ModelRemoved,
    PostJob,
    PostLease,
    Postprocessed,
    Recall,
    Recalled,
    ToPostprocessWorker,
    WorkerReady,
)
from parallel_infer.loading import load_by_name
from parallel_infer.process.child import Child
from parallel_infer.process.options import PostprocessOptions
from parallel_infer.shm.ring import Ring
from parallel_infer.worker.loop import INTERNAL, WorkerProcess, run

log = logging.getLogger(__name__)
_SMALL = 32768  # bytes of an answer that travel inside its message instead of in a frame of their own


class PostprocessWorker(WorkerProcess[ToPostprocessWorker]):
    """Computes answers and sends them to the gateway."""

    stage = "postprocess"

    def __init__(self, child: Child, options: PostprocessOptions) -> None:
        super().__init__(child, options, ToPostprocessWorker)
        self._answers = AnswerLink(self._context, options.answers)
        self._stage = load_by_name(options.stage)()
        self._outputs: dict[str, tuple[ModelPlan, Ring]] = {}
        # A process's own: what was meant for one that is dead must never reach its successor.
        folder = Path(options.dispatcher.removeprefix("ipc://")).parent
        for left in folder.glob(f"{child.name.rpartition('.')[0]}.*"):
            left.unlink()  # a predecessor that was killed
        self._address = f"ipc://{folder}/{child.name}"
        self._inlet: AnswerInlet[PostLease] = AnswerInlet(self._context, self._address, PostLease)
        self._watch = Watch()
        self._watch.add(self._link.socket)
        self._watch.add(self._inlet.socket)
        self._recalled: set[int] = set()  # leases that are not to be begun
        self._early: list[PostLease] = []  # of models that the dispatcher has not told of yet

    def run_forever(self) -> None:
        """Receive from the dispatcher and from other workers, work, report."""
        while self._running:
            there = self._watch.wait(None)
            if self._link.socket in there:
                for message in self._link.drain():
                    self._take(message)
            if self._inlet.socket in there:
                for lease, _ in self._inlet.drain():
                    self._take_on(lease)
            self._flush()

    def _take_on(self, lease: PostLease) -> None:
        """A lease from another worker; one of an earlier dispatcher's is about slots that others may have by now."""
        if lease.lease >> EPOCH_BITS != self._epoch or lease.lease in self._recalled:
            self._recalled.discard(lease.lease)
        elif lease.model in self._outputs:
            self._postprocess(lease)
            self._flush_if_due()
        else:
            self._early.append(lease)

    def _ready(self) -> WorkerReady:
        return WorkerReady(self.stage, "", {}, address=self._address)

    def _take(self, message: ToPostprocessWorker) -> None:
        match message:
            case PostLease():
                self._postprocess(message)
                self._flush_if_due()
            case ModelAdded():
                if message.plan.key not in self._outputs:  # else an earlier dispatcher has told it already
                    self._stage.add(message.plan)
                    self._outputs[message.plan.key] = message.plan, Ring.attach(message.plan.outputs)
                early, self._early = self._early, []
                for lease in early:
                    self._take_on(lease)
            case ModelRemoved():
                self._stage.remove(message.model)
                self._outputs.pop(message.model)[1].close()
            case Recall():
                self._recalled.add(message.lease)
                self._early = [lease for lease in self._early if lease.lease != message.lease]
                self._link.send(Recalled(message.lease))
            case _:
                self._take_common(message)

    def close(self) -> None:
        """Hand over what was sent, the answers too."""
        self._inlet.close()
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
            self._answers.send(JobError(job.job, InferError.code, INTERNAL))
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


def main(child: Child, encoded: bytes) -> None:
    """Entry point of a postprocess worker."""
    run(PostprocessWorker(child, msgspec.msgpack.decode(encoded, type=PostprocessOptions)))
