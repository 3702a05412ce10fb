"""The load generator, one process of it: a closed loop or an open one over a connection of the client.

It works on the client's connection itself, one thread and no futures: the less it takes of the machine, the more is
left to the server that is measured.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator

from parallel_infer.client.connection import Connection
from parallel_infer.client.payload import Payload
from parallel_infer.client.pending import Outcome, Pending
from parallel_infer.client.requests import job_of
from parallel_infer.errors import InferError, ResourceUnavailable
from parallel_infer.tools.bench.record import Notes, Order, Record

_PATIENCE = 0.1  # seconds until a closed loop whose jobs were refused tries one more: hammering measures the client
_NAP = 0.0002  # seconds between looks at the socket when a job is nearly due
_NEAR = 0.002  # seconds; the socket's own timeout counts in milliseconds
_OPEN = 64  # jobs of an open loop that may well be under way at once
_STRAGGLERS = 1.0  # seconds beyond its timeout that a job's outcome is waited for


class Load:
    """One load over one connection. `run` makes it."""

    def __init__(self, connection: Connection, order: Order, payloads: list[Payload]) -> None:
        self._connection = connection
        self._order = order
        self._job = job_of(order.model, order.timeout, 0, {})
        self._payloads = itertools.cycle(payloads)
        self._notes = Notes()
        self._in_flight = 0
        if connection.lent is not None:
            connection.lent.wanted = order.in_flight or _OPEN  # slots for frames
        self._window = order.in_flight  # closed loop: how many the server has room for, as far as is known
        self._grow_at = 0.0

    def run(self) -> Record:
        """Sends from `begin` to `end`, then waits for what is still on its way."""
        self._connection.upkeep()
        time.sleep(max(0.0, self._order.begin - time.monotonic()))
        began, worked = time.monotonic(), time.process_time()
        if self._order.rate:
            self._open_loop()
        else:
            self._closed_loop()
        share = (time.process_time() - worked) / max(1e-9, time.monotonic() - began)
        self._wait_for_stragglers()
        return self._notes.record(share)

    def _closed_loop(self) -> None:
        while (now := time.monotonic()) < self._order.end:
            if self._window < self._order.in_flight and now >= self._grow_at:
                self._window, self._grow_at = self._window + 1, now + _PATIENCE
            while self._in_flight < self._window:
                self._send(time.monotonic())
            self._connection.receive(_PATIENCE if self._window < self._order.in_flight else None)

    def _open_loop(self) -> None:
        for due in self._moments():
            self._receive_until(due)
            if self._counts(due):
                self._notes.sent(time.monotonic() - due)
            self._send(due)

    def _moments(self) -> Iterator[float]:
        """When jobs fall due: a Poisson process, in which the time between two of them is exponential."""
        source = random.Random(self._order.seed)  # noqa: S311  # arrivals, not secrets
        due = self._order.begin + source.expovariate(self._order.rate)
        while due < self._order.end:
            yield due
            due += source.expovariate(self._order.rate)

    def _receive_until(self, due: float) -> None:
        while (left := due - time.monotonic()) > 0:
            if left > _NEAR:
                self._connection.receive(left - _NEAR)
            elif not self._connection.drain():
                time.sleep(min(left, _NAP))
        self._connection.drain()
        self._connection.upkeep_if_due()

    def _send(self, due: float) -> None:
        """Send the next picture; its latency and its timeout run from `due`."""
        pending = self._job.pending(self._connection, next(self._payloads), self._settle)
        pending.deadline = due + pending.timeout
        if self._order.rate:
            pending.shorten()
        self._in_flight += 1
        self._connection.post(pending)

    def _settle(self, pending: Pending, outcome: Outcome) -> None:
        self._in_flight -= 1
        now, due = time.monotonic(), pending.deadline - pending.timeout
        if isinstance(outcome, ResourceUnavailable):
            self._window, self._grow_at = max(1, self._in_flight), now + _PATIENCE
        if self._counts(now) and not isinstance(outcome, InferError):
            self._notes.arrival()
        if not self._counts(due if self._order.rate else now):
            return
        if isinstance(outcome, InferError):
            self._notes.error(outcome.code)
        else:
            self._notes.answer(now - due, outcome)  # type: ignore[arg-type]  # every job is an Infer

    def _counts(self, moment: float) -> bool:
        return self._order.start <= moment < self._order.end

    def _wait_for_stragglers(self) -> None:
        limit = time.monotonic() + self._order.timeout + _STRAGGLERS
        while not self._connection.idle and time.monotonic() < limit:
            self._connection.receive(None)
