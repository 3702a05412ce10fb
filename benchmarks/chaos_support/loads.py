"""Clients that keep many jobs in flight: one through the library, one that speaks the wire itself."""

from __future__ import annotations

import queue
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from typing import Any, NamedTuple, Protocol

import msgpack
import zmq
from zmq.utils.monitor import recv_monitor_message

from benchmarks.chaos_support.payloads import Bytes, Payloads
from benchmarks.chaos_support.tally import LOST, Tally
from benchmarks.chaos_support.tiles import Squares, as_png, child_error
from parallel_infer import Answer, Client
from parallel_infer.client.futures import InferFuture
from parallel_infer.errors import Dropped, InferError, ServerStopping, Unanswered

MODEL = "identity"
_REGRET = 0.25  # seconds within which a job is cancelled that is to be
_PAUSE = 0.05  # seconds after which a job that a stopping server refused is handed in again
_GRACE = 15.0  # seconds after its deadline until a request without a reply counts as lost: a gateway may be restarting


class Outcome(NamedTuple):
    """How a job ended: with data, or with the code of an error."""

    number: int
    sent: float
    data: Any
    code: str = ""


class Load(Protocol):
    """Sends jobs and tells how they ended."""

    refused: int  # how often a job was refused by a stopping server and handed in again

    def send(self, number: int, payload: Bytes) -> None:
        """Send a job."""

    def outcomes(self, patience: float) -> Iterator[Outcome]:
        """Jobs that ended, waiting up to `patience` seconds for the first."""

    def replied_twice(self) -> int:
        """How many replies came that nobody asked for; called once, at the end."""

    def close(self) -> None:
        """End it."""


class LibraryLoad(Load):
    """The client library, as users use it: it sends again what a crash lost, and drops second replies itself.

    What a stopping server refused is handed in again after a moment, as its caller has to. Of all jobs, `cancelled` is
    the part that is given up a little later, whose end is then DROPPED.
    """

    def __init__(self, address: str, timeout: float, cancelled: float = 0.0) -> None:
        self.refused = 0
        self._cancelled = cancelled
        self._random = random.Random(1)
        self._doomed: list[tuple[float, InferFuture]] = []  # when to cancel which
        self._client = Client(address, timeout=timeout)
        self._done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._refused: queue.SimpleQueue[tuple[float, int, Bytes]] = queue.SimpleQueue()

    def send(self, number: int, payload: Bytes) -> None:
        """Send a job."""
        sent = time.monotonic()

        def ended(future: InferFuture) -> None:
            try:
                self._done.put(Outcome(number, sent, self._read(future.result())))
            except ServerStopping:
                self._refused.put((time.monotonic() + _PAUSE, number, payload))
            except CancelledError:
                self._done.put(Outcome(number, sent, None, Dropped.code))
            except Unanswered:
                self._done.put(Outcome(number, sent, None, LOST))
            except InferError as error:
                self._done.put(Outcome(number, sent, None, error.code))

        future = self._submit(payload, ended)
        if self._random.random() < self._cancelled:
            self._doomed.append((sent + self._random.uniform(0.0, _REGRET), future))

    def _submit(self, payload: Bytes, ended: Callable[[InferFuture], None]) -> InferFuture:
        return self._client.submit(MODEL, {"x": payload}, callback=ended)

    def _read(self, answer: Answer) -> Any:
        return answer.tensors["y"]

    def _hand_in_again(self) -> None:
        now = time.monotonic()
        for _ in range(self._refused.qsize()):
            due, number, payload = self._refused.get()
            if due <= now:
                self.refused += 1
                self.send(number, payload)
            else:
                self._refused.put((due, number, payload))

    def outcomes(self, patience: float) -> Iterator[Outcome]:
        """Jobs that ended."""
        self._hand_in_again()
        for doomed in [doomed for doomed in self._doomed if doomed[0] <= time.monotonic()]:
            self._doomed.remove(doomed)
            doomed[1].cancel()
        try:
            yield self._done.get(timeout=patience)
            while True:
                yield self._done.get_nowait()
        except queue.Empty:
            return

    def replied_twice(self) -> int:
        """Not seen here: the library drops them."""
        return 0

    def close(self) -> None:
        """Close the client."""
        self._client.close()


