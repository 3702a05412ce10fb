"""Replies: each pending job gets one, an answer or an error, and then gives its slot back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from parallel_infer.crops import Crop
from parallel_infer.errors import Dropped, InferError, Poison, ServerUnavailable
from parallel_infer.gateway.counters import Tally
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.looks import Looks
from parallel_infer.gateway.pending import Outbox, PendingJob, PendingJobs, ReplyTo
from parallel_infer.gateway.poison import KnownPoison
from parallel_infer.gateway.response_cache import Question, ResponseCache
from parallel_infer.gateway.tracing import Tracing
from parallel_infer.ipc.messages import TIMES, Admit, AllCut, Answered, CancelJob, Refused, SlotFate, SlotRef

KNOWN = "this very payload killed two workers before"


class Replies:
    """The replies that are pending: who gets which, and how they are counted."""

    def __init__(
        self,
        outbox: Outbox,
        ingress: Ingress,
        content: Callable[[SlotRef], memoryview | None],
        looks: Looks,
        cache: ResponseCache,
        clock: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._ingress = ingress
        self._content = content  # of a slot that nobody changes before the reply; None for other slots
        self._looks = looks
        self._cache = cache
        self._clock = clock
        self.pending = PendingJobs()
        self.poison = KnownPoison()
        self.tally = Tally(clock)
        self.counts: Counter[str] = Counter()
        self.tracing: Tracing | None = None  # while somebody wants to know how jobs go

    def admit(self, job: PendingJob) -> None:
        """Send a job in. From now on its reply is pending."""
        self.pending.add(job)
        if job.composite is None:
            self._outbox.send(job.admit)
        if job.counted:
            if job.piece is None:  # whose bytes are those of its request
                self.tally.of(job.admit.model).bytes_in += job.admit.ref.size
            if self.tracing is not None:
                self.tracing.admitted(job.admit.job, job.admit.received)

    def admit_again(self, pending: PendingJob) -> None:
        """Send a job in once more, and all that was said about it since: a dispatcher that died may have been told."""
        self._outbox.send(pending.admit)
        if pending.cancelled:
            part = pending.admit.part
            self._outbox.send(CancelJob(pending.admit.job))
            if part is not None and part.selections:  # its request is over
                self._outbox.send(AllCut(part.picture))

    def cancel(self, pending: PendingJob) -> None:
        """Nobody wants the answer of a job: it ends as soon as the dispatcher says so."""
        if self._outbox.withdraw(pending.admit):  # that came together with the job, after a stall
            self.refused(Refused(pending.admit.job, Dropped.code, "cancelled by the client", SlotFate.FREE))
        else:
            pending.cancelled = True
            self._outbox.send(CancelJob(pending.admit.job))

    def answered(self, message: Answered, payloads: Sequence[Any]) -> None:
        """A postprocess worker has an answer; `payloads` are the frames that came with it."""
        pending = self.pending.pop(message.job)
        if pending is None:  # answered before, or its client got an error in time
            self.released(message.job)
            return
        payload = payloads[message.payload - 1] if message.payload else message.small
        if pending.piece is not None:
            pending.piece.cut(message.crops, message.left_out)
        if pending.again:  # an answer that was thought dead: a second run is under way, and may read the payload
            self.pending.held[message.job] = pending.admit.ref
            self._outbox.send(CancelJob(message.job, held=True))
        else:
            self._ingress.release(pending.admit.ref)
        self._answer(pending, message.body, payload, message.times, message.batch)

    def composed(self, job: int, body: bytes, payload: Any, times: tuple[float, ...], batch: int) -> None:
        """A request of several jobs has its answer."""
        pending = self.pending.pop(job)
        if pending is not None:
            self._ingress.release(pending.admit.ref)
            self._answer(pending, body, payload, times, batch)

    def _answer(self, pending: PendingJob, body: bytes, payload: Any, times: tuple[float, ...], batch: int) -> None:
        if pending.source:
            self._looks.answered(pending, body, payload)
        timing = dict(zip(TIMES, times, strict=True))
        timing["total"] = total = self._clock() - pending.admit.received
        if pending.question is not None:
            self._cache.put(pending.question, body, payload)
        size = pending.reply_to.answer(body, payload, timing, batch)
        self.counts["answered"] += 1
        if pending.counted:
            tally = self.tally.of(pending.admit.model)
            tally.ends["answered"] += 1
            tally.requests += not pending.part and pending.piece is None
            tally.last = pending.admit.received + total
            tally.times.add((*times, total))
            tally.bytes_out += size
        if pending.source:
            self.tally.frame_answered(pending.source, pending.admit.received)
        if self.tracing is not None:
            self.tracing.answered(pending.admit.job, pending.admit.received + total)

    def answer_again(
        self, question: Question, reply_to: ReplyTo, source: str, received: float, *, part: bool = False
    ) -> bool:
        """Reply with the answer that this question got before; False where none is kept, or a door waits for the frame.

        No stage has worked, so their times are 0, and so is `batch`.
        """
        found = None if self._looks.waits_for(source) else self._cache.get(question)
        tallies = [self.tally.of(name) for name in question.counted]
        if found is None:
            for tally in tallies:
                tally.cache_misses += 1
            return False
        timing = {**dict.fromkeys(TIMES, 0.0), "total": self._clock() - received}
        tallies[0].bytes_out += reply_to.answer(found.body, found.payload, timing, 0)
        for tally in tallies:
            tally.cache_hits += 1
            tally.ends["answered"] += 1
            tally.requests += not part and len(tallies) == 1
            tally.last = received + timing["total"]
        self.counts["answered"] += 1
        if source:
            self.tally.frame_answered(source, received)
        return True

    def refused(self, message: Refused) -> None:
        """A job has an error instead of an answer, whose `slot` says whether its payload may still be read."""
        job, code, fate = message.job, message.code, message.slot
        pending = self.pending.pop(job)
        if pending is None:  # it had its error from us already; but now its slot may be free
            if fate == SlotFate.FREE:
                self.released(job)
            return
        if code == Poison.code:
            self._learn(pending.admit)
        if fate == SlotFate.HELD:
            self.pending.held[job] = pending.admit.ref
        else:
            self._ingress.release(pending.admit.ref)
        self._fail(pending, message)

    def _learn(self, poison: Admit) -> None:
        """Know a poisonous payload from now on, and let no other copy of it that is already inside do more harm."""
        payload = self._content(poison.ref)
        if payload is None:
            return
        self.poison.remember(poison.kind, poison.model, payload, crop_of(poison))
        for pending in list(self.pending.jobs.values()):
            admit = pending.admit
            if pending.composite is not None or admit.job not in self.pending.jobs:
                continue  # its jobs are looked at themselves; or it has ended with another one just now
            if admit.ref.size != poison.ref.size or (other := self._content(admit.ref)) is None:
                continue
            if self.poison.knows(admit.kind, admit.model, other, crop_of(admit)):
                self.pending.pop(admit.job)
                self.pending.held[admit.job] = admit.ref
                self._fail(pending, Refused(admit.job, Poison.code, KNOWN, SlotFate.HELD))
                self._outbox.send(CancelJob(admit.job, held=True))

    def is_poison(self, admit: Admit) -> bool:
        """Whether the payload of a job killed two workers before."""
        payload = self._content(admit.ref) if self.poison else None
        return payload is not None and self.poison.knows(admit.kind, admit.model, payload, crop_of(admit))

    def _fail(self, job: PendingJob, message: Refused) -> None:
        """Give an admitted job its error."""
        if job.counted or job.source:
            self.tally.failed(job.admit.model if job.counted else None, job.source, message.code)
        self.counts[message.code] += 1
        job.reply_to.error(message.code, message.text, message.reason, message.retry_after)

    def error(self, reply_to: ReplyTo, error: InferError) -> None:
        """Reply to a request that was not admitted."""
        self.counts[error.code] += 1
        reply_to.error(error.code, str(error), error.reason, error.retry_after)

    def give_up(self, text: str) -> int:
        """Reply to every pending job that there will be no answer; how many of the jobs were clients'."""
        clients = self.pending.of_clients
        for pending in list(self.pending.jobs.values()):
            if self.pending.pop(pending.admit.job) is None:
                continue  # it has ended with its request
            self._fail(pending, Refused(pending.admit.job, ServerUnavailable.code, text, SlotFate.FREE))
        return clients

    def released(self, job: int) -> None:
        """Nobody reads the payload of a job any more that had its reply before."""
        ref = self.pending.held.pop(job, None)
        if ref is not None:
            self._ingress.release(ref)

    def release_held(self) -> None:
        """Nobody reads the payload of any job any more that has its reply."""
        for job in list(self.pending.held):
            self.released(job)


def crop_of(admit: Admit) -> Crop | None:
    """The part of the picture that a job is about; None: all of it."""
    return None if admit.part is None else admit.part.crop
