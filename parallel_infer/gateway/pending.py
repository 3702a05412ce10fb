"""Every admitted job that has no reply yet: to whom the reply goes, and which slot the job keeps."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Protocol

from parallel_infer.crops import CutOut
from parallel_infer.deadlines import Deadlines
from parallel_infer.gateway.fairness import Share
from parallel_infer.gateway.response_cache import Question
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

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        """Take an error, as protocol.Error has it."""


class OnePiece(Protocol):
    """A job of a request of several."""

    def cut(self, crops: Sequence[CutOut], left_out: Sequence[int]) -> None:
        """Take what the job's selections cut out, and by selection how many objects were too many."""


class WholeRequest(Protocol):
    """A request of several jobs, of which this pending one is never sent in."""

    def expire(self) -> None:
        """Its deadline has passed: reply with what there is."""

    def fail(self, code: str, text: str) -> None:
        """Reply with an error, and end its jobs."""


class Requester(ReplyTo, Protocol):
    """The client that sent a request, and where the one reply to it goes."""

    request: int  # its id

    @property
    def client(self) -> bytes:
        """The connection: what clients are told apart by."""

    @property
    def is_local(self) -> bool:
        """Whether the client is on this machine, and can attach a segment."""

    @property
    def is_door(self) -> bool:
        """Whether it is one of the server's own doors, which speaks for clients of its own."""

    def key(self, request: int) -> Hashable:
        """Tells this client's request of that id apart from everybody's."""

    def result(self, result: object) -> None:
        """Take the result of a query."""


class PendingJob:
    """One admitted job."""

    __slots__ = (
        *("admit", "again", "cancelled", "composite", "counted", "key", "part", "piece", "question", "reply_to"),
        *("share", "source"),
    )

    def __init__(
        self,
        reply_to: ReplyTo,
        admit: Admit,
        key: Hashable = None,
        share: Share | None = None,
        source: str = "",
        question: Question | None = None,
        *,
        part: bool = False,
        piece: OnePiece | None = None,
    ) -> None:
        self.reply_to = reply_to
        self.admit = admit
        self.key = key  # of the client's request; None for a job of our own
        self.share = share  # of the client; None for a job of our own
        self.again = False  # admitted a second time
        self.cancelled = False  # the dispatcher was told so
        self.source = source  # the live source whose frame it is, as the client calls it
        self.part = part  # of a door's request that another job is counted for
        self.question = question  # under which its answer is kept; None: it is not
        self.piece = piece  # of a request of several jobs
        self.composite: WholeRequest | None = None  # it stands for a request of several jobs
        self.counted = share is not None or piece is not None  # among its model's; not a job of our own


class PendingJobs:
    """Every job that has no reply yet, by number and by its client's request."""

    def __init__(self) -> None:
        self.jobs: dict[int, PendingJob] = {}
        self.held: dict[int, SlotRef] = {}  # slots of jobs that have their error but whose payload may still be read
        self._requests: dict[Hashable, int] = {}
        self._deadlines: Deadlines[int] = Deadlines()

    def add(self, pending: PendingJob) -> None:
        """Keep a job until `pop`."""
        admit = pending.admit
        self.jobs[admit.job] = pending
        self._deadlines.add(admit.job, admit.deadline + _LATE, admit.job)
        if pending.share is not None:
            self._requests[pending.key] = admit.job
            pending.share.enter(admit.model, admit.ref.ring)

    def pop(self, job: int) -> PendingJob | None:
        """Remove a job, which gets its reply now. None where it had its reply before."""
        pending = self.jobs.pop(job, None)
        if pending is not None:
            self._deadlines.discard(job, pending.admit.deadline + _LATE)
            if pending.share is not None:
                self._requests.pop(pending.key, None)
                pending.share.leave(pending.admit.model, pending.admit.ref.ring)
        return pending

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
        yield from (pending.admit.ref for pending in self.jobs.values())
        yield from self.held.values()
