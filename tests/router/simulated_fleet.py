"""A router's core among simulated members and clients: no socket, no process, and a clock that jumps to what is next.

What must hold at all times is checked with every reply: a request has one, and an answer is that of its own payload.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.router.core import Core, Limits
from parallel_infer.router.membership import Patience

TRIP = 0.0002  # seconds for a message to get across
_encode = msgspec.msgpack.encode


@dataclass
class Request:
    """A client's request and what came of it."""

    number: int
    payload: bytes
    client: bytes = b"client"
    answer_payload: bytes | None = None
    failure: protocol.Error | None = None
    found: Any = None
    replies: int = 0
    at: float = 0.0  # seconds of the fleet's clock
    request: int = 0
    clock: Callable[[], float] = field(default=lambda: 0.0)

    def key(self, request: int) -> Hashable:
        return self.client, request

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        self._replied()
        self.answer_payload = bytes(payload)
        assert self.answer_payload == self.payload, "an answer to another request"
        return len(body)

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        self._replied()
        self.failure = protocol.Error(id=self.number, code=code, message=text, reason=reason, retry_after=retry_after)

    def result(self, result: object) -> None:
        self._replied()
        self.found = msgspec.msgpack.decode(_encode(result))

    @property
    def code(self) -> str:
        """ "answered", or the code of its error; "" while there is no reply."""
        return "" if not self.replies else "answered" if self.failure is None else self.failure.code

    def _replied(self) -> None:
        self.replies += 1
        assert self.replies == 1, "a second reply"
        self.at = self.clock()


class Server:
    """A member: it takes jobs one after the other, `seconds` each, and answers with the payload that came."""

    def __init__(self, fleet: Fleet, address: str, models: tuple[str, ...] = ("m",), seconds: float = 0.01) -> None:
        self.fleet = fleet
        self.address = address
        self.models = models
        self.seconds = seconds
        self.alive = True
        self.frozen = False  # it says nothing, and goes on where it was afterwards
        self.hangs = False  # it answers questions, and no job
        self.ready = True
        self.instance = address
        self.error: protocol.Error | None = None  # what every job gets instead of an answer
        self.greeting_error: protocol.Error | None = None
        self.max_payload = 1 << 20
        self.jobs: dict[tuple[bytes, int], bytes] = {}
        self.done = 0
        self.asked: list[protocol.Request] = []
        self._free_at = 0.0
        self._held: list[Callable[[], None]] = []

    def take(self, route: bytes, request: protocol.Request, payload: bytes | None) -> None:
        if self.frozen:
            self._held.append(lambda: self.take(route, request, payload))
            return
        self.asked.append(request)
        match request:
            case protocol.Infer():
                self._infer(route, request, payload or b"")
            case protocol.Cancel():
                if self.jobs.pop((route, request.job), None) is not None:
                    self.error_reply(route, request.job, "DROPPED")
            case protocol.Hello() if self.greeting_error is not None:
                self.reply(route, msgspec.structs.replace(self.greeting_error, id=request.id))
            case protocol.Hello():
                instances = [self.instance]
                self.result(route, request.id, protocol.Greeting(self.max_payload, self.max_payload, tuple(instances)))
            case protocol.Models():
                self.result(route, request.id, [{"name": name, "digest": "d", "warnings": []} for name in self.models])
            case protocol.Ready():
                states = dict.fromkeys(self.models, "ready")
                self.result(route, request.id, {"ready": self.ready, "models": states, "states": states})
            case protocol.LoadChain():
                self.models = (*self.models, request.name)
                self.result(route, request.id, {"name": request.name})
            case protocol.Load() | protocol.Unload() | protocol.Reload():
                self.result(route, request.id, {"name": request.name})
            case _:
                self.result(route, request.id, {"jobs": len(self.jobs)})

    def _infer(self, route: bytes, request: protocol.Infer, payload: bytes) -> None:
        if request.model not in self.models:
            self.error_reply(route, request.id, "UNKNOWN_MODEL")
            return
        if self.error is not None:
            self.reply(route, msgspec.structs.replace(self.error, id=request.id))
            return
        self.jobs[route, request.id] = payload
        if not self.hangs:
            self._free_at = max(self._free_at, self.fleet.now) + self.seconds
            self.fleet.at(self._free_at, lambda: self._finish(route, request.id))

    def _finish(self, route: bytes, number: int) -> None:
        if self.frozen:
            self._held.append(lambda: self._finish(route, number))
            return
        payload = self.jobs.pop((route, number), None)
        if payload is not None and self.alive:
            self.done += 1
            answer = protocol.Answer(id=number, answer=msgspec.Raw(_encode({})), timing={}, batch=1)
            self.reply(route, answer, payload)

    def result(self, route: bytes, number: int, result: object) -> None:
        self.reply(route, protocol.Result(id=number, result=msgspec.Raw(_encode(result))))

    def error_reply(self, route: bytes, number: int, code: str, reason: str = "") -> None:
        self.reply(route, protocol.Error(id=number, code=code, message=f"{code} of {self.address}", reason=reason))

    def reply(self, route: bytes, reply: protocol.Reply, payload: bytes = b"") -> None:
        self.fleet.at(self.fleet.now + TRIP, lambda: self.alive and self.fleet.core.reply(route, reply, payload))

    def routes(self) -> list[bytes]:
        return [route for route, server in self.fleet.routes.items() if server is self]

    def kill(self) -> None:
        """As kill -9: connections end, and everything is lost."""
        self.alive = False
        self.jobs.clear()
        self._held.clear()
        for route in self.routes():
            self.fleet.hang_up(route, "the connection was lost")

    def start(self) -> None:
        self.alive, self.frozen, self._free_at = True, False, self.fleet.now

    def thaw(self) -> None:
        self.frozen = False
        held, self._held = self._held, []
        for go_on in held:
            go_on()

    def say_stopping(self) -> None:
        for route in self.routes():
            self.error_reply(route, 0, "SERVER_UNAVAILABLE", "stopping")

    def stop(self) -> None:
        """The last word, and the end of the connection."""
        routes = self.routes()
        for route in routes:
            self.error_reply(route, 0, "SERVER_UNAVAILABLE", "stopped")
        self.fleet.at(self.fleet.now + 2 * TRIP, self.kill)


