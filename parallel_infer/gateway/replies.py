"""Replies: each owed job gets one, an answer or an error, and then gives its slot back."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from parallel_infer.errors import Poison, ServerUnavailable
from parallel_infer.gateway.counters import Tally
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.pending import Pending, PendingJob, ReplyTo
from parallel_infer.gateway.poison import KnownPoison
from parallel_infer.gateway.tracing import Tracing
from parallel_infer.ipc.channel import Link
from parallel_infer.ipc.messages import TIMES, Admit, Answered, CancelJob, SlotFate, SlotRef, ToGateway

KNOWN = "this very payload killed two workers before"


class Replies:
    """What is owed to clients, and how it is paid and counted."""

    def __init__(self, link: Link[ToGateway], ingress: Ingress) -> None:
        self._link = link
        self._ingress = ingress
        self.pending = Pending()
        self.poison = KnownPoison()
        self.tally = Tally()
        self.counts: Counter[str] = Counter()
        self.tracing: Tracing | None = None  # while somebody wants to know how jobs go

    def answered(self, message: Answered, payloads: list[Any]) -> None:
        """A postprocess worker has an answer; `payloads` are the frames that came with it."""
        owed = self.pending.pop(message.job)
        if owed is None:  # answered before, or its client got an error in time
            self.release(self.pending.held.pop(message.job, None))
            return
        if owed.again:  # an answer that was thought dead: a second run is under way, and may read the payload
            self.pending.held[message.job] = owed.admit.ref
            self._link.send(CancelJob(message.job, held=True))
        else:
            self.release(owed.admit.ref)
        timing = dict(zip(TIMES, message.times, strict=True))
        timing["total"] = total = time.monotonic() - owed.admit.received
        payload = payloads[message.payload - 1] if message.payload else message.small
        size = owed.reply_to.answer(message.body, payload, timing, message.batch)
        self.counts["answered"] += 1
        if owed.share is not None:
            tally = self.tally.of(owed.admit.model)
            tally.ends["answered"] += 1
            tally.times.add((*message.times, total))
            tally.bytes_out += size
            if owed.source:
                self.tally.frame_answered(owed.source, owed.admit.received)
        if self.tracing is not None:
            self.tracing.answered(message.job, owed.admit.received + total)

    def refused(self, job: int, code: str, text: str, fate: SlotFate) -> None:
        """A job has an error instead of an answer; `fate` says whether its payload may still be read."""
        owed = self.pending.pop(job)
        if owed is None:  # it had its error from us already; but now its slot may be free
            if fate == SlotFate.FREE:
                self.release(self.pending.held.pop(job, None))
            return
        if code == Poison.code:
            self._learn(owed.admit)
        if fate == SlotFate.HELD:
            self.pending.held[job] = owed.admit.ref
        else:
            self.release(owed.admit.ref)
        self._fail(owed, code, text)

    def _learn(self, poison: Admit) -> None:
        """Know a poisonous payload from now on, and let no other copy of it that is already inside do more harm."""
        payload = self._ingress.read(poison.ref)
        if payload is None:
            return
        self.poison.remember(poison.kind, poison.model, payload)
        for owed in list(self.pending.jobs.values()):
            admit = owed.admit
            if admit.ref.size != poison.ref.size or (other := self._ingress.read(admit.ref)) is None:
                continue
            if self.poison.knows(admit.kind, admit.model, other):
                self.pending.pop(admit.job)
                self.pending.held[admit.job] = admit.ref
                self._fail(owed, Poison.code, KNOWN)
                self._link.send(CancelJob(admit.job, held=True))

    def _fail(self, owed: PendingJob, code: str, text: str) -> None:
        """Give an admitted job its error."""
        if owed.share is not None:
            self.tally.failed(owed.admit.model, owed.source, code)
        self.error(owed.reply_to, code, text)

    def error(self, reply_to: ReplyTo, code: str, text: str, reason: str = "") -> None:
        """Reply with an error."""
        self.counts[code] += 1
        reply_to.error(code, text, reason)

    def give_up(self, text: str) -> int:
        """Tell everybody who is owed an answer that there will be none; how many of the jobs were clients'."""
        owed = list(self.pending.jobs.values())
        for one in owed:
            self.pending.pop(one.admit.job)
            self._fail(one, ServerUnavailable.code, text)
        return sum(one.share is not None for one in owed)

    def release(self, ref: SlotRef | None) -> None:
        """Free a slot of the ingress rings."""
        if ref is not None:
            self._ingress.release(ref)
