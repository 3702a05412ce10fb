"""One connection to a server: requests go out, replies are matched, and what a restart lost is sent again.

A connection is used by one thread at a time. Nothing is handed to the socket while nobody listens: what could not be
sent, or was sent over a connection that has since been replaced, waits in `_unsent` and goes out with the time it has
left. A request that has expired meanwhile is never sent. The monitor tells whether somebody listens; ZeroMQ's option
`IMMEDIATE`, which would do the same, drops at a disconnection what had been received and not yet read.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque

import msgspec
import zmq
from zmq.utils.monitor import recv_monitor_message

from parallel_infer.client.endpoint import Address, connect, open_socket
from parallel_infer.client.lent import LentRings, Slot, is_unknown_ring
from parallel_infer.client.pending import Outcome, Pending, outcome_of
from parallel_infer.errors import InferError, ServerStopping, ServerUnavailable, Unauthorized
from parallel_infer.protocol import Cancel, Error, Hello, Reply

SLICE = 0.05  # seconds between looks at the state of the connection while waiting
GRACE = 0.25  # seconds the server's own DEADLINE_EXCEEDED has to arrive
_COPY_BELOW = 65536  # bytes; sending without a copy costs a hand-over between threads
# As plain numbers: zmq's flags are enums, and combining those takes longer than sending.
_NOW, _MORE = int(zmq.DONTWAIT), int(zmq.DONTWAIT | zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)
_STRANGE = zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_EVENTS = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH | _STRANGE
_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Reply).decode


class Connection:
    """Sends requests and settles them with their replies."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.socket = open_socket(address)
        self.monitor = self.socket.get_monitor_socket(_EVENTS)
        self.lent = LentRings(self) if address.same_machine else None
        self._pending: dict[int, Pending] = {}
        self._fenced: dict[int, Slot] = {}  # slots of requests that nobody waits for, by request id
        self._unsent: deque[Pending] = deque()
        self._numbers = itertools.count(1)
        self._earliest = float("inf")  # no pending request expires before
        self._checked = 0.0
        self._patience = -1  # RCVTIMEO as it is set, in ms
        self._poller = zmq.Poller()
        self._connected = False  # as the monitor told last
        self._stopping = False  # the server has said that it leaves
        self._handshakes = 0
        self._refused: Unauthorized | None = None
        self._strange = False  # somebody listens, but the handshake fails
        self._complaint = ""  # what the server said about a request that it could not attribute
        try:
            connect(self.socket, address)
        except ValueError:
            self.close()
            raise

    def number(self) -> int:
        """A new request id."""
        return next(self._numbers)

    @property
    def idle(self) -> bool:
        """Whether no request waits for its reply."""
        return not self._pending

    @property
    def stuck(self) -> bool:
        """Whether requests wait for the socket to become writable."""
        return bool(self._unsent) and self._connected

    def post(self, pending: Pending) -> None:
        """Send a request now, or as soon as somebody listens."""
        if self._refused is not None:
            self._try_again()
        if not self._pending:  # nobody has looked for a while
            self._look_at_monitor()
        self._pending[pending.request.id] = pending
        self._earliest = min(self._earliest, pending.deadline)
        if self._unsent or not self._transmit(pending):
            self._unsent.append(pending)

    def ask(self, pending: Pending) -> Outcome:
        """Send a request and wait for its outcome."""
        self.post(pending)
        return self.wait(pending)

    def wait(self, pending: Pending) -> Outcome:
        """Drive the connection until `pending` is settled. On an interrupt the request is cancelled."""
        try:
            while pending.outcome is None:
                self.receive(pending.deadline - time.monotonic())
        except BaseException:
            self.abandon(pending)
            raise
        return pending.outcome

    def receive(self, patience: float | None) -> None:
        """Wait for one reply and settle its request; returns without one after `patience` seconds or `SLICE`."""
        patience = SLICE if patience is None else max(0.001, min(patience, SLICE))
        if self._unsent:
            self._poller.register(self.monitor, zmq.POLLIN)
            self._poller.register(self.socket, zmq.POLLIN | (zmq.POLLOUT if self._connected else 0))
            self._poller.poll(round(patience * 1000))
            self.upkeep()
            self.drain()
            return
        milliseconds = round(patience * 1000)
        if milliseconds != self._patience:
            self.socket.setsockopt(zmq.RCVTIMEO, milliseconds)
            self._patience = milliseconds
        try:
            self._receive_one(0)
        except zmq.Again:
            self.upkeep()
        else:
            self.upkeep_if_due()

    def drain(self) -> int:
        """Settle everything that has arrived, without waiting; returns how many replies that were."""
        count = 0
        try:
            while True:
                self._receive_one(_NOW)
                count += 1
        except zmq.Again:
            return count

    def upkeep_if_due(self) -> None:
        """`upkeep`, where the last one is `SLICE` ago."""
        if time.monotonic() - self._checked > SLICE:
            self.upkeep()

    def upkeep(self) -> None:
        """Notice a new connection or a refusal, send what is left to send, expire what is late."""
        self._checked = time.monotonic()
        self._look_at_monitor()
        self.flush()
        # A request that was sent gets some grace, therefore what is due is looked at again in `_expire`.
        if self._checked >= self._earliest:
            self._expire(self._checked)

    def _look_at_monitor(self) -> None:
        while int(self.monitor.getsockopt(zmq.EVENTS)) & _READABLE:
            self._observe(recv_monitor_message(self.monitor)["event"])

    def flush(self) -> None:
        """Send what could not be sent before."""
        while self._unsent:
            pending = self._unsent[0]
            if self._pending.get(pending.request.id) is pending:
                pending.shorten()
                if not self._transmit(pending):
                    return
            self._unsent.popleft()

    def limit(self, pending: Pending, timeout: float) -> None:
        """Let a request that is on its way wait no longer than `timeout` seconds from when it was made."""
        pending.limit(timeout)
        self._earliest = min(self._earliest, pending.deadline)

    def abandon(self, pending: Pending) -> None:
        """Forget a request and ask the server to forget it too. Its late answer will be dropped."""
        if self._pending.pop(pending.request.id, None) is None:
            return
        self._fence(pending)
        if pending.sent and not self.socket.closed:
            cancel = Cancel(id=self.number(), job=pending.request.id)
            self._transmit(Pending(cancel, 0))

    def fail_all(self, error: InferError) -> None:
        """Settle every waiting request with `error`."""
        waiting = list(self._pending.values())
        self._pending.clear()
        for pending in waiting:
            self._fence(pending)
            pending.settle(error)

    def close(self) -> None:
        """Give lent rings back and close; requests still waiting fail with ServerUnavailable."""
        if self.socket.closed:
            return
        if self.lent is not None:
            self.lent.close()
        self.socket.disable_monitor()
        self.monitor.close(linger=0)
        self.socket.close()
        self.fail_all(ServerUnavailable("The client was closed before the answer came"))

    def _transmit(self, pending: Pending) -> bool:
        if not self._connected:
            return False
        header = _ENCODE(pending.request)
        data = pending.payload
        try:
            if data is None:
                self.socket.send(header, _NOW)
            else:
                self.socket.send(header, _MORE)
                self.socket.send(data, _NOW, copy=len(data) < _COPY_BELOW)
        except zmq.Again:
            return False
        pending.sent = True
        return True

    def _receive_one(self, flags: int) -> None:
        header = self.socket.recv(flags, copy=False)
        payload: bytes | memoryview = b""
        if header.more:
            frame = self.socket.recv(flags, copy=False)
            payload = frame.buffer if len(frame) >= _COPY_BELOW else frame.bytes
            while frame.more:
                frame = self.socket.recv(flags, copy=False)
        self._settle(header.buffer, payload)

    def _settle(self, header: memoryview, payload: bytes | memoryview) -> None:
        try:
            reply: Reply = _DECODE(header)
        except msgspec.MsgspecError as error:
            self._complaint = f"unreadable reply: {error}"
            return
        pending = self._pending.pop(reply.id, None)
        if pending is None:
            self._late(reply)
            return
        slot = pending.slot
        if slot is not None:
            if pending.payload is None and is_unknown_ring(reply):
                self._send_plain(pending, slot)
                return
            slot.release()
        pending.settle(outcome_of(reply, payload))

    def _late(self, reply: Reply) -> None:
        """A second answer, or one that nobody waits for any more: it only frees its slot."""
        slot = self._fenced.pop(reply.id, None)
        if slot is not None:
            slot.release()
        elif reply.id == 0 and isinstance(reply, Error):
            if reply.reason == ServerStopping.reason:
                self._stopping = True
            else:
                self._complaint = f"{reply.code}: {reply.message}"

    def _send_plain(self, pending: Pending, slot: Slot) -> None:
        """The server does not know the ring any more: send the pixels themselves, straight from the slot."""
        if self.lent is not None:
            self.lent.lost(slot.ring)
        pending.unlend()
        pending.shorten()
        self.post(pending)

    def _try_again(self) -> None:
        """After a refusal zmq does not connect again by itself; the server may have learnt the key meanwhile."""
        self._refused = None
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.address.endpoint)
        self.socket.connect(self.address.endpoint)

    def _observe(self, event: int) -> None:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._refused = Unauthorized(f"The server at {self.address.endpoint} does not know this key")
            self.fail_all(self._refused)
            return
        if event == zmq.EVENT_DISCONNECTED:
            self._on_disconnected()
            return
        self._strange = bool(event & _STRANGE)
        if self._strange:
            return
        self._refused = None
        self._connected = True
        self._stopping = False
        self._transmit(Pending(Hello(id=self.number()), 0))
        self._handshakes += 1
        if self._handshakes > 1:
            self._send_again()

    def _on_disconnected(self) -> None:
        """What has arrived counts.

        A server that said that it stops answers all it took before it goes: the rest it did not take. What is missing
        from any other is sent again.
        """
        self._connected = False
        self.drain()
        if self._stopping:
            self._stopping = False
            error = ServerStopping(f"The server at {self.address.endpoint} stopped before it took this request")
            for pending in [pending for pending in self._pending.values() if pending.sent]:
                del self._pending[pending.request.id]
                self._fence(pending)
                pending.settle(error)

    def _send_again(self) -> None:
        """The connection was replaced: whatever had been sent may be lost, and the rings of the old one are void."""
        if self.lent is not None:
            self.lent.forget()
        self._fenced.clear()
        self._unsent.clear()
        for pending in list(self._pending.values()):
            pending.unlend()
            self._unsent.append(pending)

    def _expire(self, now: float) -> None:
        late = [pending for pending in self._pending.values() if now >= self._limit(pending)]
        for pending in late:
            del self._pending[pending.request.id]
            self._fence(pending)
            pending.settle(self._unavailable(pending))
        self._earliest = min(map(self._limit, self._pending.values()), default=float("inf"))

    def _limit(self, pending: Pending) -> float:
        return pending.deadline + GRACE if pending.sent else pending.deadline

    def _fence(self, pending: Pending) -> None:
        if pending.slot is None:
            return
        if pending.sent:
            self._fenced[pending.request.id] = pending.slot
            pending.slot.fence()
        else:
            pending.slot.release()

    def _unavailable(self, pending: Pending) -> InferError:
        if self._refused is not None:
            return self._refused
        said = f" It said: {self._complaint}." if self._complaint else ""
        if pending.sent:
            text = f"The server at {self.address.endpoint} has not answered within {pending.timeout:g} s."
        elif self._strange:
            text = (
                f"Somebody listens at {self.address.endpoint}, but no handshake succeeds (tried for "
                f"{pending.timeout:g} s). Does the server ask for a key (key=), or is its own key another one?"
            )
        else:
            text = f"Nobody listens at {self.address.endpoint} (waited {pending.timeout:g} s). Is the server running?"
        return ServerUnavailable(f"{text}{said} A larger timeout= waits longer.")
