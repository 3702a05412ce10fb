"""The router's core among members that answer at once: what one job costs of processor time, without sockets."""

from __future__ import annotations

import time
from collections.abc import Hashable
from random import Random
from typing import Any

import msgspec

from parallel_infer import protocol
from parallel_infer.router.core import Core, Limits
from parallel_infer.router.membership import Patience

_JOBS, _UNDER_WAY = 50_000, 64  # of a measurement
_encode = msgspec.msgpack.encode


class _Client:
    """Takes replies and counts them."""

    client = b"client"

    def __init__(self) -> None:
        self.request = 0
        self.answers = 0

    def key(self, request: int) -> Hashable:
        return request

    def answer(self, body: bytes, payload: Any, timing: dict[str, float], batch: int) -> int:
        self.answers += 1
        return 0

    def error(self, code: str, text: str, reason: str = "", retry_after: float = 0.0) -> None:
        raise AssertionError(f"{code}: {text}")

    def result(self, result: object) -> None:
        raise AssertionError(result)


class _Links:
    """Notes where jobs went; questions are answered at once."""

    def __init__(self) -> None:
        self.core: Core | None = None
        self.under_way: list[tuple[bytes, int]] = []
        self.opened: list[bytes] = []

    def open(self, address: str, route: bytes) -> None:
        self.opened.append(route)

    def close(self, route: bytes) -> None:
        raise AssertionError("a member was given up")

    def send(self, route: bytes, request: protocol.Request, payload: Any = None) -> None:
        if isinstance(request, protocol.Infer):
            _encode(request)
            self.under_way.append((route, request.id))
            return
        result: Any = [{"name": "m"}]
        if isinstance(request, protocol.Hello):
            result = protocol.Greeting(1 << 20, 1 << 20, (route.decode(),))
        reply = protocol.Result(id=request.id, result=msgspec.Raw(_encode(result)))
        assert self.core is not None
        self.core.reply(route, reply)


def microseconds_per_job(members: int) -> float:
    """Processor time of one job: admission, choice, request and reply."""
    links, client, clock = _Links(), _Client(), [0.0]
    core = links.core = Core(links, Limits(), Patience(), "router", clock=lambda: clock[0], random=Random(1))
    core.membership.list((f"{n}", f"ipc://{n}") for n in range(members))
    core.on_timer(0.0)
    payload = bytes(100)
    answer = msgspec.Raw(_encode({}))
    started = time.process_time()
    for number in range(1, _JOBS + 1):
        core.request(protocol.Infer(id=number, model="m", timeout=5.0), client, payload)
        if len(links.under_way) >= _UNDER_WAY:
            for route, attempt in links.under_way:
                core.reply(route, protocol.Answer(id=attempt, answer=answer), payload)
            links.under_way.clear()
            clock[0] += 0.01
            core.on_timer(clock[0])
    spent = time.process_time() - started
    assert client.answers >= _JOBS - _UNDER_WAY
    return spent / _JOBS * 1e6
