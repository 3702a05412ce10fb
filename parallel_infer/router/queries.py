"""Every request but jobs: answered for all members together, once each of them has answered or is too late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.errors import BadInput, ServerStopping, ServerUnavailable
from parallel_infer.gateway.handover import STOPPING
from parallel_infer.limits import ALWAYS_READ
from parallel_infer.router import sums
from parallel_infer.router.jobs import Jobs, Requester
from parallel_infer.router.members import Member, Members
from parallel_infer.router.membership import Membership

_PATIENCE = 2.0  # seconds for what a member answers at once
_READY_PATIENCE = 5.0  # ... for a small job of each of its models
_MANAGING_PATIENCE = 600.0  # ... for models that are loaded
_ALONE = "a router records and shows nothing itself: ask a member at its own address"
_LENDS_NOTHING = "a router lends no memory: payloads travel in messages"

Found = dict[Member, protocol.Reply]  # what each member has replied
_decode = msgspec.msgpack.decode


class Gathering:
    """One question to several members; `done` gets what they replied, once."""

    def __init__(self, asked: Iterable[Member], until: float, done: Callable[[Found], None]) -> None:
        self._missing = set(asked)
        self._found: Found = {}
        self._done = done
        self.until = until

    def take(self, member: Member, reply: protocol.Reply) -> bool:
        """A member has replied; whether it was the last."""
        self._missing.discard(member)
        self._found[member] = reply
        if not self._missing:
            self.end()
            return True
        return False

    def end(self) -> None:
        """Wait no longer."""
        if self._done is not None:
            done, self._done = self._done, None  # type: ignore[assignment]
            done(self._found)


class Queries:
    """Asks members, and sums up what they say."""

    def __init__(
        self, members: Members, membership: Membership, jobs: Jobs, max_payload: int, clock: Callable[[], float]
    ) -> None:
        self._members = members
        self._membership = membership
        self._jobs = jobs
        self._max_payload = max_payload
        self._clock = clock
        self._started = clock()
        self._gatherings: set[Gathering] = set()
        self.counts: Counter[str] = Counter()  # replies to jobs: answered, or an error's code
        self.stop_asked = False
        self.own_status: Callable[[], dict[str, Any]] = dict  # of the shell
        self.doors: Callable[[], dict[str, dict[str, Any]]] = dict  # by name, as the status of a server has them

    def ask(self, request: protocol.Request, requester: Requester, closed: bool) -> None:
        """Answer a request, now or later. Raises the error that says why not."""
        match request:
            case protocol.Hello():
                requester.result(self._greeting())
            case protocol.Models(detail=False):
                requester.result(self.served())
            case protocol.Models():
                self._gather(request, _PATIENCE, lambda found: requester.result(sums.first_of_each(results(found))))
            case protocol.Status():
                self._gather(request, _PATIENCE, lambda found: requester.result(self._status(found, closed)))
            case protocol.Ready():
                self._gather(request, _READY_PATIENCE, lambda found: requester.result(self._ready(found, closed)))
            case protocol.Load() | protocol.LoadChain() | protocol.Reload() | protocol.Unload():
                if closed:
                    raise ServerStopping(STOPPING)
                self._manage(request, requester)
            case protocol.Stop():
                self.stop_asked = True
                requester.result({})
            case protocol.Report():
                self._pass_on(request)
                requester.result({})
            case protocol.Lend() | protocol.GiveBack():
                raise BadInput(_LENDS_NOTHING)
            case _:
                raise BadInput(_ALONE)

    def served(self) -> list[dict[str, Any]]:
        """What members that are there serve, each model as the first of them describes it, and who has it."""
        there = [member for member in self._members if member.is_there]
        return sums.models({member.name: member.models for member in there})

    def _greeting(self) -> dict[str, Any]:
        """The terms of whoever takes most: what a member does not take goes to one that does."""
        there = [member for member in self._members if member.is_there]
        most = min(self._max_payload, max((member.max_payload for member in there), default=self._max_payload))
        behind = dict.fromkeys(instance for member in self._members for instance in member.reached)
        instances = [self._membership.instance, *behind]
        return {"max_payload": most, "max_message": most + ALWAYS_READ, "instances": instances}

    def _gather(self, request: protocol.Request, patience: float, then: Callable[[Found], None]) -> None:
        there = [member for member in self._members if member.is_there]
        if not there:
            then({})
            return
        gathering = Gathering(there, self._clock() + patience, then)
        self._gatherings.add(gathering)
        for member in there:
            self._membership.ask(member, request, partial(self._took, gathering, member))

    def _took(self, gathering: Gathering, member: Member, reply: protocol.Reply) -> None:
        if gathering.take(member, reply):
            self._gatherings.discard(gathering)

    def _status(self, found: Found, closed: bool) -> dict[str, Any]:
        members = {member.name: self._member_status(member) for member in self._members}
        own = {
            "uptime": round(self._clock() - self._started, 1),
            "jobs": len(self._jobs),
            "waiting": len(self._jobs.waiting),
            "kept_bytes": self._jobs.bytes,
            "counts": dict(self.counts),
            **self.own_status(),
        }
        whole = sums.status({member.name: status for member, status in _by_member(found).items()})
        doors = {**whole.get("doors", {}), **self.doors()}
        return {**whole, "doors": doors, "draining": closed, "served": self.served(), "router": own, "members": members}

    def _member_status(self, member: Member) -> dict[str, Any]:
        return {
            "address": member.address,
            "state": "stuck" if member.stuck else member.state.value,
            "problem": member.problem,
            "models": sorted(member.models),
            "under_way": len(member.under),
            "sent": member.sent,
            "answered": member.answered,
            "failed": member.failed,
            "sent_elsewhere": member.lost,
            "connections_lost": member.gone,
        }

    def _ready(self, found: Found, closed: bool) -> dict[str, Any]:
        whole = sums.readiness({member.name: ready for member, ready in _by_member(found).items()})
        away = f"{ServerUnavailable.code}: it is started again"
        doors = {name: "ready" if door["state"] == "up" else away for name, door in self.doors().items()}
        told = {"doors": doors} if doors else {}
        return {**whole, **told, "ready": whole["ready"] and not closed and away not in doors.values()}

    def _manage(self, request: protocol.Request, requester: Requester) -> None:
        """All members do it. One that fails is an error that says who did and who did not."""

        def answer(found: Found, models: Found) -> None:
            for member, reply in models.items():
                self._membership.serves(member, reply)
            failed = {member.name: reply for member, reply in found.items() if isinstance(reply, protocol.Error)}
            if not failed:
                first = next(iter(results(found)), None)
                more = {"members": [member.name for member in found]} if isinstance(first, dict) else {}
                requester.result({**first, **more} if isinstance(first, dict) else first)
                return
            error = next(iter(failed.values()))
            others = [member.name for member in found if member.name not in failed]
            texts = "; ".join(f"{name}: {reply.message}" for name, reply in failed.items())
            requester.error(error.code, f"{texts}. Done by: {', '.join(others) or 'nobody'}", error.reason)

        if not any(member.is_there for member in self._members):
            raise ServerUnavailable("no member of the router is there")

        def done(found: Found) -> None:  # who hears of it may ask for it at once
            self._gather(protocol.Models(id=0), _PATIENCE, lambda models: answer(found, models))

        self._gather(request, _MANAGING_PATIENCE, done)

    def _pass_on(self, report: protocol.Report) -> None:
        """What is told of a source goes to one member, always the same as long as all are there."""
        there = [member for member in self._members if member.is_there]
        if there:
            self._membership.ask(there[hash(report.source) % len(there)], report, lambda reply: None)

    # --- what waits --------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `expire` has something to do."""
        return min((gathering.until for gathering in self._gatherings), default=None)

    def expire(self, now: float) -> None:
        """Do without members that have not replied in time."""
        for gathering in [gathering for gathering in self._gatherings if gathering.until <= now]:
            self._gatherings.discard(gathering)
            gathering.end()

    def give_up(self) -> None:
        """Answer everything with what there is."""
        self.expire(float("inf"))


def _by_member(found: Found) -> dict[Member, dict[str, Any]]:
    """Results that are maps."""
    decoded = {member: _decode(reply.result) for member, reply in found.items() if isinstance(reply, protocol.Result)}
    return {member: result for member, result in decoded.items() if isinstance(result, dict)}


def results(found: Found) -> list[Any]:
    """The results among the replies."""
    return [_decode(reply.result) for reply in found.values() if isinstance(reply, protocol.Result)]
