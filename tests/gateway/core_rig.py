"""A gateway's core with everybody around it faked: clients, a supervisor, and a dispatcher that write down what they
are told. No socket and no process; the rings are real. What must hold at all times is checked after every step."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from parallel_infer import protocol
from parallel_infer.gateway.core import Core
from parallel_infer.gateway.ingress import Ingress
from parallel_infer.gateway.lending import Lending
from parallel_infer.ipc.messages import (
    TIMES,
    Admit,
    Answered,
    ChainsServed,
    CloseDoor,
    DispatcherStatus,
    FromChild,
    Leaked,
    ModelOpened,
    ModelPlan,
    ModelStatus,
    OpenDoor,
    ProcessTime,
    Refused,
    Register,
    Released,
    SlotCount,
    SlotFate,
    ToGateway,
    WorkerStatus,
)
from parallel_infer.process.options import GatewayOptions
from parallel_infer.shm.ring import Ring, byte_ring
from tests.dispatcher.core_rig import plan

SMALL, LARGE = 4096, 16384  # bytes: the ingress rings' slots
TIMEOUT = 10.0  # seconds: of jobs that name none
ADDRESS = "ipc://run/s"
COUNTS = (
    *("memory", "jobs", "queued", "decoding", "ready", "answered", "failed", "expired", "dropped", "rejected"),
    *("batches", "batched_rows", "gathered_rows", "batch_target", "decoded", "reused"),
)
Message = TypeVar("Message")


@dataclass
class Request:
    """One request of a client, and what came of it: an answer's payload, an error or a result."""

    client: bytes
    request: int
    is_local: bool = True
    is_door: bool = False
    answers: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    timings: list[dict[str, float]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    errors: list[protocol.Error] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)

    def key(self, request: int) -> Hashable:
        return self.client, request

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        assert timing.keys() == {*TIMES, "total"}
        self.answers.append(bytes(payload))
        self.bodies.append(body)
        self.timings.append(timing)
        self.batches.append(batch)
        return len(body) + len(payload)

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        error = protocol.Error(id=self.request, code=code, message=text, reason=reason, retry_after=retry_after)
        self.errors.append(error)

    def result(self, result: object) -> None:
        self.results.append(msgspec.msgpack.decode(msgspec.msgpack.encode(result)))

    @property
    def replies(self) -> int:
        return len(self.answers) + len(self.errors) + len(self.results)

    @property
    def code(self) -> str:
        """The code of its one reply, which is an error; "" for any other."""
        assert self.replies == 1
        return self.errors[0].code if self.errors else ""


def reported(**models: dict[str, Any]) -> DispatcherStatus:
    """A dispatcher's status with one worker of each CPU stage and these models, by key."""
    return DispatcherStatus(
        jobs=0,
        draining=False,
        models={key: _model_status(**{"name": key, **model}) for key, model in models.items()},
        workers={stage: WorkerStatus(stage, "", 0, 0, 0.0) for stage in ("decode", "postprocess")},
        processes={},
        refused={},
        dispatcher=ProcessTime(0.0),
        shared_pictures=0,
    )


def _model_status(**fields: Any) -> ModelStatus:
    """A model that is ready, but for these fields."""
    counts = dict.fromkeys(COUNTS, 0)
    usual = {"state": "ready", "instances": 1, "batch_seconds": 0.25, "version": 1, "digest": "", "provider": ""}
    usual |= {"unavailable": "", "rows": SlotCount(1, 1), "outputs": SlotCount(1, 1), "leaked": Leaked(0, 0)}
    return ModelStatus(**{**counts, **usual, "batch_sizes": {}, **fields})


class FakeSupervisor:
    def __init__(self) -> None:
        self.told: list[FromChild] = []

    def tell(self, message: FromChild) -> None:
        self.told.append(message)


class FakeDoors:
    """Doors whose clients are as a test says."""

    def __init__(self) -> None:
        self.opened = 0
        self.told: list[tuple[str, str, str]] = []
        self.strangers = False
        self.read = True

    def open(self) -> tuple[str, ...]:
        self.opened += 1
        return (ADDRESS,) if self.opened == 1 else ()

    def tell(self, error: tuple[str, str, str]) -> None:
        self.told.append(error)

    def has_strangers(self) -> bool:
        return self.strangers

    def is_read(self) -> bool:
        return self.read

    def status(self) -> dict[str, Any]:
        return {"cut": 0, "unread": 0}


class FakeOutbox:
    """Messages that are queued, and those that were sent."""

    def __init__(self) -> None:
        self.queued: list[object] = []
        self.sent: list[object] = []

    def send(self, message: object) -> None:
        self.queued.append(message)

    def withdraw(self, message: object) -> bool:
        at = next((at for at, queued in enumerate(self.queued) if queued is message), None)
        if at is not None:
            del self.queued[at]
        return at is not None

    def flush(self) -> None:
        self.sent += self.queued
        self.queued.clear()


