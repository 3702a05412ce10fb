"""A server made of one thread and a real ROUTER socket, whose behaviour the model's name decides."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import zmq

from parallel_infer import protocol
from parallel_infer.protocol import Answer, AnswerBody, Error, Infer, Result, Tensor
from parallel_infer.shm.ring import Ring, byte_ring

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(protocol.Request).decode


class Received(NamedTuple):
    client: bytes
    request: Any
    payload: bytes | None  # as it came, or None


class FakeServer:
    """`echo` answers with the payload, `twice` does so two times, `silent` never, `held` when told, `full` when it has
    room for less than `room`, `busy` when told and says of all others that its queue is full, and `fail:CODE` with that
    error."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.received: queue.Queue[Received] = queue.Queue()
        self.count = 0  # of Infer requests
        self.most_held = 0
        self.room = 4
        self.most: int | None = 32 << 20  # bytes of a payload; None: it does not tell
        self.has_no_room = False
        self.lends = False
        self.rings: dict[int, Ring] = {}
        self.known: bytes | None = None  # the one client whose key is known
        self.configure: Callable[[zmq.Socket[bytes]], None] = lambda socket: None
        self._enveloped: set[bytes] = set()
        self._held: deque[Received] = deque()
        self._tasks: queue.Queue[Callable[[], None]] = queue.Queue()
        self.running = False
        self._next_ring = 1

    def start(self) -> None:
        assert not self.running, "two threads would share one socket"
        self.context = zmq.Context()
        self._socket = self.context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._guard = self.context.socket(zmq.REP)
        self._guard.bind("inproc://zeromq.zap.01")
        self.configure(self._socket)
        self._socket.bind(self.address)
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.running = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def leave(self) -> None:
        """As after a stop: what was sent arrives, what had been received has no reply."""
        self.call(lambda: self._socket.setsockopt(zmq.LINGER, 10_000))
        self.stop()

    def say(self, client: bytes, *reasons: str) -> None:
        for reason in reasons:
            reply = Error(id=0, code="SERVER_UNAVAILABLE", message="as its reason says", reason=reason)
            self.call(lambda reply=reply: self.reply(client, reply))

    def stop(self) -> None:
        self.running = False
        self._thread.join()
        self._held.clear()
        self.forget_rings()

    def restart(self) -> None:
        """As after a crash: what had been received is lost, the address stays."""
        self.stop()
        self.start()

    def release(self, count: int = 1 << 30) -> None:
        """Answer what is held, the oldest first; returns when the answers are sent."""
        self.call(lambda: [self.echo(self._held.popleft()) for _ in range(min(count, len(self._held)))])

    def call(self, task: Callable[[], Any]) -> None:
        """Run something in the thread of the server, and wait for it."""
        done = threading.Event()

        def run() -> None:
            task()
            done.set()

        self._tasks.put(run)
        assert done.wait(10)

    def forget_rings(self) -> None:
        for ring in self.rings.values():
            ring.close()
            ring.unlink()
        self.rings.clear()

    def next(self, kind: type = Infer) -> Received:
        """The next request of a kind; others before it are dropped."""
        while True:
            received = self.received.get(timeout=10)
            if isinstance(received.request, kind):
                return received

    def rest(self, patience: float) -> list[Received]:
        """What comes until nothing has come for `patience` seconds."""
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self.received.get(timeout=patience) if patience else self.received.get_nowait())
        return found

    def echo(self, received: Received) -> None:
        request = received.request
        payload = received.payload
        if request.slot is not None:
            ring = self.rings[request.slot.ring]
            payload = ring.arrays["bytes"][request.slot.index, : request.slot.size].tobytes()
        assert payload is not None
        body = AnswerBody(task="tensor", model=request.model, arrays=(Tensor("payload", "uint8", (len(payload),)),))
        answer = Answer(id=request.id, answer=msgspec.Raw(_encode(body)), timing={"total": 0.001}, batch=2)
        self.reply(received.client, answer, payload)

    def reply(self, client: bytes, reply: protocol.Reply, payload: bytes | None = None) -> None:
        envelope = [client, b""] if client in self._enveloped else [client]
        self._socket.send_multipart([*envelope, _encode(reply), *([payload] if payload else [])])

    def send_frames(self, *frames: bytes) -> None:
        """Send what need not be a reply, in the thread of the server."""
        self.call(lambda: self._socket.send_multipart(frames))

    def fail(
        self, received: Received, code: str, message: str = "as asked", reason: str = "", retry_after: float = 0.0
    ) -> None:
        error = Error(id=received.request.id, code=code, message=message, reason=reason, retry_after=retry_after)
        self.reply(received.client, error)

    def _serve(self) -> None:
        while self.running:
            while not self._tasks.empty():
                self._tasks.get()()
            if self._guard.poll(0):
                self._let_in()
            if self._socket.poll(1):
                client, *rest = self._socket.recv_multipart()
                if rest == [b""]:  # it says that it is there
                    continue
                if not rest[0]:  # a REQ client
                    self._enveloped.add(client)
                header, *payload = rest if rest[0] else rest[1:]
                self._take(Received(client, _decode(header), payload[0] if payload else None))
            elif self._held and self._held[0].request.model == "full":  # busy, until no more comes
                self.echo(self._held.popleft())
        self._socket.close()
        self._guard.close(linger=0)
        self.context.term()

    def _let_in(self) -> None:
        """Decide whether a client may come in (ZAP, 27/ZAP of the ZeroMQ specifications)."""
        version, number, _domain, _address, _identity, mechanism, *credentials = self._guard.recv_multipart()
        known = mechanism != b"CURVE" or credentials == [self.known]
        status = [b"200", b"OK"] if known else [b"400", b"unknown key"]
        if self.has_no_room:
            status = [b"500", b"full"]
        self._guard.send_multipart([version, number, *status, b"", b""])

    def _take(self, received: Received) -> None:
        request = received.request
        if isinstance(request, Infer):
            self.count += 1
            self.infer(received)
        elif isinstance(request, protocol.Lend):
            self._lend(received)
        elif isinstance(request, protocol.Hello) and self.most is not None:
            self._result(received, {"max_payload": self.most, "max_message": 4 * self.most})
        elif isinstance(request, protocol.Hello):
            self.fail(received, "BAD_INPUT", "an older server: it does not know this")
        elif isinstance(request, protocol.Ready):
            self._result(received, {"ready": True})
        elif isinstance(request, protocol.Models) and request.detail:
            self._result(received, [])
        elif not isinstance(request, protocol.Cancel):
            self._result(received, msgspec.to_builtins(request))
        self.received.put(received)

    def infer(self, received: Received) -> None:
        request = received.request
        if request.slot is not None and request.slot.ring not in self.rings:
            self.fail(received, "BAD_INPUT", "it is gone: lend again", "unknown_ring")
            return
        behaviour, _, code = request.model.partition(":")
        if behaviour == "fail":
            self.fail(received, code)
        elif behaviour == "full" and len(self._held) >= self.room:
            self.fail(received, "RESOURCE_UNAVAILABLE")
        elif behaviour == "busy" and self._held:
            self.fail(received, "RESOURCE_UNAVAILABLE", "the queue is full", "queue_full", 0.25)
        elif behaviour in ("held", "full", "busy"):
            self._held.append(received)
            self.most_held = max(self.most_held, len(self._held))
        elif behaviour != "silent":
            for _ in range(2 if behaviour == "twice" else 1):
                self.echo(received)

    def _lend(self, received: Received) -> None:
        request = received.request
        if not self.lends:
            self.fail(received, "BAD_INPUT", "nothing is lent")
        elif request.ring is not None and request.ring not in self.rings:
            self.fail(received, "BAD_INPUT", "it is gone", "unknown_ring")
        elif request.ring is not None:
            self._result(received, {"ring": request.ring, "ttl": 60.0})
        else:
            number, self._next_ring = self._next_ring, self._next_ring + 1
            name = f"pinfer-fake-{id(self):x}-{number}"
            self.rings[number] = Ring.create(byte_ring(name, request.slots, request.size))
            grant = {"ring": number, "segment": name, "slots": request.slots, "size": request.size, "ttl": 60.0}
            self._result(received, grant)

    def _result(self, received: Received, result: Any) -> None:
        self.reply(received.client, Result(id=received.request.id, result=msgspec.Raw(_encode(result))))


def _served(address: str) -> Iterator[FakeServer]:
    server = FakeServer(address)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["tcp", "ipc"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeServer]:
    """A server on either kind of address."""
    yield from _served("tcp://127.0.0.1:*" if request.param == "tcp" else f"ipc://{tmp_path}/door")


@pytest.fixture
def ipc_server(tmp_path: Path) -> Iterator[FakeServer]:
    yield from _served(f"ipc://{tmp_path}/door")


@pytest.fixture
def lending(ipc_server: FakeServer) -> FakeServer:
    """A server that lends rings."""
    ipc_server.lends = True
    return ipc_server


@pytest.fixture
def nobody(tmp_path: Path) -> str:
    """An address where nobody listens."""
    return f"ipc://{tmp_path}/nobody"


@pytest.fixture
def frame() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
