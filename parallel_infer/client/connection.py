"""One connection to a server: requests go out, replies are matched, and what a restart lost is sent again.

A connection is used by one thread at a time. Nothing is handed to the socket while nobody listens: what could not be
sent, or was sent over a connection that has since been replaced, waits in the outbox and goes out with the time it has
left. A request that has expired meanwhile is never sent, nor one that is larger than the server takes. The monitor
tells whether somebody listens; ZeroMQ's option `IMMEDIATE`, which would do the same, drops at a disconnection what had
been received and not yet read.
"""

from __future__ import annotations

import itertools
import time

import msgspec
import zmq

from parallel_infer.client.endpoint import Address
from parallel_infer.client.holds import Holds
from parallel_infer.client.lent import Fences, LentRings, Slot
from parallel_infer.client.line import FAILED, NOW, SENT_AWAY, Line
from parallel_infer.client.outage import Outage, unanswered
from parallel_infer.client.outbox import Outbox
from parallel_infer.client.pending import Outcome, Pending, outcome_of
from parallel_infer.client.terms import Terms
from parallel_infer.client.waiting import Waiting
from parallel_infer.errors import BadInput, InferError, ServerStopping, ServerUnavailable, Unauthorized, UnknownRing
from parallel_infer.protocol import STOPPED, Cancel, Error, Hello, Reply
from parallel_infer.wrong_fields import explained

SLICE = 0.05  # seconds between looks at the state of the connection while waiting
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # seconds before it is tried again
_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(Reply).decode


