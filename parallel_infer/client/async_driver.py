"""A connection driven by an event loop, through the descriptor of its socket.

zmq signals the descriptor only when the socket's state changes, and any use of the socket may consume that signal.
Therefore the loop looks for replies after every send too, and a timer that runs while requests wait looks again.
"""

from __future__ import annotations

import asyncio

from parallel_infer.client.connection import SLICE, Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.client.pending import Outcome, Pending


class Driver:
    """Made inside the loop that drives it."""

    def __init__(self, address: Address) -> None:
        self.connection = Connection(address)
        self._loop = asyncio.get_running_loop()
        self._descriptor = self.connection.socket.fileno()
        self._loop.add_reader(self._descriptor, self._look)
        self._news = self.connection.monitor.fileno()  # somebody listens now, or no more
        self._loop.add_reader(self._news, self._hear)
        self._stirred = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_here(self) -> bool:
        """Whether the running loop is the one that drives this."""
        return self._loop is asyncio.get_running_loop()

    async def ask(self, pending: Pending) -> Outcome:
        """Send a request and wait for its outcome; where the waiting task is cancelled, so is the job."""
        done: asyncio.Future[Outcome] = self._loop.create_future()

        def settled(_: Pending, outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        pending.sink = settled
        self.connection.post(pending)
        self.stir()
        try:
            return await done
        except asyncio.CancelledError:
            self.connection.abandon(pending)
            raise

    async def lending(self, timeout: float) -> None:  # noqa: ASYNC109 - bounds the request itself
        """Wait up to `timeout` seconds until the server has said whether it lends a ring, where it was asked."""
        asking = self.connection.lent.asking if self.connection.lent is not None else None
        if asking is None:
            return
        done = asyncio.Event()
        self.connection.limit(asking, timeout)
        asking.also(lambda pending, outcome: done.set())
        self.stir()
        await done.wait()

    def stir(self) -> None:
        """The socket was used: look for replies in the loop's next round, and keep looking while any is missing."""
        if not self._stirred:
            self._stirred = True
            self._loop.call_soon(self._look)
        if self._timer is None:
            self._timer = self._loop.call_later(SLICE, self._tick)

    def close(self) -> None:
        """Stop driving and close the connection; requests still waiting fail with ServerUnavailable."""
        if self.connection.socket.closed:
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._descriptor)
            self._loop.remove_reader(self._news)
        if self._timer is not None:
            self._timer.cancel()
        self.connection.close()

    def _look(self) -> None:
        self._stirred = False
        if self.connection.socket.closed:
            return
        if self.connection.stuck:
            self.connection.flush()
        self.connection.drain()

    def _hear(self) -> None:
        if not self.connection.socket.closed:
            self.connection.upkeep()
            self.connection.drain()

    def _tick(self) -> None:
        self._timer = None
        self.connection.upkeep()
        self.connection.drain()
        if not self.connection.idle:
            self._timer = self._loop.call_later(SLICE, self._tick)