class Fleet:
    """Members, a router's core in front of them, and its clients."""

    def __init__(self, limits: Limits | None = None, patience: Patience | None = None, seed: int = 1) -> None:
        self.now = 1000.0
        self._events: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = itertools.count()
        self.servers: dict[str, Server] = {}
        self.routes: dict[bytes, Server] = {}
        self.requests: list[Request] = []
        self._ids = itertools.count(1)
        self.core = Core(
            self, limits or Limits(), patience or Patience(), "router", clock=lambda: self.now, random=Random(seed)
        )

    # --- the core's links --------------------------------------------------------------------------------------------

    def open(self, address: str, route: bytes) -> None:
        server = self.servers.get(address)
        if server is None or not server.alive:
            self.at(self.now + TRIP, lambda: self.core.membership.ended(route, "nobody listens"))
        else:
            self.routes[route] = server

    def close(self, route: bytes) -> None:
        self.routes.pop(route, None)

    def send(self, route: bytes, request: protocol.Request, payload: Any = None) -> None:
        server = self.routes.get(route)
        if server is not None:
            copy = None if payload is None else bytes(payload)
            self.at(self.now + TRIP, lambda: server.alive and server.take(route, request, copy))

    def hang_up(self, route: bytes, why: str) -> None:
        self.routes.pop(route, None)
        self.at(self.now + TRIP, lambda: self.core.membership.ended(route, why))

    # --- the fleet ---------------------------------------------------------------------------------------------------

    def add(self, count: int, models: tuple[str, ...] = ("m",), seconds: float = 0.01) -> list[Server]:
        """More members, listed and joined."""
        new = [Server(self, f"tcp://10.0.0.{len(self.servers) + n}:1", models, seconds) for n in range(count)]
        self.servers |= {server.address: server for server in new}
        self.list()
        self.run(0.1)
        return new

    def list(self, without: tuple[Server, ...] = ()) -> None:
        gone = {server.address for server in without}
        self.core.membership.list((address, address) for address in self.servers if address not in gone)

    def ask(
        self, request: type[protocol.Request], client: bytes = b"client", payload: bytes = b"", **fields: Any
    ) -> Request:
        """A client's request."""
        asked = request(id=next(self._ids), **fields)
        made = Request(asked.id, payload, client, request=asked.id, clock=lambda: self.now)
        self.requests.append(made)
        self.core.request(asked, made, payload or None)
        return made

    def infer(self, model: str = "m", timeout: float = 5.0, size: int = 8, **fields: Any) -> Request:
        """A job with a payload of its own."""
        payload = b"%08d" % (len(self.requests) + 1) + bytes(max(0, size - 8))
        return self.ask(protocol.Infer, payload=payload, model=model, timeout=timeout, **fields)

    def at(self, when: float, do: Callable[[], Any]) -> None:
        heapq.heappush(self._events, (when, next(self._order), do))

    def run(self, seconds: float) -> None:
        """Let everything happen that happens within so many seconds."""
        until = self.now + seconds
        while True:
            event = self._events[0][0] if self._events else until
            due = min(event, self.core.next_timer(), until)
            self.now = max(self.now, due)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self.core.on_timer(self.now)
            if self.now >= until:
                return

    def codes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for request in self.requests:
            found[request.code] = found.get(request.code, 0) + 1
        return found
