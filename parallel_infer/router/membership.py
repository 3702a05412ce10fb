"""Who is there: connections to members, what they serve, and when one is given up. No socket, no clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from parallel_infer import protocol
from parallel_infer.errors import ServerStopping
from parallel_infer.protocol import STOPPED
from parallel_infer.router.jobs import Job
from parallel_infer.router.members import Member, Members, State

log = logging.getLogger(__name__)
_BEATS = 4  # looks at all members within the time that one may be silent
_MODELS_EVERY = 1.0  # seconds between questions what a member serves; with many members more
_MANY = 500  # members that are asked so often
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds before a member that is away is tried again
_UNSUITABLE_PAUSE = 5.0  # ... and one that cannot be a member as it is
_JOIN_LIMIT = 5.0  # seconds from the beginning of a connection to the answer about models
_STUCK_EVERY = 1.0  # seconds between questions whether one that was stuck is so still

_greeting = msgspec.msgpack.Decoder(protocol.Greeting).decode
_models = msgspec.msgpack.Decoder(list[dict[str, Any]]).decode


class Patience(NamedTuple):
    """How long members are waited for, in seconds."""

    silence: float = 1.0  # until one that says nothing is lost
    stuck: float = 10.0  # until one that finishes none of its jobs is passed over; 0: never


class Links(Protocol):
    """The connections. What is sent over one that has ended is lost without a word."""

    def open(self, address: str, route: bytes) -> None:
        """Begin to connect to an address under `route`; that it fails is told later (`Membership.ended`)."""

    def close(self, route: bytes) -> None:
        """End a connection at once."""

    def send(self, route: bytes, request: protocol.Request, payload: Any = None) -> None:
        """Send a request."""


class Places(Protocol):
    """Where jobs go."""

    def lost(self, member: Member, jobs: Sequence[Job], counts: bool) -> None:
        """A member is gone, and the jobs that it had go elsewhere; `counts` where they may be the reason."""

    def stuck(self, jobs: Sequence[Job]) -> None:
        """A member does not finish these."""

    def place_waiting(self, again: bool = False) -> None:
        """A member is there, or has something new."""


class Membership:
    """Keeps every member connected, and knows what it serves."""

    def __init__(
        self,
        members: Members,
        links: Links,
        patience: Patience,
        instance: str,
        number: Callable[[], int],
        places: Places,
        clock: Callable[[], float],
    ) -> None:
        self._members = members
        self._links = links
        self._patience = patience
        self.instance = instance  # of this router
        self._number = number
        self._places = places
        self._clock = clock
        self._beat = patience.silence / _BEATS
        self._next = clock()

    # --- the list ----------------------------------------------------------------------------------------------------

    def list(self, members: Iterable[tuple[str, str]]) -> None:
        """These (name, address) are the members now. Others leave: they get nothing new and answer what they have."""
        listed = dict(members)
        for member in self._members:
            if listed.get(member.name) == member.address:
                member.listed = True
            else:
                self._unlist(member)
        for name, address in listed.items():
            known = self._members.named(name)
            if known is not None and known.listed:
                continue
            if known is not None:  # its address is another one now
                self._give_up(known, "its address has changed", counts=False)
            self._members.add(Member(name, address))
        self._next = self._clock()

    def _unlist(self, member: Member) -> None:
        if not member.listed:
            return
        log.info("%s is no member any more", member.name)
        member.listed = False
        if member.state is State.UP:
            member.state = State.LEAVING
            self._members.changed()

    # --- what members say --------------------------------------------------------------------------------------------

    def ended(self, route: bytes, why: str) -> None:
        """A connection has ended, or did not come about."""
        member = self._members.at(route)
        if member is not None:
            self._give_up(member, why or "it cannot be reached")

    def heard(self, member: Member, reply: protocol.Reply) -> None:
        """A member has replied to something that is no job, or to nothing."""
        asked = member.asked.pop(reply.id, None)
        if asked is not None:
            asked(reply)
        elif isinstance(reply, protocol.Error) and reply.id == 0:
            if reply.reason == ServerStopping.reason:
                self.leaves(member)
            elif reply.reason == STOPPED:
                member.stopped = True
                self._give_up(member, "it has stopped", counts=False)

    def leaves(self, member: Member) -> None:
        """It is stopping."""
        if member.state is State.UP:
            log.info("%s is stopping", member.name)
            member.state = State.LEAVING
            member.problem = "it is stopping"
            self._members.changed()

    def lacks(self, member: Member, model: str) -> None:
        """It said that it does not serve a model."""
        if model in member.models:
            member.models = {name: facts for name, facts in member.models.items() if name != model}
            member.models_raw = b""
            self._members.changed()

    def ask(self, member: Member, request: protocol.Request, then: Callable[[protocol.Reply], None]) -> None:
        """Send a member a request that is no job."""
        number = self._number()
        member.asked[number] = then
        self._links.send(member.route, msgspec.structs.replace(request, id=number))

    def _open(self, member: Member, now: float) -> None:
        route = b"%d" % self._number()
        self._members.route(route, member)
        member.state, member.since = State.JOINING, now
        self._links.open(member.address, route)
        if member.route != route:
            return  # it failed at once
        self._ask(member, now)

    def _greeted(self, member: Member, reply: protocol.Reply) -> None:
        if not member.route:
            return  # the connection ended before
        if not isinstance(reply, protocol.Result):
            said = reply.message if isinstance(reply, protocol.Error) else "an answer"
            self._refuse(member, f"it does not speak version {protocol.VERSION} of the protocol; it said: {said}")
            return
        try:
            greeting = _greeting(reply.result)
        except msgspec.MsgspecError as error:
            self._refuse(member, f"it says of itself what this router does not understand: {error}")
            return
        if member.max_payload != greeting.max_payload:
            member.max_payload = greeting.max_payload
            self._members.changed()
        member.reached = greeting.instances
        member.instance = greeting.instances[0] if greeting.instances else ""
        if self.instance in greeting.instances:
            self._refuse(member, "it is this router itself, or a router that has it for a member: a loop")

    def _twin(self, member: Member) -> Member | None:
        others = (other for other in self._members if other is not member and other.listed and other.is_there)
        return next((other for other in others if member.instance and other.instance == member.instance), None)

    def _refuse(self, member: Member, why: str) -> None:
        self._give_up(member, why, counts=False)
        member.retry_at = self._clock() + _UNSUITABLE_PAUSE

    def _ask(self, member: Member, now: float) -> None:
        """Who it is and what it serves: routers get other members, and servers other models."""
        member.models_asked = now
        self.ask(member, protocol.Hello(id=0), lambda reply: self._greeted(member, reply))
        self.ask(member, protocol.Models(id=0), lambda reply: self.serves(member, reply))

    def serves(self, member: Member, reply: protocol.Reply) -> None:
        """What a member serves, as it says; most times that is what it said before."""
        if not isinstance(reply, protocol.Result):
            return
        raw = bytes(reply.result)
        if raw != member.models_raw:
            try:
                member.models = {str(facts["name"]): facts for facts in _models(raw)}
            except (msgspec.MsgspecError, KeyError, TypeError) as error:
                self._refuse(member, f"its list of models cannot be read: {error}")
                return
            member.models_raw = raw
            self._members.changed()
            if member.state is State.UP:
                self._places.place_waiting()
        if member.state is State.JOINING and member.max_payload:
            self._join(member)

    def _join(self, member: Member) -> None:
        if twin := self._twin(member):
            self._refuse(member, f"it is the same server as {twin.name}, under another address")
            return
        member.state = State.UP if member.listed else State.LEAVING
        member.pause = 0.0
        member.stopped = member.stuck = False
        member.problem = member.said = ""
        self._members.changed()
        log.info("%s is there and serves %s", member.name, ", ".join(sorted(member.models)) or "no model")
        self._places.place_waiting()

    # --- the end of a connection -------------------------------------------------------------------------------------

    def _give_up(self, member: Member, why: str, counts: bool = True) -> None:
        """The connection to a member is over. What it had goes elsewhere; late replies will find nothing."""
        now = self._clock()
        was_there, stopped = member.is_there, member.stopped
        self._links.close(member.route)
        self._members.unroute(member)
        member.state, member.stuck, member.problem = State.AWAY, False, why
        member.gone += was_there
        member.pause = min(max(2 * member.pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        member.retry_at = now + member.pause
        asked, member.asked = member.asked, {}
        under, member.under = member.under, {}
        self._members.changed()
        if member.said != why:
            member.said = why
            log.warning("the member %s: %s%s", member.name, why, f"; {len(under)} jobs go elsewhere" * bool(under))
        if not member.listed:
            self._members.remove(member)
        gone = protocol.Error(id=0, code="SERVER_UNAVAILABLE", message=why)
        for then in asked.values():
            then(gone)
        for number, job in under.items():
            job.attempts.pop(number, None)
        self._places.lost(member, list(under.values()), counts and not stopped)

    # --- time --------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float:
        """When to look at all members again."""
        return self._next

    def on_timer(self, now: float) -> bool:
        """Look at all members, where it is time for that; whether it was. Everything that came was taken in before."""
        late = now - self._next
        if late < 0:
            return False
        self._next = now + self._beat
        for member in self._members:
            if late > self._beat:  # it was us who stood still
                member.heard = min(now, member.heard + late)
                member.progress = min(now, member.progress + late)
            self._look_at(member, now)
        return True

    def _look_at(self, member: Member, now: float) -> None:
        if member.state is State.AWAY:
            if not member.listed:
                self._members.remove(member)
            elif now >= member.retry_at:
                self._open(member, now)
            return
        if member.state is State.JOINING:
            if now - member.since > _JOIN_LIMIT:
                self._give_up(member, f"it has not answered within {_JOIN_LIMIT:g} s of connecting")
            return
        if now - member.heard > self._patience.silence:
            text = f"it has said nothing for {self._patience.silence:g} s (option silence_ms)"
            self._give_up(member, text)
        elif not member.listed and not member.under and not member.asked:
            self._give_up(member, "it is no member any more", counts=False)
        else:
            self._keep_up(member, now)

    def _keep_up(self, member: Member, now: float) -> None:
        """Ask how it is, as far as it does not say so by itself."""
        if now - member.models_asked >= _MODELS_EVERY * max(1.0, len(self._members) / _MANY):
            self._ask(member, now)
        elif now - member.heard >= self._beat:
            self.ask(member, protocol.Hello(id=0), lambda reply: None)
        if not self._patience.stuck:
            return
        if member.stuck:
            if now - member.pinged >= _STUCK_EVERY:
                member.pinged = now
                self.ask(member, protocol.Ready(id=0), lambda reply: self._is_ready(member, reply))
        elif member.under and now - member.progress >= self._patience.stuck:
            self._is_stuck(member)

    def _is_stuck(self, member: Member) -> None:
        member.stuck = True
        member.problem = f"it has finished none of its jobs for {self._patience.stuck:g} s (option stuck_ms)"
        log.warning("the member %s: %s; others are preferred", member.name, member.problem)
        self._members.changed()
        self._places.stuck(list(member.under.values()))

    def _is_ready(self, member: Member, reply: protocol.Reply) -> None:
        """A picture went through every stage of every model, or did not."""
        if not member.stuck or not isinstance(reply, protocol.Result):
            return
        if msgspec.msgpack.decode(reply.result).get("ready"):
            log.warning("the member %s finishes jobs again", member.name)
            member.stuck, member.problem, member.progress = False, "", self._clock()
            self._members.changed()