class Rig:
    """The core, its surroundings, and a clock that stands still until it is told."""

    def __init__(
        self,
        small: int = 4,
        large: int = 2,
        lent_memory: int = 8 * SMALL,
        epoch: int = 1,
        cache: int = 0,
        chains: Mapping[str, str] = MappingProxyType({}),
        **further: Any,
    ) -> None:
        self.now = 100.0
        prefix = f"pinfer-test-{secrets.token_hex(4)}"
        specs = (byte_ring(f"{prefix}-small", small, SMALL), byte_ring(f"{prefix}-large", large, LARGE))
        self._rings = [Ring.create(spec) for spec in specs]
        self._lending = Lending(lambda name: f"{prefix}-{name}", lent_memory)
        self.outbox = FakeOutbox()
        self.supervisor = FakeSupervisor()
        self.doors = FakeDoors()
        self.ingress = Ingress(specs)
        options = GatewayOptions(
            log_format="text",
            log_level="info",
            dispatcher="",
            answers="",
            bind=(ADDRESS,),
            inside="",
            keys=None,
            max_clients=10,
            ingress=specs,
            segments=prefix,
            lent_memory=lent_memory,
            response_cache=cache,
            max_payload=LARGE,
            max_message=2 * LARGE,
            timeout=TIMEOUT,
            epoch=epoch,
            **further,
        )
        self.core = Core(
            *(self.outbox, self.supervisor, self.doors, self.ingress, self._lending, options, lambda: self.now)
        )
        self.core.take(ChainsServed(dict(chains)))
        self._numbers = itertools.count(1)
        self._epochs = itertools.count(1)
        self.requests: list[Request] = []
        self.new_dispatcher()
        self.core.take(OpenDoor())
        self.open_model("m")

    def close(self) -> None:
        self._lending.close()
        for ring in self._rings:
            ring.close()
            ring.unlink()

    # --- what a test does ---------------------------------------------------------------------------------------------

    def open_model(self, name: str, queue_size: int = 1000, **of_spec: Any) -> ModelPlan:
        opened = plan(name, queue_size=queue_size)
        opened = msgspec.structs.replace(opened, spec=msgspec.structs.replace(opened.spec, **of_spec))
        self.take(ModelOpened(opened, "CPUExecutionProvider"))
        return opened

    def ask(
        self, asked_for: type[protocol.Request], client: bytes = b"a", payload: bytes | None = None, /, **fields: Any
    ) -> Request:
        """A client asks; what comes of it."""
        local, door = fields.pop("is_local", True), fields.pop("is_door", False)
        number = fields.pop("id", None) or next(self._numbers)
        asked = Request(client, number, local, door)
        if asked_for is not protocol.Cancel:  # the only one that has no reply
            self.requests.append(asked)
        self.core.request(asked_for(id=number, **fields), asked, None if payload is None else memoryview(payload))
        self.check()
        return asked

    def infer(self, client: bytes = b"a", payload: bytes | None = b"picture", **fields: Any) -> Request:
        return self.ask(protocol.Infer, client, payload, model=fields.pop("model", "m"), **fields)

    def take(self, message: ToGateway, payloads: Sequence[bytes] = ()) -> None:
        """The core gets a message from inside."""
        self.core.take(message, payloads)
        self.check()

    def told(self, kind: type[Message]) -> list[Message]:
        """What the dispatcher was told of this kind since the last time; everything else is forgotten."""
        self.outbox.flush()
        found = [message for message in self.outbox.sent if isinstance(message, kind)]
        self.outbox.sent.clear()
        return found

    def admitted(self) -> Admit:
        """The one job that was admitted since the last time."""
        (admit,) = self.told(Admit)
        return admit

    def answer(self, job: int, payload: bytes = b"answer") -> None:
        """A postprocess worker answers a job."""
        self.take(Answered(job, b"\x80", b"", 1, (0.0,) * len(TIMES), 1), [payload])

    def refuse(self, job: int, code: str = "BAD_INPUT", slot: SlotFate = SlotFate.FREE) -> None:
        """The dispatcher refuses a job."""
        self.take(Refused(job, code, "for a reason", slot))

    def release(self, job: int) -> None:
        self.take(Released(job))

    def new_dispatcher(self) -> None:
        self.core.take(Register(next(self._epochs)))

    def stop(self, seconds: float = 100.0) -> None:
        self.take(CloseDoor(self.now + seconds))

    def pass_time(self, seconds: float) -> None:
        """Time passes, and the gateway wakes up as often as it wants to."""
        end = self.now + seconds
        while (timer := self.core.next_timer()) is not None and timer < end:
            self.now = max(self.now + 1e-6, timer)
            self._turn()
        self.now = max(self.now, end)
        self._turn()

    def _turn(self) -> None:
        """One turn of the process's loop."""
        self.core.has_left()
        self.core.on_timer(self.now)
        self.check()

    def leaves_after(self, most: float) -> float:
        """Seconds until a gateway that wakes up for its timers alone has left; fails after `most`."""
        began = self.now
        while not self.core.has_left():
            assert self.now - began < most
            timer = self.core.next_timer()
            assert timer is not None
            assert timer > self.now
            self.now = timer
            self._turn()
        return self.now - began

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """No slot is taken without a reason, and nobody got two replies."""
        ingress = self.core.own_status()["ingress"]
        assert [ring["leaked"] for ring in ingress] == [0] * len(ingress)
        assert max((request.replies for request in self.requests), default=0) <= 1

    def check_drained(self) -> None:
        """At the end: everybody has exactly one reply, and everything is free."""
        status = self.core.own_status()
        assert [request for request in self.requests if request.replies != 1] == []
        assert (status["pending"], status["held"]) == (0, 0)
        assert [ring["free"] for ring in status["ingress"]] == [ring["slots"] for ring in status["ingress"]]
