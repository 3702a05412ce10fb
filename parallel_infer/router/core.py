"""What a router decides. No socket, no clock: requests and replies come in, requests and replies go out.

A job is kept until its reply, so that whatever its member does it can go to another: a member that is lost, that stops,
or that says that it cannot. Each attempt has a number of its own, by which replies find their job; those of a
connection that was given up find none.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

import msgspec

from parallel_infer import protocol
from parallel_infer.chains.steps import JOIN
from parallel_infer.errors import (
    BadInput,
    DeadlineExceeded,
    Dropped,
    InferError,
    Poison,
    ResourceUnavailable,
    ServerStopping,
    ServerUnavailable,
    UnknownModel,
    UnknownRing,
    WorkerLost,
)
from parallel_infer.gateway.handover import GIVEN_UP, STOPPING
from parallel_infer.limits import MAX_OPTIONS, options_too_large, payload_too_large
from parallel_infer.model_spec import FILE
from parallel_infer.router.jobs import Job, Jobs, Requester
from parallel_infer.router.members import Member, Members
from parallel_infer.router.membership import Links, Membership, Patience
from parallel_infer.router.queries import Queries
from parallel_infer.router.streams import Streams

_ELSEWHERE = frozenset({ServerUnavailable.code, WorkerLost.code, ResourceUnavailable.code, UnknownModel.code})
_FIRST_MOMENT = 3.0  # seconds in which members that were never reached yet may still turn out to have a model
_NAMED = 3  # members that an error names


class Limits(NamedTuple):
    """What a router may keep, in bytes and seconds."""

    max_payload: int = 32 << 20
    kept_jobs: int = 10_000
    kept_bytes: int = 256 << 20
    timeout: float = 30.0  # of a job that names none
    most_lost: int = 3  # members that may be lost while they have a job


class Core:
    """Gives jobs to members and replies to each exactly once."""

    def __init__(
        self,
        links: Links,
        limits: Limits,
        patience: Patience,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
        random: Random | None = None,
    ) -> None:
        self._links = links
        self._limits = limits
        self._clock = clock
        self._number = itertools.count(1).__next__
        self._started = clock()
        self.members = Members(random or Random())  # noqa: S311 - spreads load
        self.jobs = Jobs(limits.kept_jobs, limits.kept_bytes)
        self._streams = Streams()
        self.membership = Membership(self.members, links, patience, instance, self._number, self, clock)
        self.queries = Queries(self.members, self.membership, self.jobs, limits.max_payload, clock)
        self.closed = False  # nothing new is taken
        self.refused = 0  # jobs that came since

    # --- from clients ------------------------------------------------------------------------------------------------

    def request(self, request: protocol.Request, requester: Requester, payload: Any = None) -> None:
        """Do what a client asks for, or reply with the error that says why not."""
        try:
            if isinstance(request, protocol.Infer):
                self._infer(request, requester, payload)
            elif isinstance(request, protocol.Cancel):
                self._cancel(request, requester)
            else:
                self.queries.ask(request, requester, self.closed)
        except InferError as error:
            if isinstance(request, protocol.Infer):
                self.queries.counts[error.code] += 1
            self.refuse(requester, error)

    def refuse(self, requester: Requester, error: InferError) -> None:
        """Reply to what is no request, or to one that its sender may not make."""
        requester.error(error.code, str(error), error.reason, error.retry_after)

    def _infer(self, request: protocol.Infer, requester: Requester, payload: Any) -> None:
        if self.jobs.of(requester.key(request.id)) is not None:
            return  # sent again by a client that is owed its reply
        if self.closed:
            self.refused += 1
            raise ServerStopping(STOPPING)
        if request.slot is not None:
            raise UnknownRing("a router lends no slots; send the bytes")
        if len(request.options) > MAX_OPTIONS:
            raise BadInput(options_too_large(len(request.options)))
        if payload is not None and len(payload) > self._limits.max_payload:
            raise BadInput(payload_too_large(len(payload), self._limits.max_payload))
        timeout = self._limits.timeout if request.timeout is None else request.timeout
        job = Job(self._number(), request, payload, requester, self._clock() + timeout)
        self.jobs.add(job)
        if request.drop == "latest":
            self._streams.enter(job)
        try:
            self._place(job)
        except InferError:
            self._forget(job)
            raise

    def _cancel(self, request: protocol.Cancel, requester: Requester) -> None:
        job = self.jobs.of(requester.key(request.job))
        if job is None:
            return
        job.cancelled = True  # it goes nowhere else from now on
        if not job.attempts:
            self._fail(job, Dropped("cancelled by the client"))
        self._call_back(job)

    def _call_back(self, job: Job) -> None:
        for number, member in job.attempts.items():
            self._links.send(member.route, protocol.Cancel(id=self._number(), job=number))

    # --- where jobs go -----------------------------------------------------------------------------------------------

    def _place(self, job: Job, last: InferError | None = None) -> None:
        """Give a job to a member, or let it wait for one. Raises `last`, or UnknownModel, where that is in vain."""
        model = job.request.model.removesuffix(FILE)  # who has a model has its file, or says that it has not
        member = self._streams.member_of(job) or self.members.choose(model, job.size, job.tried)
        if member is not None:
            self._send(job, member)
        elif last is not None:
            raise last
        elif self.members.having(model) and not job.tried:
            most = max(member.max_payload for member in self.members.having(model))
            raise BadInput(payload_too_large(job.size, most))
        elif job.tried or self._may_come(model):
            self.jobs.waiting[job] = None
        else:
            raise UnknownModel(self._unknown(model))

    def _send(self, job: Job, member: Member) -> None:
        now, number = self._clock(), self._number()
        if not member.under:
            member.progress = now
        member.under[number] = job
        member.sent += 1
        job.attempts[number] = member
        self.jobs.waiting.pop(job, None)
        left = max(0.001, job.deadline - now)
        self._links.send(member.route, msgspec.structs.replace(job.request, id=number, timeout=left), job.payload)

    def _may_come(self, model: str) -> bool:
        """Whether a member that is not there now may have a model."""
        there = [member for member in self.members if member.takes_jobs]
        early = self._clock() < self._started + _FIRST_MOMENT
        if not there or (early and len(there) < len(self.members)):
            return True
        return any(member.serves(model) for member in self.members if member.listed and not member.is_there)

    def _unknown(self, model: str) -> str:
        names = ", ".join(sorted({name for member in self.members for name in member.models})) or "none"
        together = " One member has to serve all models of a fan." if JOIN in model else ""
        return f"no member of the router serves a model {model!r}; served are: {names}.{together}"

    def place_waiting(self, again: bool = False) -> None:
        """A member is there, or has something new: jobs that wait are tried; `again` also with those that refused."""
        for job in list(self.jobs.waiting):
            if again:
                job.tried.clear()
            self._place_or_fail(job)

    def _place_or_fail(self, job: Job, last: InferError | None = None) -> None:
        try:
            self._place(job, last)
        except InferError as error:
            self._fail(job, error)

    # --- from members ------------------------------------------------------------------------------------------------

    def reply(self, route: bytes, reply: protocol.Reply, payload: Any = b"") -> None:
        """A member has replied; a connection that was given up is none."""
        member = self.members.at(route)
        if member is None:
            return
        member.heard = self._clock()
        job = member.under.pop(reply.id, None)
        if job is None:
            self.membership.heard(member, reply)
            return
        del job.attempts[reply.id]
        if isinstance(reply, protocol.Answer):
            member.progress = member.heard
            member.answered += 1
            self._forget(job)
            self.queries.counts["answered"] += 1
            job.requester.answer(reply.answer, payload, reply.timing, reply.batch)
        elif isinstance(reply, protocol.Error):
            self._on_error(job, member, reply)

    def _on_error(self, job: Job, member: Member, reply: protocol.Error) -> None:
        member.failed += 1
        if reply.code not in (DeadlineExceeded.code, ResourceUnavailable.code):
            member.progress = member.heard
        error = error_of(reply)
        if reply.code not in _ELSEWHERE or job.cancelled:
            self._fail(job, error)
            return
        if job.attempts:
            return  # another member has it as well
        job.tried.add(member)
        if reply.code == ResourceUnavailable.code:
            if job.refused:
                self._fail(job, error)
                return
            job.refused = True
        elif reply.code == UnknownModel.code:
            self.membership.lacks(member, job.request.model)
        elif reply.reason == ServerStopping.reason:
            self.membership.leaves(member)
        self._place_or_fail(job, None if reply.code == ServerUnavailable.code else error)

    def lost(self, member: Member, jobs: Sequence[Job], counts: bool) -> None:
        """A member is gone, and the jobs that it had go elsewhere; `counts` where they may be the reason."""
        for job in jobs:
            if job.attempts:
                continue
            job.losses += counts
            member.lost += counts
            if job.cancelled:
                self._fail(job, Dropped("cancelled by the client"))
            elif job.losses >= self._limits.most_lost:
                text = f"{job.losses} members were lost while they had this job (option most_lost)"
                self._fail(job, Poison(f"{text}, the last of them {member.name}"))
            else:
                self._place_or_fail(job)

    def stuck(self, jobs: Sequence[Job]) -> None:
        """A member finishes nothing: what it has goes to another as well, where there is one; who is first, answers."""
        for job in jobs:
            if len(job.attempts) > 1 or job.cancelled:
                continue
            member = self.members.choose(job.request.model, job.size, {*job.tried, *job.attempts.values()})
            if member is not None and not member.stuck:
                self._send(job, member)

    # --- replies -----------------------------------------------------------------------------------------------------

    def _forget(self, job: Job) -> None:
        """A job gets its reply: nobody needs to work on it any more."""
        self.jobs.pop(job)
        self._streams.leave(job)
        if job.attempts:
            self._call_back(job)
            for number, member in job.attempts.items():
                member.under.pop(number, None)
            job.attempts.clear()

    def _fail(self, job: Job, error: InferError) -> None:
        self._forget(job)
        self.queries.counts[error.code] += 1
        self.refuse(job.requester, error)

    def _is_late(self, job: Job) -> None:
        if job.attempts:
            names = ", ".join(member.name for member in job.attempts.values())
            self._fail(job, DeadlineExceeded(f"the deadline passed before the answer was ready (it was with {names})"))
        else:
            self._fail(job, ServerUnavailable(self._nobody(job.request.model)))

    def _nobody(self, model: str) -> str:
        problems = [f"{member.name}: {member.problem or member.state.value}" for member in self.members]
        more = f", and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        named = "; ".join(problems[:_NAMED]) + more or "it has no members"
        return f"no member of the router took a job of {model!r} in time ({named})"

    # --- timers and the end ------------------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """When `on_timer` has something to do even if nothing comes in."""
        timers = self.jobs.next_timer(), self.queries.next_timer(), self.membership.next_timer()
        return min(timer for timer in timers if timer is not None)

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        for job in self.jobs.overdue(now):
            self._is_late(job)
        self.queries.expire(now)
        if self.membership.on_timer(now):
            self.place_waiting(again=True)

    def give_up(self) -> int:
        """Reply to everybody who still waits that there will be no answer; how many jobs that were."""
        jobs = list(self.jobs)
        for job in jobs:
            self._fail(job, ServerUnavailable(GIVEN_UP))
        self.queries.give_up()
        return len(jobs)


def error_of(reply: protocol.Error) -> InferError:
    """The error that a member replied with, its code kept whatever it is."""
    error = InferError(reply.message)
    error.code = reply.code  # type: ignore[misc]
    error.reason = reply.reason  # type: ignore[misc]
    error.retry_after = reply.retry_after
    return error
