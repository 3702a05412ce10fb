"""Jobs that a router has taken and that have no reply yet: kept whole, so that any of them can be sent again. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from parallel_infer.deadlines import Deadlines
from parallel_infer.errors import ResourceUnavailable
from parallel_infer.protocol import Infer

if TYPE_CHECKING:
    from parallel_infer.router.members import Member

LATE = 0.1  # seconds after a deadline that a member's own word about it has to arrive
_RETRY_AFTER = 0.05  # seconds
_OVERHEAD = 1024  # bytes that a job takes besides its payload


class Requester(Protocol):
    """The client that sent a request, and where the one reply to it goes."""

    request: int  # its id

    @property
    def client(self) -> bytes:
        """The connection: what clients are told apart by."""

    def key(self, request: int) -> Hashable:
        """Tells this client's request of that id apart from everybody's."""

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        """Take an answer: an encoded AnswerBody or result map, and its arrays. Returns the bytes sent on."""

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        """Take an error, as protocol.Error has it."""

    def result(self, result: object) -> None:
        """Take the result of a query."""


class Job:
    """One job. It is with one member at a time, or with several where one of them seems to be stuck."""

    __slots__ = (
        *("attempts", "cancelled", "deadline", "key", "late", "losses", "number", "payload", "refused", "request"),
        *("requester", "size", "tried"),
    )

    def __init__(self, number: int, request: Infer, payload: Any, requester: Requester, deadline: float) -> None:
        self.number = number
        self.request = request
        self.payload = payload
        self.requester = requester
        self.deadline = deadline
        self.key = requester.key(request.id)
        self.size = 0 if payload is None else len(payload)
        self.attempts: dict[int, Member] = {}  # under way, by their numbers
        self.tried: set[Member] = set()  # members that said that they cannot
        self.losses = 0  # members that were lost while they had it
        self.refused = False  # a member had no room for it
        self.cancelled = False
        self.late = False  # its deadline has passed


class Jobs:
    """All of them, by their clients' requests and by deadline, within bounds."""

    def __init__(self, most_jobs: int, most_bytes: int) -> None:
        self._most_jobs = most_jobs
        self._most_bytes = most_bytes
        self._by_key: dict[Hashable, Job] = {}
        self._deadlines: Deadlines[Job] = Deadlines()
        self.waiting: dict[Job, None] = {}  # nobody takes them now; in the order in which they came
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._by_key.values()))

    def of(self, key: Hashable) -> Job | None:
        """The job that stands for a client's request, while it has no reply."""
        return self._by_key.get(key)

    def add(self, job: Job) -> None:
        """Keep a job until `pop`. Raises ResourceUnavailable where there is no room."""
        if len(self._by_key) >= self._most_jobs:
            raise ResourceUnavailable(
                f"the router keeps {self._most_jobs} jobs without a reply, which is all it may (option kept_jobs); try "
                "again later",
                _RETRY_AFTER,
            )
        size = job.size + _OVERHEAD
        if self.bytes + size > self._most_bytes:
            raise ResourceUnavailable(
                f"the router keeps {self.bytes} bytes of jobs without a reply and may keep {self._most_bytes} (option "
                "kept_mb); try again later",
                _RETRY_AFTER,
            )
        self.bytes += size
        self._by_key[job.key] = job
        self._deadlines.add(job.number, job.deadline, job)

    def pop(self, job: Job) -> None:
        """It has its reply."""
        del self._by_key[job.key]
        self.waiting.pop(job, None)
        self.bytes -= job.size + _OVERHEAD
        self._deadlines.discard(job.number, job.deadline + LATE if job.late else job.deadline)

    def next_timer(self) -> float | None:
        """When the next job is overdue."""
        return self._deadlines.next()

    def overdue(self, now: float) -> Iterator[Job]:
        """Jobs whose time is over; one that is with a member is named only after a moment more."""
        for job in self._deadlines.expired(now):
            if job.attempts and not job.late:
                job.late = True
                self._deadlines.add(job.number, job.deadline + LATE, job)
            else:
                yield job
