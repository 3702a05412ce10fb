"""The gateway's process: doors outside, two links inside, and a loop that admits and replies."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.channel import AnswerInlet, Doorkeeper, Front, Link, Watch, new_context
from parallel_infer.child import Child
from parallel_infer.errors import (
    BadInput,
    ConfigError,
    DeadlineExceeded,
    InferError,
    Poison,
    ResourceUnavailable,
    ServerUnavailable,
    UnknownModel,
)
from parallel_infer.gateway.entrance import Entrance
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.lending import Lending
from parallel_infer.gateway.pending import Caller, Owed, Pending
from parallel_infer.gateway.poison import KnownPoison
from parallel_infer.gateway.readiness import PATIENCE, ReadinessCheck, SyntheticJob, synthetic_job
from parallel_infer.gateway.requests import admitted_kind, model_facts, read_request
from parallel_infer.gateway.shares import Share, Shares
from parallel_infer.gateway.tally import UNNAMED, Tally
from parallel_infer.gateway.tracing import Tracing
from parallel_infer.job_times import BOUNDS
from parallel_infer.messages import (
    OWN_PRIORITY,
    TIMES,
    Admit,
    Answered,
    AnswerFormat,
    CancelJob,
    CloseDoor,
    GatewayUp,
    JobError,
    Manage,
    Managed,
    ModelClosed,
    ModelOpened,
    OpenDoor,
    Overdue,
    Pulse,
    Refused,
    Register,
    Released,
    SlotFate,
    SlotRef,
    StatusQuery,
    StatusReply,
    ToGateway,
    Traced,
    TraceQuery,
)
from parallel_infer.ring import RingSpec

log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode
_KNOWN = "this very payload killed two workers before"
_MANAGING = frozenset({protocol.Load, protocol.Unload, protocol.Stop})


class Gateway:
    """Admits what clients send and replies to each request exactly once."""

    def __init__(self, child: Child, options: dict[str, Any]) -> None:
        self._child = child
        self._options = options
        self._context = new_context()
        self._link: Link[ToGateway] = Link(self._context, options["dispatcher"], child.name, ToGateway)
        self._inlet: AnswerInlet[ToGateway] = AnswerInlet(self._context, options["answers"], ToGateway)
        self._entrance = Entrance(options["keys"], options["max_clients"])
        self._doorkeeper = Doorkeeper(self._context, self._entrance.judge)
        self._doors: dict[Any, Front] = {}
        self._comings: dict[Any, Front] = {}
        self._watch = Watch()
        self._watch.add(self._doorkeeper.socket)
        self._watch.add(self._link.socket)
        self._watch.add(self._inlet.socket)
        self._ingress = Ingress(msgspec.convert(options["ingress"], list[RingSpec]))
        self._max_payload = min(int(options["max_payload"]), self._ingress.largest)
        self._timeout = float(options["timeout"])
        epoch = int(options["epoch"])
        self._lending = Lending(lambda name: f"{options['segments']}-g{epoch}-{name}", int(options["lent_memory"]))
        self._pending = Pending()
        self._shares = Shares()
        self._poison = KnownPoison()
        self._queries: dict[int, Caller] = {}
        self._checks: dict[int, ReadinessCheck] = {}  # that wait for what the dispatcher says
        self._tracing: Tracing | None = None
        self._unsent: list[SyntheticJob] = []  # that wait for a slot
        self._next = epoch << 40  # job numbers of two gateways of one run never meet
        self._models: dict[str, ModelOpened] = {}
        self._announced = False
        self._dispatcher = 0  # the epoch of the one that greeted us last
        self._closing = False
        self._counts: Counter[str] = Counter()
        self._tally = Tally()
        self._started = time.monotonic()
        self._take: dict[type, Callable[[Any], None]] = {
            Refused: self._on_refused,
            Released: lambda message: self._release(self._pending.held.pop(message.job, None)),
            StatusReply: self._on_status,
            Traced: self._on_traced,
            JobError: lambda message: self._reply_error(message.job, message.code, message.text, SlotFate.FREE),
            ModelOpened: lambda message: self._models.__setitem__(message.plan.name, message),
            ModelClosed: self._on_model_closed,
            Register: self._on_register,
            OpenDoor: lambda message: self._open_doors(),
            CloseDoor: lambda message: setattr(self, "_closing", True),
            Managed: self._on_managed,
            Pulse: lambda message: self._child.alive(),
        }
        self._requests: dict[type, Callable[[Any, Caller, Any], None]] = {
            protocol.Infer: self._infer,
            protocol.Cancel: self._cancel,
            protocol.Lend: self._lend,
            protocol.GiveBack: self._give_back,
            protocol.Models: lambda request, caller, payload: self._result(caller, self._model_list()),
            protocol.Status: self._status,
            protocol.Ready: self._ready,
            protocol.Trace: self._trace,
            protocol.Load: self._manage,
            protocol.Unload: self._manage,
            protocol.Stop: self._manage,
        }

    # --- the loop ----------------------------------------------------------------------------------------------------

    def run_forever(self) -> None:
        """Sleep until something is there; take answers first, since they free what requests need."""
        inlet, link, watch = self._inlet, self._link, self._watch
        while not self._closing or self._pending.jobs:
            there = watch.wait(self._timeout_until(self._next_timer()))
            if inlet.socket in there:
                for message, payloads in inlet.drain():
                    if type(message) is Answered:
                        self._on_answered(message, payloads)
                    else:
                        self._take[type(message)](message)
            if link.socket in there:
                for message in link.drain():
                    self._take[type(message)](message)
            if self._unsent:  # before clients take the slots that just got free
                self._send_synthetic()
            for socket, door in self._doors.items():
                if socket in there:
                    for frames in door.drain():
                        self._on_request(door, frames)
            if self._doorkeeper.socket in there:
                self._doorkeeper.answer()
            for socket in there & self._comings.keys():
                self._comings[socket].connections()
            self._on_timer(time.monotonic())
            link.flush()

    def close(self) -> None:
        """Close the doors, giving the last replies a moment to leave, and take lent rings back."""
        for door in self._doors.values():
            door.close()
        self._doorkeeper.close()
        self._lending.close()
        self._link.close()
        self._inlet.close()
        self._context.term()
        self._entrance.close()

    def _next_timer(self) -> float | None:
        timers = [timer for timer in (self._pending.next_timer(), self._lending.next_timer()) if timer is not None]
        timers += [check.deadline for check in self._checks.values()] + [job.until for job in self._unsent]
        return min(timers, default=None)

    @staticmethod
    def _timeout_until(timer: float | None) -> float | None:
        return None if timer is None else timer - time.monotonic()

    def _on_timer(self, now: float) -> None:
        for job in self._pending.overdue(now):  # the dispatcher is late, or gone
            text = "the deadline passed before the answer was ready"
            self._reply_error(job, DeadlineExceeded.code, text, SlotFate.HELD)
            self._link.send(Overdue(job))
        for number in [number for number, check in self._checks.items() if check.deadline <= now]:
            self._checks.pop(number).give_up()
        if self._unsent:
            self._send_synthetic()
        self._lending.expire(now)

    # --- from clients ------------------------------------------------------------------------------------------------

    def _on_request(self, door: Front, frames: list[Any]) -> None:
        client = frames[0].bytes
        enveloped = 1 if len(frames) > 2 and not len(frames[1]) else 0
        caller = Caller(door, client, enveloped, 0)
        request: protocol.Request | None = None
        try:
            request = read_request(frames, enveloped, caller)
            payload = frames[2 + enveloped] if len(frames) > 2 + enveloped else None
            kind = type(request)
            if kind in _MANAGING:
                self._entrance.check_manages(door, frames[-1])
            self._requests[kind](request, caller, payload)
        except InferError as error:
            if isinstance(request, protocol.Infer):
                known = request.model if request.model in self._models else ""
                self._tally.failed(known, source_name(request), error.code)
            self._error(caller, error.code, str(error))

    def _infer(self, request: protocol.Infer, caller: Caller, payload: Any) -> None:
        opened = self._models.get(request.model)
        if opened is None:
            known = ", ".join(sorted(self._models)) or "none"
            raise UnknownModel(f"no model {request.model!r} is served; served are: {known}")
        if self._pending.job_of(caller, request.id) is not None:
            return  # sent again by a client that lost its connection; it will be answered once
        now = time.monotonic()
        kind = admitted_kind(request)
        share = self._shares.of(caller.client, request.model, now)
        try:
            self._shares.check(share, request.model, opened.plan.queue_size)
            ref = self._store(request, caller, payload, now, share)
        except ResourceUnavailable:
            self._counts["rejected"] += 1
            raise
        admit = Admit(
            self._number(),
            request.model,
            ref,
            kind,
            request.tensors,
            bytes(request.options),
            AnswerFormat.OBJECTS if request.format == "objects" else AnswerFormat.ARRAYS,
            now,
            now + (self._timeout if request.timeout is None else request.timeout),
            request.priority,
            f"{caller.client.hex()}/{request.source}" if request.drop == "latest" else "",
        )
        self._tally.of(request.model).bytes_in += ref.size
        self._pending.add(Owed(caller, admit, share, source_name(request)))
        self._link.send(admit)
        if self._tracing is not None:
            self._tracing.admitted(admit.job, now)

    def _store(self, request: protocol.Infer, caller: Caller, payload: Any, now: float, share: Share) -> SlotRef:
        if request.slot is not None:
            return self._lending.ref(caller.client, request.slot, now)
        size = len(payload) if payload is not None else 0
        if not size:
            raise BadInput("the payload is empty: send the picture's bytes as the second frame")
        if size > self._max_payload:
            raise BadInput(
                f"the payload has {size} bytes; the server takes up to {self._max_payload} (option max_payload_mb)"
            )
        if self._poison and self._poison.knows(admitted_kind(request), request.model, payload.buffer):
            raise Poison(_KNOWN)
        clients = self._shares.clients
        ref = self._ingress.store(payload.buffer, size, share.slots, clients)
        if ref is None:
            among = f", or this client has its part among {clients}" if clients > 1 else ""
            raise ResourceUnavailable(
                f"every slot for payloads of {size} bytes is taken{among} (option shared_memory_mb); try again later"
            )
        return ref

    def _cancel(self, request: protocol.Cancel, caller: Caller, payload: Any) -> None:
        job = self._pending.job_of(caller, request.job)
        if job is not None:
            self._link.send(CancelJob(job))

    def _lend(self, request: protocol.Lend, caller: Caller, payload: Any) -> None:
        if not (isinstance(caller.door, Front) and caller.door.address.startswith("ipc://")):
            raise BadInput("slots are lent to clients on the same machine only: connect through ipc://")
        now = time.monotonic()
        if request.ring is not None:
            self._result(caller, self._lending.renew(caller.client, request.ring, now))
        else:
            self._result(caller, self._lending.lend(caller.client, request.slots, request.size, now))

    def _give_back(self, request: protocol.GiveBack, caller: Caller, payload: Any) -> None:
        self._lending.give_back(caller.client, request.ring)
        self._result(caller, {})

    def _status(self, request: protocol.Status, caller: Caller, payload: Any) -> None:
        number = self._query(caller)
        self._link.send(StatusQuery(number))

    def _ready(self, request: protocol.Ready, caller: Caller, payload: Any) -> None:
        number = self._number()
        deadline = time.monotonic() + PATIENCE
        self._checks[number] = ReadinessCheck(list(self._models), deadline, partial(self._result, caller))
        self._link.send(StatusQuery(number))

    def _send_synthetic(self) -> None:
        """Send the synthetic jobs there are slots for. The others wait for one: load is no fault."""
        now = time.monotonic()
        waiting, self._unsent = self._unsent, []
        for job in waiting:
            opened = self._models.get(job.model)
            if opened is None:
                job.settle(f"{UnknownModel.code}: it is served no more")
                continue
            kind, tensors, content = synthetic_job(opened)
            ref = self._ingress.store(content, len(content)) if len(content) <= self._max_payload else None
            if ref is None:
                if now < job.until:
                    self._unsent.append(job)
                else:
                    job.settle(f"{ResourceUnavailable.code}: no slot is free")
                continue
            admit = Admit(
                *(self._number(), job.model, ref, kind, tensors, b"\x80", AnswerFormat.ARRAYS),
                *(now, now + job.patience, OWN_PRIORITY, ""),
            )
            self._pending.add(Owed(Caller(job.check, b"", 0, job.number), admit))
            self._link.send(admit)

    def _trace(self, request: protocol.Trace, caller: Caller, payload: Any) -> None:
        if self._tracing is not None:
            raise ResourceUnavailable("a trace is being recorded already; try again later")
        self._tracing = Tracing()
        self._link.send(TraceQuery(self._query(caller), request.seconds))

    def _manage(self, request: Any, caller: Caller, payload: Any) -> None:
        number = self._query(caller)
        arguments = {
            key: value for key in ("name", "path", "options") if (value := getattr(request, key, None)) is not None
        }
        self._link.send(Manage(number, type(request).__name__.lower(), arguments))

    def _query(self, caller: Caller) -> int:
        number = self._number()
        self._queries[number] = caller
        return number

    def _number(self) -> int:
        """A number for a job or a query that this run never used before."""
        self._next += 1
        return self._next

    # --- from inside -------------------------------------------------------------------------------------------------

    def _on_answered(self, message: Answered, payloads: list[Any]) -> None:
        owed = self._pending.pop(message.job)
        if owed is None:  # answered before, or its client got an error in time
            self._release(self._pending.held.pop(message.job, None))
            return
        self._release(owed.admit.ref)
        times = dict(zip(TIMES, message.times, strict=True))
        times["total"] = total = time.monotonic() - owed.admit.received
        header = _encode(
            protocol.Answer(id=owed.caller.request, answer=msgspec.Raw(message.body), timing=times, batch=message.batch)
        )
        payload = payloads[message.payload - 1] if message.payload else message.small
        self._counts["answered"] += 1
        if owed.share is not None:
            tally = self._tally.of(owed.admit.model)
            tally.ends["answered"] += 1
            tally.times.add((*message.times, total))
            tally.bytes_out += len(header) + len(payload)
            if owed.source:
                self._tally.frame_answered(owed.source, owed.admit.received)
        self._send(owed.caller, header, payload)
        if self._tracing is not None:
            self._tracing.answered(message.job, owed.admit.received + total)

    def _on_refused(self, message: Refused) -> None:
        self._reply_error(message.job, message.code, message.text, message.slot)

    def _on_status(self, message: StatusReply) -> None:
        check = self._checks.pop(message.query, None)
        if check is not None:
            self._unsent += check.begin(message.status, time.monotonic())
            self._send_synthetic()
        caller = self._queries.pop(message.query, None)
        if caller is not None:
            times = {"bounds": BOUNDS, "models": self._tally.times()}
            ours = {"gateway": self._own_status(), "served": self._model_list(), "times": times}
            self._result(caller, {**message.status, **ours})

    def _on_traced(self, message: Traced) -> None:
        caller, tracing = self._queries.pop(message.query, None), self._tracing
        if caller is not None and tracing is not None:
            self._tracing = None
            self._result(caller, tracing.result(message))

    def _on_managed(self, message: Managed) -> None:
        caller = self._queries.pop(message.query, None)
        if caller is None:
            return
        if message.code:
            self._error(caller, message.code, message.text)
        else:
            self._result(caller, message.result)

    def _on_model_closed(self, message: ModelClosed) -> None:
        self._models.pop(message.model, None)

    def _on_register(self, message: Register) -> None:
        """A dispatcher that is new to us: say who we are, and admit again what is owed."""
        if message.epoch == self._dispatcher:
            return
        self._dispatcher = message.epoch
        self._link.send(GatewayUp(message.epoch))
        for job in list(self._pending.held):
            self._release(self._pending.held.pop(job))
        for owed in self._pending.jobs.values():
            self._link.send(owed.admit)
        for number in list(self._queries):
            self._error(self._queries.pop(number), ServerUnavailable.code, "the server was restarting; ask again")
        self._tracing = None
        if not self._announced:
            self._announced = True
            self._child.started({})

    def _open_doors(self) -> None:
        """Let clients in. Where what was meant for a predecessor reaches us as well, they are in already."""
        if self._doors:
            return
        limit = int(self._options["max_message"])
        inside = self._options["inside"]  # for our own supervisor, and told to nobody
        try:
            for address in (*self._options["bind"], *([inside] if inside else ())):
                door = self._entrance.open(address, partial(Front, self._context, address, limit))
                self._doors[door.socket] = self._comings[door.comings] = door
                self._watch.add(door.socket)
                self._watch.add(door.comings)
        except (OSError, ConfigError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigError(f"cannot listen at {address}: {reason}") from None
        addresses = [door.address for door in self._doors.values() if door.address != inside]
        self._child.started({"addresses": addresses})

    # --- replies -----------------------------------------------------------------------------------------------------

    def _reply_error(self, job: int, code: str, text: str, fate: SlotFate) -> None:
        owed = self._pending.pop(job)
        if owed is None:  # it had its error from us already; but now its slot may be free
            if fate == SlotFate.FREE:
                self._release(self._pending.held.pop(job, None))
            return
        if code == Poison.code:
            self._learn(owed.admit)
        if fate == SlotFate.HELD:
            self._pending.held[job] = owed.admit.ref
        else:
            self._release(owed.admit.ref)
        self._fail(owed, code, text)

    def _learn(self, poison: Admit) -> None:
        """Know a poisonous payload from now on, and let no other copy of it that is already inside do more harm."""
        payload = self._ingress.read(poison.ref)
        if payload is None:
            return
        self._poison.remember(poison.kind, poison.model, payload)
        for owed in list(self._pending.jobs.values()):
            admit = owed.admit
            if admit.ref.size != poison.ref.size or (other := self._ingress.read(admit.ref)) is None:
                continue
            if self._poison.knows(admit.kind, admit.model, other):
                self._pending.pop(admit.job)
                self._pending.held[admit.job] = admit.ref
                self._fail(owed, Poison.code, _KNOWN)
                self._link.send(CancelJob(admit.job))

    def _fail(self, owed: Owed, code: str, text: str) -> None:
        """Give an admitted job its error."""
        if owed.share is not None:
            self._tally.failed(owed.admit.model, owed.source, code)
        self._error(owed.caller, code, text)

    def _error(self, caller: Caller, code: str, text: str) -> None:
        self._counts[code] += 1
        self._send(caller, _encode(protocol.Error(id=caller.request, code=code, message=text)), b"")

    def _result(self, caller: Caller, result: Any) -> None:
        encoded = msgspec.Raw(_encode(result))
        self._send(caller, _encode(protocol.Result(id=caller.request, result=encoded)), b"")

    @staticmethod
    def _send(caller: Caller, header: bytes, payload: Any) -> None:
        frames = [caller.client, b"", header] if caller.enveloped else [caller.client, header]
        if len(payload):
            frames.append(payload)
        caller.door.send(frames)

    def _release(self, ref: SlotRef | None) -> None:
        if ref is not None:
            self._ingress.release(ref)

    # --- what there is -----------------------------------------------------------------------------------------------

    def _model_list(self) -> list[dict[str, Any]]:
        return [model_facts(opened) for opened in self._models.values()]

    def _own_status(self) -> dict[str, Any]:
        return {
            "uptime": round(time.monotonic() - self._started, 1),
            "pending": len(self._pending.jobs),
            "held": len(self._pending.held),
            "ingress": self._ingress.status(self._refs()),
            "lent_bytes": self._lending.used,
            "clients": self._shares.clients,
            "known_poison": len(self._poison),
            "unread": sum(door.unread for door in self._doors.values()),
            "cpu_seconds": round(time.process_time(), 3),
            "models": self._tally.models(),
            "sources": self._tally.sources(),
            "counts": {**self._counts, "bytes_in": self._tally.bytes_in},
        }

    def _refs(self) -> Iterator[SlotRef]:
        """Every slot that has a reason to be taken."""
        yield from (owed.admit.ref for owed in self._pending.jobs.values())
        yield from self._pending.held.values()


def source_name(request: protocol.Infer) -> str:
    """The live source a frame belongs to, as its client calls it; "" for a picture that belongs to none."""
    return request.source or (UNNAMED if request.drop == "latest" else "")


def main(child: Child, options: dict[str, Any]) -> None:
    """Entry point of the process."""
    os.umask(0o077)  # a socket's file is there from the moment it is bound
    gateway = Gateway(child, options)
    gateway.run_forever()
    gateway.close()
