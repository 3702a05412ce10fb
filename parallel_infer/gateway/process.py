"""The gateway's process: doors outside, two links inside, and a loop that admits and replies."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.errors import (
    ConfigError,
    DeadlineExceeded,
    Dropped,
    InferError,
    ServerStopping,
    ServerUnavailable,
)
from parallel_infer.gateway.access import AccessControl
from parallel_infer.gateway.admission import Admission, source_name
from parallel_infer.gateway.handover import FAREWELL, GIVEN_UP, NOTICE, RETURN, STOPPING, Handover, Leaving
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.lending import Lending
from parallel_infer.gateway.queries import Queries
from parallel_infer.gateway.replies import Replies
from parallel_infer.gateway.requests import read_request
from parallel_infer.ipc.channel import AnswerInlet, Link, Watch, new_context
from parallel_infer.ipc.client_socket import ClientSocket, ReplyAddress, ZapAuthenticator
from parallel_infer.ipc.messages import (
    Alive,
    Answered,
    AnswersInDoubt,
    CancelJob,
    CloseDoor,
    Drained,
    GatewayUp,
    JobError,
    Left,
    Listening,
    Managed,
    ModelClosed,
    ModelOpened,
    OpenDoor,
    Overdue,
    Ping,
    Refused,
    Register,
    Released,
    SlotFate,
    Started,
    StatusReply,
    ToGateway,
    Traced,
)
from parallel_infer.machine.descriptors import raise_limit
from parallel_infer.process.child import Child
from parallel_infer.process.options import GatewayOptions

log = logging.getLogger(__name__)
_MANAGING = frozenset({protocol.Load, protocol.Unload, protocol.Stop})
_REFUSED_AT_THE_END = frozenset({protocol.Lend, protocol.Trace, protocol.Load, protocol.Unload})
_LOOKS = 16  # at most so many times everything is taken in before the clock is looked at


class Gateway:
    """Admits what clients send and replies to each request exactly once."""

    def __init__(self, child: Child, options: GatewayOptions) -> None:
        self._child = child
        self._options = options
        self._context = new_context()
        self._link: Link[ToGateway] = Link(self._context, options.dispatcher, child.name, ToGateway)
        self._inlet: AnswerInlet[ToGateway] = AnswerInlet(self._context, options.answers, ToGateway)
        self._entrance = AccessControl(options.keys, options.max_clients)
        self._doorkeeper = ZapAuthenticator(self._context, self._entrance.judge)
        self._doors: dict[Any, ClientSocket] = {}
        self._comings: dict[Any, ClientSocket] = {}
        self._watch = Watch()
        self._watch.add(self._doorkeeper.socket)
        self._watch.add(self._link.socket)
        self._watch.add(self._inlet.socket)
        self._ingress = Ingress(list(options.ingress))
        epoch = options.epoch
        self._lending = Lending(lambda name: f"{options.segments}-g{epoch}-{name}", options.lent_memory)
        self._models: dict[str, ModelOpened] = {}
        self._replies = Replies(self._link, self._ingress)
        self._admission = Admission(
            *(self._link, self._replies, self._ingress, self._lending, self._models, self._number),
            max_payload=options.max_payload,
            timeout=options.timeout,
        )
        self._queries = Queries(
            *(self._link, self._replies, self._admission, self._lending, self._own_status, self._number),
            limits={"max_payload": options.max_payload, "max_message": options.max_message},
        )
        self._next = epoch << 40  # job numbers of two gateways of one run never meet
        self._announced = False
        self._dispatcher = 0  # the epoch of the one that greeted us last
        self._leaving: Leaving | None = None
        self._started = time.monotonic()
        self._take: dict[type, Callable[[Any], None]] = {
            Refused: self._on_refused,
            Released: lambda message: self._replies.release(self._replies.pending.held.pop(message.job, None)),
            AnswersInDoubt: self._on_doubtful,
            StatusReply: self._queries.on_status,
            Traced: self._queries.on_traced,
            JobError: lambda message: self._replies.refused(message.job, message.code, message.text, SlotFate.FREE),
            ModelOpened: lambda message: self._models.__setitem__(message.plan.name, message),
            ModelClosed: self._on_model_closed,
            Register: self._on_register,
            OpenDoor: lambda message: self._open_doors(),
            CloseDoor: self._close_door,
            Managed: self._queries.on_managed,
            Ping: lambda message: self._child.tell(Alive()),
        }
        self._requests: dict[type, Callable[[Any, ReplyAddress, Any], None]] = {
            protocol.Infer: self._admission.infer,
            protocol.Cancel: self._cancel,
            protocol.Lend: self._queries.lend,
            protocol.GiveBack: self._queries.give_back,
            protocol.Hello: self._queries.hello,
            protocol.Models: self._queries.models,
            protocol.Status: self._queries.status,
            protocol.Ready: self._queries.ready,
            protocol.Trace: self._queries.trace,
            protocol.Load: self._queries.manage,
            protocol.Unload: self._queries.manage,
            protocol.Stop: self._queries.manage,
        }

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Sleep until something is there; take answers first, since they free what requests need."""
        while not self._has_left():
            timer = self._next_timer()
            self._take_in(self._watch.wait(self._timeout_until(timer)))
            now = time.monotonic()
            if timer is not None and timer <= now:  # what has come by now counts before what is late by now
                for _ in range(_LOOKS):
                    if not (there := self._watch.wait(0)):
                        break
                    self._take_in(there)
            self._on_timer(now)
            self._link.flush()

    def _take_in(self, there: set[Any]) -> None:
        if self._inlet.socket in there:
            for message, payloads in self._inlet.drain():
                if type(message) is Answered:
                    self._replies.answered(message, payloads)
                else:
                    self._take[type(message)](message)
        if self._link.socket in there:
            for message in self._link.drain():
                self._take[type(message)](message)
        if self._admission.unsent:  # before clients take the slots that just got free
            self._admission.send_synthetic()
        for socket, door in self._doors.items():
            if socket in there:
                for frames in door.drain():
                    self._on_request(door, frames)
        if self._doorkeeper.socket in there:
            self._doorkeeper.answer()
        for socket in there & self._comings.keys():
            self._comings[socket].connections()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _close_door(self, message: CloseDoor) -> None:
        """The server stops. Who wants to be told is told at once, so that it sends nothing in vain."""
        if self._leaving is not None:
            self._leaving.hasten(message.until)
            return
        owed = sum(owed.share is not None for owed in self._replies.pending.jobs.values())
        not_before = time.monotonic() + RETURN if self._options.epoch > 1 else -math.inf
        self._leaving = Leaving(message.until, owed, not_before)
        self._admission.closed = True
        for door in self._doors.values():
            door.tell(*NOTICE)

    def _has_left(self) -> bool:
        """Whether there is nothing more to be said to anybody."""
        if self._leaving is None:
            return False
        doors = self._doors.values()
        return not self._leaving.goes_on(
            time.monotonic(),
            len(self._replies.pending.jobs) + len(self._queries.checks),
            lambda: any(door.has_strangers for door in doors),
            lambda: all(door.is_read for door in doors),
        )

    def close(self) -> Left:
        """Give up what is still owed, close the doors, and wait until each client has taken its replies."""
        leaving = self._leaving or Leaving(0.0, 0)
        for _ in range(_LOOKS):
            for door in self._doors.values():
                for frames in door.drain():
                    self._on_request(door, frames)
        self._queries.expire(math.inf)
        abandoned = self._replies.give_up(GIVEN_UP)
        self._queries.refuse(ServerStopping(STOPPING))
        for door in self._doors.values():
            door.tell(*FAREWELL)
        self._child.tell(Drained())
        handover = Handover(descriptor for door in self._doors.values() for descriptor in door.descriptors())
        for door in self._doors.values():
            door.close(leaving.until)
        self._doorkeeper.close()
        self._lending.close()
        self._link.close()
        self._inlet.close()
        self._context.term()
        unread = handover.wait(leaving.until)
        self._entrance.close()
        return Left(leaving.owed - abandoned, leaving.refused, abandoned, unread)

    def _next_timer(self) -> float | None:
        waits = self._replies.pending.next_timer(), self._lending.next_timer()
        timers = [timer for timer in waits if timer is not None]
        timers += [*self._queries.timers(), *(job.until for job in self._admission.unsent)]
        timers += [self._leaving.ends] if self._leaving is not None else []
        return min(timers, default=None)

    @staticmethod
    def _timeout_until(timer: float | None) -> float | None:
        return None if timer is None else timer - time.monotonic()

    def _on_timer(self, now: float) -> None:
        for job in self._replies.pending.overdue(now):  # the dispatcher is late, or gone
            text = "the deadline passed before the answer was ready"
            self._replies.refused(job, DeadlineExceeded.code, text, SlotFate.HELD)
            self._link.send(Overdue(job))
        self._queries.expire(now)
        if self._admission.unsent:
            self._admission.send_synthetic()
        self._lending.expire(now)

    # --- from clients ------------------------------------------------------------------------------------------------

    def _on_request(self, door: ClientSocket, frames: list[Any]) -> None:
        client = frames[0].bytes
        enveloped = 1 if len(frames) > 2 and not len(frames[1]) else 0
        if len(frames) == 2 and not len(frames[1]):  # ZMQ_PROBE_ROUTER
            self._greet(door, client, frames[-1])
            return
        caller = ReplyAddress(door, client, enveloped)
        request: protocol.Request | None = None
        if self._leaving is not None:
            self._leaving.heard(time.monotonic())
        try:
            request = read_request(frames[1 + enveloped :], caller)
            payload = frames[2 + enveloped].buffer if len(frames) > 2 + enveloped else None
            kind = type(request)
            if kind in _MANAGING:
                self._entrance.check_manages(door, frames[-1])
            if self._leaving is not None and kind in _REFUSED_AT_THE_END:
                raise ServerStopping(STOPPING)
            if kind is protocol.Hello and not enveloped:
                self._greet(door, client, frames[-1])
            self._requests[kind](request, caller, payload)
        except InferError as error:
            if isinstance(request, protocol.Infer):
                known = request.model if request.model in self._models else ""
                self._replies.tally.failed(known, source_name(request), error.code)
                if self._leaving is not None and isinstance(error, ServerStopping):
                    self._leaving.refused += 1
            self._replies.error(caller, error.code, str(error), error.reason)

    def _greet(self, door: ClientSocket, client: bytes, frame: Any) -> None:
        """A client that wants to be told of a stop."""
        door.enlist(client, frame)
        if self._leaving is not None:
            ReplyAddress(door, client).error(*NOTICE)

    def _cancel(self, request: protocol.Cancel, caller: ReplyAddress, payload: Any) -> None:
        job = self._replies.pending.job_of(caller.key(request.job))
        if job is None:
            return
        if self._link.withdraw(self._replies.pending.jobs[job].admit):  # it came together with the job, after a stall
            self._replies.refused(job, Dropped.code, "cancelled by the client", SlotFate.FREE)
        else:
            self._link.send(CancelJob(job))

    def _number(self) -> int:
        """A number for a job or a query that this run never used before."""
        self._next += 1
        return self._next

    # --- from inside -------------------------------------------------------------------------------------------------

    def _on_refused(self, message: Refused) -> None:
        self._replies.refused(message.job, message.code, message.text, message.slot)

    def _on_doubtful(self, message: AnswersInDoubt) -> None:
        """Answers may have died with their worker: what is still owed is admitted again."""
        for job in message.jobs:
            owed = self._replies.pending.jobs.get(job)
            if owed is not None:
                owed.again = True
                self._link.send(owed.admit)

    def _on_model_closed(self, message: ModelClosed) -> None:
        self._models.pop(message.model, None)

    def _on_register(self, message: Register) -> None:
        """A dispatcher that is new to us: say who we are, and admit again what is owed."""
        if message.epoch == self._dispatcher:
            return
        self._dispatcher = message.epoch
        self._link.send(GatewayUp(message.epoch))
        for job in list(self._replies.pending.held):
            self._replies.release(self._replies.pending.held.pop(job))
        for owed in self._replies.pending.jobs.values():
            self._link.send(owed.admit)
        self._queries.refuse(ServerUnavailable("the server was restarting; ask again"))
        if not self._announced:
            self._announced = True
            self._child.tell(Started())

    def _open_doors(self) -> None:
        """Let clients in. Where what was meant for a predecessor reaches us as well, they are in already."""
        if self._doors:
            return
        limit = self._options.max_message
        inside = self._options.inside  # for our own supervisor, and told to nobody
        try:
            for address in (*self._options.bind, *([inside] if inside else ())):
                door = self._entrance.open(address, partial(ClientSocket, self._context, address, limit))
                self._doors[door.socket] = self._comings[door.comings] = door
                self._watch.add(door.socket)
                self._watch.add(door.comings)
        except (OSError, ConfigError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot listen at {address}: {reason}") from None
        addresses = tuple(door.address for door in self._doors.values() if door.address != inside)
        self._child.tell(Listening(addresses))

    def _own_status(self) -> dict[str, Any]:
        return {
            "uptime": round(time.monotonic() - self._started, 1),
            "pending": len(self._replies.pending.jobs),
            "held": len(self._replies.pending.held),
            "ingress": self._ingress.status(self._replies.pending.refs()),
            "lent_bytes": self._lending.used,
            "clients": self._admission.shares.clients,
            "known_poison": len(self._replies.poison),
            "cut": sum(door.cut for door in self._doors.values()),
            "unread": sum(door.unread for door in self._doors.values()),
            "cpu_seconds": round(time.process_time(), 3),
            "models": self._replies.tally.models(),
            "sources": self._replies.tally.sources(),
            "counts": {**self._replies.counts, "bytes_in": self._replies.tally.bytes_in},
        }


def main(child: Child, encoded: bytes) -> None:
    """Entry point of the process."""
    os.umask(0o077)  # a socket's file is there from the moment it is bound
    raise_limit()  # every client takes a descriptor
    gateway = Gateway(child, msgspec.msgpack.decode(encoded, type=GatewayOptions))
    gateway.run_forever()
    child.tell(gateway.close())
