"""What is owed: every admitted job that has no reply yet, to whom it goes, and what it keeps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any, Protocol

from parallel_infer.deadlines import Deadlines
from parallel_infer.gateway.fairness import Share
from parallel_infer.ipc.messages import Admit, SlotRef

_LATE = 0.05  # seconds after a deadline from which the gateway answers in the dispatcher's place


class Outbox(Protocol):
    """What takes messages to the other processes, and sends them together later."""

    def send(self, message: object) -> None:
        """Queue a message."""

    def withdraw(self, message: object) -> bool:
        """Take a queued message back; False where it has left."""


class ReplyTo(Protocol):
    """What takes the one reply to a job, as values: a client's address at a door, or a readiness check."""

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        """Take an answer: an encoded AnswerBody or result map, and its arrays. Returns the bytes sent on."""

    def error(self, code: str, text: str, reason: str = "") -> None:
        """Take an error, as protocol.Error has it."""


class Requester(ReplyTo, Protocol):
    """The client that sent a request, and where the one reply to it goes."""

    request: int  # its id

    @property
    def client(self) -> bytes:
        """The connection: what clients are told apart by."""

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine, and can attach a segment."""

    def key(self, request: int) -> Hashable:
        """Tells this client's request of that id apart from everybody's."""

    def result(self, result: object) -> None:
        """Take the result of a query."""


class PendingJob:
    """One admitted job."""

    __slots__ = ("admit", "again", "key", "reply_to", "share", "source")

    def __init__(
        self, reply_to: ReplyTo, admit: Admit, key: Hashable = None, share: Share | None = None, source: str = ""
    ) -> None:
        self.reply_to = reply_to
        self.admit = admit
        self.key = key  # of the client's request; None for a job of our own
        self.share = share  # of the client; None for a job of our own
        self.again = False  # admitted a second time
        self.source = source  # the live source whose frame it is, as the client calls it


class Pending:
    """Every job that is owed a reply, by job and by client."""

    def __init__(self) -> None:
        self.jobs: dict[int, PendingJob] = {}
        self.held: dict[int, SlotRef] = {}  # slots of jobs that have their error but whose payload may still be read
        self._requests: dict[Hashable, int] = {}
        self._deadlines: Deadlines[int] = Deadlines()

    def add(self, owed: PendingJob) -> None:
        """Owe a reply."""
        admit = owed.admit
        self.jobs[admit.job] = owed
        self._deadlines.add(admit.job, admit.deadline + _LATE, admit.job)
        if owed.share is not None:
            self._requests[owed.key] = admit.job
            owed.share.enter(admit.model, admit.ref.ring)

    def pop(self, job: int) -> PendingJob | None:
        """The job is being answered: nothing is owed any more. None where it was answered before."""
        owed = self.jobs.pop(job, None)
        if owed is not None:
            self._deadlines.discard(job, owed.admit.deadline + _LATE)
            if owed.share is not None:
                self._requests.pop(owed.key, None)
                owed.share.leave(owed.admit.model, owed.admit.ref.ring)
        return owed

    def of(self, key: Hashable) -> PendingJob | None:
        """The job that stands for a client's request, while it is pending."""
        job = self._requests.get(key)
        return None if job is None else self.jobs[job]

    @property
    def of_clients(self) -> int:
        """How many of the jobs are clients', and not our own."""
        return sum(pending.share is not None for pending in self.jobs.values())

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
