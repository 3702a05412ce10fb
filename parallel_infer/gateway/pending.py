"""What is owed: every admitted job that has no reply yet, to whom it goes, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from parallel_infer.deadlines import Deadlines
from parallel_infer.gateway.fairness import Share
from parallel_infer.ipc.messages import Admit, SlotRef

_LATE = 0.05  # seconds after a deadline from which the gateway answers in the dispatcher's place


class ReplyTo(Protocol):
    """What takes replies: a door, or a readiness check."""

    def send(self, frames: list[Any]) -> None:
        """Take a reply's frames, the first being the client."""


class ReplyAddress:
    """Where a reply goes: a client at a door, and the request's number there."""

    __slots__ = ("client", "door", "enveloped", "request")

    def __init__(self, door: ReplyTo, client: bytes, enveloped: int, request: int) -> None:
        self.door = door
        self.client = client
        self.enveloped = enveloped  # empty frames between address and header, as REQ sockets send
        self.request = request


class PendingJob:
    """One admitted job."""

    __slots__ = ("admit", "again", "caller", "share", "source")

    def __init__(self, caller: ReplyAddress, admit: Admit, share: Share | None = None, source: str = "") -> None:
        self.caller = caller
        self.admit = admit
        self.share = share  # of the client; None for a job of our own
        self.again = False  # admitted a second time
        self.source = source  # the live source whose frame it is, as the client calls it


class Pending:
    """Every job that is owed a reply, by job and by client."""

    def __init__(self) -> None:
        self.jobs: dict[int, PendingJob] = {}
        self.held: dict[int, SlotRef] = {}  # slots of jobs that have their error but whose payload may still be read
        self._requests: dict[tuple[ReplyTo, bytes, int], int] = {}  # two doors may see clients of one name
        self._deadlines: Deadlines[int] = Deadlines()

    def add(self, owed: PendingJob) -> None:
        """Owe a reply."""
        admit, caller = owed.admit, owed.caller
        self.jobs[admit.job] = owed
        self._requests[caller.door, caller.client, caller.request] = admit.job
        self._deadlines.add(admit.job, admit.deadline + _LATE, admit.job)
        if owed.share is not None:
            owed.share.enter(admit.model, admit.ref.ring)

    def pop(self, job: int) -> PendingJob | None:
        """The job is being answered: nothing is owed any more. None where it was answered before."""
        owed = self.jobs.pop(job, None)
        if owed is not None:
            self._requests.pop((owed.caller.door, owed.caller.client, owed.caller.request), None)
            self._deadlines.discard(job, owed.admit.deadline + _LATE)
            if owed.share is not None:
                owed.share.leave(owed.admit.model, owed.admit.ref.ring)
        return owed

    def job_of(self, caller: ReplyAddress, request: int) -> int | None:
        """The job that stands for a client's request, while it is owed."""
        return self._requests.get((caller.door, caller.client, request))

    def next_timer(self) -> float | None:
        """When the next job is overdue."""
        return self._deadlines.next()

    def overdue(self, now: float) -> list[int]:
        """Jobs that the dispatcher should have answered by now."""
        return [job for job in self._deadlines.expired(now) if job in self.jobs]

    def refs(self) -> Iterator[SlotRef]:
        """Every slot that has a reason to be taken."""
        yield from (owed.admit.ref for owed in self.jobs.values())
        yield from self.held.values()