class ChainLoad(LibraryLoad):
    """The same for a chain: a job whose child has an error counts as one with that error."""

    def _submit(self, payload: Bytes, ended: Callable[[InferFuture], None]) -> InferFuture:
        return self._client.submit("squares", as_png(payload), callback=ended)

    def _read(self, answer: Answer) -> Answer:
        if (error := child_error(answer)) is not None:
            raise error
        return answer


class WireLoad(Load):
    """A DEALER of its own that counts every reply, and sends what is unanswered again over a new connection."""

    refused = 0

    def __init__(self, address: str, timeout: float) -> None:
        self._timeout = timeout
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.immediate = True  # nothing is queued for a server that is not there
        self._socket.reconnect_ivl = 20
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        self._socket.connect(address)
        self._connections = 0
        self._open: dict[int, tuple[float, Bytes]] = {}
        self._unsent: list[int] = []
        self._sends: Counter[int] = Counter()
        self._replies: Counter[int] = Counter()

    def send(self, number: int, payload: Bytes) -> None:
        """Send a job."""
        self._open[number] = time.monotonic(), payload
        self._unsent.append(number)
        self._send_what_waits()

    def outcomes(self, patience: float) -> Iterator[Outcome]:
        """Jobs that ended."""
        self._socket.poll(min(50, int(patience * 1000)))
        self._look_at_connection()
        self._send_what_waits()
        while True:
            try:
                yield from self._receive()
            except zmq.Again:
                break
        yield from self._lost(time.monotonic() - self._timeout - _GRACE)

    def replied_twice(self) -> int:
        """Replies beyond one for each time that a request was sent."""
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            for _ in self.outcomes(0.05):
                pass
        return sum(max(0, count - self._sends[number]) for number, count in self._replies.items())

    def close(self) -> None:
        """Close the socket."""
        self._socket.disable_monitor()
        self._monitor.close(linger=0)
        self._socket.close()
        self._context.term()

    def _receive(self) -> Iterator[Outcome]:
        frames = self._socket.recv_multipart(zmq.NOBLOCK)
        reply = msgpack.unpackb(frames[0], strict_map_key=False)
        number = reply["id"]
        self._replies[number] += 1
        known = self._open.pop(number, None)
        if known is None:
            return
        if reply["type"] == "error":
            yield Outcome(number, known[0], None, reply["code"])
        else:
            yield Outcome(number, known[0], frames[1])

    def _lost(self, before: float) -> Iterator[Outcome]:
        while self._open and next(iter(self._open.values()))[0] < before:
            number = next(iter(self._open))
            yield Outcome(number, self._open.pop(number)[0], None, LOST)

    def _look_at_connection(self) -> None:
        while self._monitor.poll(0):
            recv_monitor_message(self._monitor)
            self._connections += 1
            if self._connections > 1:
                self._unsent = list(self._open)

    def _send_what_waits(self) -> None:
        while self._unsent:
            number = self._unsent[0]
            if number in self._open and not self._sent(number, *self._open[number]):
                return
            self._unsent.pop(0)

    def _sent(self, number: int, since: float, payload: Bytes) -> bool:
        header = {
            "v": 1, "type": "infer", "id": number, "model": MODEL, "kind": "tensors",
            "tensors": [["x", "uint8", [len(payload)]]],
            "timeout": max(0.001, since + self._timeout - time.monotonic()),
        }  # fmt: skip
        try:
            self._socket.send_multipart([msgpack.packb(header), payload.tobytes()], zmq.NOBLOCK)
        except zmq.Again:
            return False
        self._sends[number] += 1
        return True


def drive(
    load: Load,
    payloads: Payloads | Squares,
    tally: Tally,
    more: Callable[[], bool],
    in_flight: int,
    ended: Callable[[Outcome], None],
) -> None:
    """Send jobs while there are to be `more`, `in_flight` at a time, and count how each ended; `ended` is told, too."""
    under_way = 0
    while under_way or more():
        while under_way < in_flight and more():
            tally.sent += 1
            under_way += 1
            load.send(tally.sent, payloads.make(tally.sent))
        for outcome in load.outcomes(0.05):
            under_way -= 1
            _count(outcome, payloads, tally)
            ended(outcome)
    tally.twice += load.replied_twice()


def _count(outcome: Outcome, payloads: Payloads | Squares, tally: Tally) -> None:
    if outcome.code == LOST:
        tally.lost += 1
    elif outcome.code:
        tally.errors[outcome.code] += 1
    else:
        tally.answers += 1
        tally.verdicts[payloads.judge(outcome.number, outcome.data)] += 1