class Connection:
    """Sends requests and settles them with their replies."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._line = Line(address)
        self.socket = self._line.socket
        self.monitor = self._line.monitor
        self.lent = LentRings(self) if address.same_machine else None
        self.holds = Holds()
        self._waiting = Waiting()
        self._fences = Fences()
        self._outbox = Outbox()
        self.terms = Terms()
        self._hello_due = False
        self._numbers = itertools.count(1)
        self._checked = 0.0
        self._connected = False  # as the monitor told last
        self._stopped = False  # the server has replied to all that it took, and goes
        self._handshakes = 0
        self._was_away = False  # the server, since there was a connection
        self._refused: Unauthorized | None = None
        self._outage = Outage(address)
        self._reconnect_at: float | None = None  # where a full server sent us away
        self._pause = _FIRST_PAUSE
        self._server_error = ""  # what the server said about a request that it could not attribute

    def number(self) -> int:
        """A new request id."""
        return next(self._numbers)

    @property
    def idle(self) -> bool:
        """Whether no request waits for its reply."""
        return not self._waiting

    @property
    def stuck(self) -> bool:
        """Whether requests wait for the socket to become writable."""
        pending = self._outbox.next(time.monotonic()) if self._connected else None
        return pending is not None and not self.terms.open_for(pending.size)

    def post(self, pending: Pending) -> None:
        """Send a request now, or as soon as somebody listens."""
        if not self._waiting:  # nobody has looked for a while
            self._look_at_monitor()
        if self._refused is not None:
            self._try_again()
        refusal = self.holds.refusal(pending.request) if self._waiting else None
        self._waiting.add(pending)
        if refusal is not None:
            self._fail(pending, refusal)
        elif self._outbox or not self._send(pending):
            self._outbox.append(pending)

    def ask(self, pending: Pending) -> Outcome:
        """Send a request and wait for its outcome. On an interrupt the request is cancelled, however far it is."""
        try:
            self.post(pending)
            return self.wait(pending)
        except BaseException:
            self.abandon(pending)
            raise

    def wait(self, pending: Pending) -> Outcome:
        """Drive the connection until `pending`, which was posted, is settled. On an interrupt it is cancelled."""
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
        if self._outbox:
            self._line.sleep(patience, self.stuck)
            self.upkeep()
            self.drain()
            return
        self._line.limit_waiting(patience)
        try:
            self._settle(*self._line.receive())
        except zmq.Again:
            self.upkeep()
        else:
            self.upkeep_if_due()

    def drain(self) -> int:
        """Settle everything that has arrived, without waiting; returns how many replies that were."""
        count = 0
        while self._line.has_message:
            self._settle(*self._line.receive(NOW))
            count += 1
        return count

    def upkeep_if_due(self) -> None:
        """`upkeep`, where the last one is `SLICE` ago."""
        if time.monotonic() - self._checked > SLICE:
            self.upkeep()

    def upkeep(self) -> None:
        """Notice a new connection or a refusal, send what is left to send, expire what is late."""
        self._checked = time.monotonic()
        self._look_at_monitor()
        self.drain()  # what has arrived counts before the clock
        self.flush()
        if self._reconnect_at is not None and self._checked >= self._reconnect_at:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._try_again()
        if self._outbox and not self._connected:  # requests wait in vain
            self._outage.goes_on(self._checked, max(pending.deadline for pending in self._waiting.all()))
        self._expire(self._checked)

    def _look_at_monitor(self) -> None:
        while (news := self._line.news()) is not None:
            self._observe(*news)

    def flush(self) -> None:
        """Send what could not be sent before."""
        if self._hello_due and self.terms.hello is not None:
            self._hello_due = not self._tell(self.terms.hello)
        now = time.monotonic()
        while (pending := self._outbox.next(now)) is not None:
            if pending in self._waiting:
                pending.shorten()
                if not self._send(pending):
                    return
            self._outbox.taken(pending)

    def limit(self, pending: Pending, timeout: float) -> None:
        """Let a request that is on its way wait no longer than `timeout` seconds from when it was made."""
        self._waiting.limit(pending, timeout)

    def abandon(self, pending: Pending) -> None:
        """Forget a request and ask the server to forget it too. Its late answer will be dropped."""
        if self._waiting.pop(pending.request.id) is None:
            return
        self._outbox.answered(pending)
        self._fences.add(pending)
        if pending.sent and not self.socket.closed:
            self._tell(Cancel(id=self.number(), job=pending.request.id))

    def fail_all(self, error: InferError) -> None:
        """Settle every waiting request with `error`."""
        for pending in list(self._waiting.all()):
            self._fail(pending, error)

    def close(self) -> None:
        """Give lent rings back and close; requests still waiting fail with ServerUnavailable."""
        if self.socket.closed:
            return
        if self.lent is not None:
            self.lent.close()
        self._line.close()
        self.fail_all(ServerUnavailable("The client was closed before the answer came"))

    def _tell(self, request: Cancel | Hello) -> bool:
        """Send something whose reply nobody waits for."""
        return self._connected and self._line.send(_ENCODE(request), None)

    def _send(self, pending: Pending) -> bool:
        """Send a request, or refuse what the server would not take; False where neither can be done now."""
        if not self._connected or self.terms.open_for(pending.size):
            return False
        try:
            header = self.terms.header(pending)
        except BadInput as error:
            self._fail(pending, error)
            return True
        before, pending.sent = pending.sent, True  # first, because an interrupt may come when it has left
        if not self._line.send(header, pending.payload):
            pending.sent = before
            return False
        pending.under_way = True
        return True

    def _fail(self, pending: Pending, error: InferError) -> None:
        if self._waiting.pop(pending.request.id) is not None:  # else settled meanwhile, on account of another
            self._fences.add(pending)
            pending.settle(error)

    def _settle(self, header: memoryview, payload: bytes | memoryview) -> None:
        try:
            reply: Reply = _DECODE(header)
        except msgspec.MsgspecError as error:
            self._server_error = f"unreadable reply: {explained(error)}"
            return
        pending = self._waiting.pop(reply.id)
        if pending is None:
            self._late(reply)
            return
        if isinstance(reply, Error) and reply.reason == ServerStopping.reason and self._line.has_others:
            self._waiting.add(pending)  # another server takes it
            if self._connected:
                self._move_on()
            return
        if pending.suspicion:
            self._outbox.answered(pending)
        slot = pending.slot
        if slot is not None:
            if pending.payload is None and isinstance(reply, Error) and reply.reason == UnknownRing.reason:
                self._send_plain(pending, slot)
                return
            slot.release()
        pending.settle(self.holds.noted(pending.request, outcome_of(reply, payload)))

    def _late(self, reply: Reply) -> None:
        """A second answer, or one that nobody waits for any more: it only frees its slot."""
        if self._fences.release(reply.id):
            return
        if self.terms.learn(reply):
            self.flush()
        elif reply.id == 0 and isinstance(reply, Error):
            if reply.reason == STOPPED:
                self._stopped = True
            elif reply.reason == ServerStopping.reason:
                if self._connected:
                    self._move_on()
            else:
                self._server_error = f"{reply.code}: {reply.message}"

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
        self._reconnect_at = None
        self._line.connect_again()

    def _move_on(self) -> bool:
        """The next address gets what has no reply; False where there is no other."""
        if self._line.has_others:
            self._connected, self._was_away = False, True
            self._reconnect_at = None if self._line.move_on() else time.monotonic() + self._pause
        return self._line.has_others

    def _observe(self, event: int, value: int) -> None:
        if event & FAILED:
            self._on_failed(event, value)
            return
        if event == zmq.EVENT_DISCONNECTED:
            self._on_disconnected()
            return
        self._refused = None
        self._connected = True
        self._stopped = False
        self._pause = _FIRST_PAUSE
        self._outage.ended()
        self._hello_due = not self._tell(self.terms.ask(self.number()))
        self._handshakes += 1
        if self._handshakes > 1:
            self._send_again()

    def _on_failed(self, event: int, value: int) -> None:
        """It came to no connection. Where only another key helps, and there is no other address, that is the answer."""
        refusal = self._outage.refusal(event, value) if self._waiting or event & SENT_AWAY else None
        if refusal is not None and (self._line.is_last or not self._move_on()):
            self._refused = refusal
            self.fail_all(refusal)
        elif refusal is None:
            self._was_away = True
            if not self._move_on() and event & SENT_AWAY:  # ZeroMQ does not try again by itself
                self._reconnect_at = time.monotonic() + self._pause

    def _on_disconnected(self) -> None:
        """What has arrived counts.

        A server that says that it has stopped has replied to all that it took: the rest it did not take. What is
        missing from any other is sent again.
        """
        self._connected = self._was_away = False
        self.drain()
        stopped, self._stopped = self._stopped, False
        if not self._move_on() and stopped:
            error = ServerStopping(f"The server at {self.address.endpoint} stopped before it took this request")
            for pending in [pending for pending in self._waiting.all() if pending.under_way]:
                self._fail(pending, error)

    def _send_again(self) -> None:
        """The connection was replaced: whatever had been sent may be lost, and the rings of the old one are void."""
        if self.lent is not None:
            self.lent.forget()
        self._fences.clear()
        for pending in self._waiting.all():
            pending.unlend()
        waiting, now = self._waiting.all(), time.monotonic()
        for pending in self._outbox.lost(waiting) if self._was_away else self._outbox.cut(waiting, now):
            text = f"was lost each time this request of {pending.size} bytes was under way; it is not sent again."
            self._fail(pending, ServerUnavailable(f"The connection to {self.address.endpoint} {text}"))

    def _expire(self, now: float) -> None:
        for pending in self._waiting.overdue(now):
            if pending.sent and not self.socket.closed:  # a server that stood still would work on it yet
                self._tell(Cancel(id=self.number(), job=pending.request.id))
            if self._connected:
                error = unanswered(self.address, pending, self._server_error)
            else:
                error = self._refused or self._outage.unavailable(pending)
            self._fail(pending, error)
