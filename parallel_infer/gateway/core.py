"""What the gateway decides. No socket, no clock: requests and messages come in, messages and replies go out."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from secrets import token_hex
from typing import Any, assert_never

from parallel_infer.errors import DeadlineExceeded, Dropped, InferError, ServerStopping, ServerUnavailable, Unauthorized
from parallel_infer.gateway.admission import Admission, source_name
from parallel_infer.gateway.composites import Composites
from parallel_infer.gateway.handover import GIVEN_UP, HAS_STOPPED, NOTICE, RETURN, STOPPING, Leaving
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.lending import Lending
from parallel_infer.gateway.looks import Looks
from parallel_infer.gateway.outside import Doors, Parent
from parallel_infer.gateway.pending import Outbox, Requester
from parallel_infer.gateway.queries import Queries
from parallel_infer.gateway.replies import Replies
from parallel_infer.gateway.response_cache import ResponseCache
from parallel_infer.ipc.messages import (
    Alive,
    Answered,
    AnswersInDoubt,
    ChainsServed,
    CloseDoor,
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
from parallel_infer.process.options import GatewayOptions
from parallel_infer.protocol import (
    Cancel,
    GiveBack,
    Greeting,
    Hello,
    Infer,
    Lend,
    Load,
    LoadChain,
    Look,
    Models,
    Ready,
    Reload,
    Report,
    Request,
    Status,
    Stop,
    Trace,
    Unload,
)


class Core:
    """Admits what clients send and replies to each request exactly once."""

    def __init__(
        self,
        outbox: Outbox,
        parent: Parent,
        doors: Doors,
        ingress: Ingress,
        lending: Lending,
        options: GatewayOptions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._parent = parent
        self._doors = doors
        self._ingress = ingress
        self._lending = lending
        self._clock = clock
        self._models: dict[str, ModelOpened] = {}
        number = itertools.count((options.epoch << 40) + 1).__next__  # those of two gateways of one run never meet
        self.looks = Looks(lambda ref: ingress.read(ref) or lending.read(ref), clock, options.page_picture)
        self.cache = ResponseCache(options.response_cache)
        content = lambda ref: ingress.read(ref) or lending.read_steady(ref)  # noqa: E731 - as above
        self.replies = Replies(outbox, ingress, content, self.looks, self.cache, clock)
        self.composites = Composites(
            *(outbox, self.replies, ingress, self._models, number, clock),
            max_objects=options.max_objects,
            max_crops=options.max_crops,
        )
        self.admission = Admission(
            *(self.replies, ingress, lending, self.cache, self._models, number, clock, self.composites),
            max_payload=options.max_payload,
            timeout=options.timeout,
        )
        self.queries = Queries(
            *(outbox, self.replies, self.admission, lending, self.own_status, number, clock),
            greeting=Greeting(options.max_payload, options.max_message, (token_hex(8),)),
        )
        self.leaving: Leaving | None = None  # a stop under way
        self._announced = False
        self._is_successor = options.epoch > 1  # of a gateway that died
        self._dispatcher = 0  # the epoch of the one that registered us last
        self._started = clock()

    # --- from clients ------------------------------------------------------------------------------------------------

    def request(self, request: Request, requester: Requester, payload: memoryview | None = None) -> None:
        """Do what a client asks for, or reply with the error that says why not."""
        if self.leaving is not None:
            self.leaving.note_request(self._clock())
        try:
            self._request(request, requester, payload)
        except InferError as error:
            if isinstance(request, Infer):
                known = request.model if request.model in (*self._models, *self.composites.chains) else ""
                self.replies.tally.failed(known, source_name(request), error.code)
                if self.leaving is not None and isinstance(error, ServerStopping):
                    self.leaving.refused += 1
            self.replies.error(requester, error)

    def refuse(self, requester: Requester, error: InferError) -> None:
        """Reply to what is no request, or to one that its sender may not make."""
        if self.leaving is not None:
            self.leaving.note_request(self._clock())
        self.replies.error(requester, error)

    def _request(self, request: Request, requester: Requester, payload: memoryview | None) -> None:
        match request:
            case Infer():
                self.admission.infer(request, requester, payload)
            case Cancel():
                self._cancel(request, requester)
            case Lend() | Trace() | Load() | LoadChain() | Reload() | Unload() if self.leaving is not None:
                raise ServerStopping(STOPPING)
            case Lend():
                self.queries.lend(request, requester)
            case GiveBack():
                self.queries.give_back(request, requester)
            case Hello():
                self.queries.hello(requester)
            case Models():
                self.queries.models(request, requester)
            case Status():
                self.queries.status(requester)
            case Ready():
                self.queries.ready(requester)
            case Trace():
                self.queries.trace(request, requester)
            case Look():
                self._look(request, requester)
            case Report():
                self.replies.tally.report(request)
                if payload is not None:
                    self.looks.drawn(request.source, payload)
                requester.result(self.looks.wanted(request.source))
            case Load() | LoadChain() | Reload() | Unload() | Stop():
                self.queries.manage(request, requester)
            case _:
                assert_never(request)

    def _look(self, request: Look, requester: Requester) -> None:
        """Raises Unauthorized for everybody but our own doors: frames are other clients' pictures."""
        if not requester.is_door:
            raise Unauthorized("frames of live sources are shown by the server's own doors only")
        source = self.replies.tally.source_called(request.source)
        if source is None:
            requester.result(None)
        else:
            self.looks.add(source, requester, self._clock() + request.seconds)

    def _cancel(self, request: Cancel, requester: Requester) -> None:
        pending = self.replies.pending.of(requester.key(request.job))
        if pending is None:
            return
        if pending.composite is not None:
            pending.composite.fail(Dropped.code, "cancelled by the client")
        else:
            self.replies.cancel(pending)

    # --- from inside -------------------------------------------------------------------------------------------------

    def take(self, message: ToGateway, payloads: Sequence[Any] = ()) -> None:
        """Take a message in; `payloads` are the frames that came with it. Raises ConfigError where no door opens."""
        match message:
            case Answered():
                self.replies.answered(message, payloads)
            case Refused():
                self.admission.note_refusal(message)
                self.replies.refused(message)
            case JobError():
                self.replies.refused(Refused(message.job, message.code, message.text, SlotFate.FREE))
            case Released():
                self.replies.released(message.job)
            case AnswersInDoubt():
                self._admit_again(message)
            case StatusReply():
                self.queries.on_status(message)
            case Traced():
                self.queries.on_traced(message)
            case Managed():
                self.queries.on_managed(message)
            case ModelOpened():
                self._models[message.plan.name] = message
                self.composites.models_changed()
                self.cache.opened(message.plan.name)
            case ModelClosed():
                self._models.pop(message.model, None)
                self.composites.models_changed()
                self.cache.closed(message.model)
            case ChainsServed():
                self.composites.chains_changed(message.chains)
            case Register():
                self._register(message)
            case OpenDoor():
                if addresses := self._doors.open():
                    self._parent.tell(Listening(addresses))
            case CloseDoor():
                self._close_door(message)
            case Ping():
                self._parent.tell(Alive())
            case _:
                assert_never(message)

    def _admit_again(self, message: AnswersInDoubt) -> None:
        """Answers may have died with their worker: their jobs are admitted again where no answer has come."""
        for job in message.jobs:
            pending = self.replies.pending.jobs.get(job)
            if pending is not None:
                pending.again = True
                self.replies.admit_again(pending)

    def _register(self, message: Register) -> None:
        """A dispatcher that is new to us: say who we are, and admit again what has no reply."""
        if message.epoch == self._dispatcher:
            return
        self._dispatcher = message.epoch
        self._outbox.send(GatewayUp(message.epoch))
        self.replies.release_held()
        for pending in self.replies.pending.jobs.values():
            if pending.composite is None:
                self.replies.admit_again(pending)
        self.queries.refuse(ServerUnavailable("the server was restarting; ask again"))
        if not self._announced:
            self._announced = True
            self._parent.tell(Started())

    # --- the end -----------------------------------------------------------------------------------------------------

    def _close_door(self, message: CloseDoor) -> None:
        """The server stops. Clients that want to be told are told at once, so that they send nothing in vain."""
        if self.leaving is not None:
            self.leaving.hasten(message.until)
            return
        not_before = self._clock() + RETURN if self._is_successor else -math.inf
        self.leaving = Leaving(message.until, self.replies.pending.of_clients, not_before)
        self.admission.closed = True
        self._doors.tell(NOTICE)

    def has_left(self) -> bool:
        """Whether there is nothing more to be said to anybody."""
        if self.leaving is None:
            return False
        pending = len(self.replies.pending.jobs) + len(self.queries.checks)
        return not self.leaving.continues(self._clock(), pending, self._doors.has_strangers, self._doors.is_read)

    def give_up(self) -> Left:
        """Reply to everybody who still waits that there will be no answer; how the stop went."""
        leaving = self.leaving or Leaving(0.0, 0)
        self.queries.expire(math.inf)
        self.looks.expire(math.inf)
        abandoned = self.replies.give_up(GIVEN_UP)
        self.queries.refuse(ServerStopping(STOPPING))
        self._doors.tell(HAS_STOPPED)
        return Left(leaving.pending - abandoned, leaving.refused, abandoned, unread=0)

    @property
    def until(self) -> float:
        """When the stop has to be over; 0.0 where there is none."""
        return 0.0 if self.leaving is None else self.leaving.until

    # --- timers ------------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When `on_timer` has something to do even if nothing comes in; None: never."""
        ends = None if self.leaving is None else self.leaving.ends
        timers = [t for t in (self.replies.pending.next_timer(), self._lending.next_timer(), ends) if t is not None]
        for others in (self.queries.timers(), self.composites.timers(), self.looks.timers()):
            timers += others
        timers += [job.until for job in self.admission.unsent]
        return min(timers, default=None)

    def on_timer(self, now: float) -> None:
        """Do what is due."""
        for job in self.replies.pending.overdue(now):  # the dispatcher is late, or gone
            pending = self.replies.pending.jobs.get(job)
            if pending is None:  # it had its reply with another one just now
                continue
            if pending.composite is not None:
                pending.composite.expire()
                continue
            text = "the deadline passed before the answer was ready"
            self.replies.refused(Refused(job, DeadlineExceeded.code, text, SlotFate.HELD))
            self._outbox.send(Overdue(job))
        self.queries.expire(now)
        self.looks.expire(now)
        self.composites.on_timer(now)
        self.send_synthetic()
        self._lending.expire(now)

    def send_synthetic(self) -> None:
        """Send the synthetic jobs that wait for a slot, as far as slots are free."""
        if self.admission.unsent:
            self.admission.send_synthetic()

    def own_status(self) -> dict[str, Any]:
        """The gateway's part of the status, without the times."""
        replies, pending = self.replies, self.replies.pending
        return {
            "uptime": round(self._clock() - self._started, 1),
            "pending": len(pending.jobs),
            "held": len(pending.held),
            "ingress": self._ingress.status(pending.refs()),
            "lent_bytes": self._lending.used,
            "response_cache": self.cache.status(),
            "clients": self.admission.shares.clients,
            "known_poison": len(replies.poison),
            **self._doors.status(),
            "cpu_seconds": round(time.process_time(), 3),
            "models": replies.tally.models(),
            "sources": replies.tally.sources(),
            "counts": {**replies.counts, "bytes_in": replies.tally.bytes_in},
        }
