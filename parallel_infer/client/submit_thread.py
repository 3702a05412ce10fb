"""The thread behind `submit`: it owns a connection, sends what others hand it and settles what comes back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable

import zmq

from parallel_infer.client.connection import SLICE, Connection
from parallel_infer.client.endpoint import Address
from parallel_infer.errors import BadInput, ServerUnavailable
from parallel_infer.limits import LARGEST_PAYLOAD

_BURST = 64  # requests sent before replies are looked at again
_SLOTS = 16  # lent slots to ask for


class SubmitThread:
    """Runs tasks (send this, forget that) on its connection, in a thread that starts with the first one."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._tasks: deque[Callable[[Connection], None]] = deque()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asleep = False
        self._stopping = False
        self._connection: Connection | None = None
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)
        self._woken.setblocking(False)

    @property
    def most(self) -> int:
        """Bytes of the largest payload that the server takes, as far as that is known."""
        return LARGEST_PAYLOAD if self._connection is None else self._connection.terms.most

    @property
    def is_used(self) -> bool:
        """Whether it was handed anything yet."""
        return self._thread is not None

    @property
    def is_here(self) -> bool:
        """Whether the caller is this thread, that is a callback."""
        return threading.current_thread() is self._thread

    def check_place(self, what: str) -> None:
        """Refuse what waits for answers in the thread that receives them. Raises BadInput."""
        if self.is_here:
            raise BadInput(
                f"a callback cannot {what} of its client: the thread that runs callbacks also receives the answers. "
                "Call infer, give that job a callback too, or wait in a thread of your own"
            )

    def run(self, task: Callable[[Connection], None]) -> None:
        """Have `task` run on the connection, soon. Raises ServerUnavailable after `stop`."""
        if self._stopping:
            raise ServerUnavailable("The client is closed")
        if self._thread is None:
            self._start()
        self._tasks.append(task)  # first append, then look whether it sleeps: the thread does it the other way round
        if self._asleep:
            self._ring()
        if self._stopping:
            with contextlib.suppress(ValueError):  # not there: the thread ran it in time
                self._tasks.remove(task)
                raise ServerUnavailable("The client is closed")

    def stop(self) -> None:
        """Close the connection, fail what is on its way, and end the thread."""
        with self._starting:
            self._stopping = True
        thread = self._thread
        if thread is not None:
            self._ring()
            if thread is not threading.current_thread():
                thread.join()
        self._wake.close()
        self._woken.close()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stopping:
                self._connection = connection = Connection(self._address)
                if connection.lent is not None:
                    connection.lent.wanted = _SLOTS
                self._thread = threading.Thread(
                    target=self._live, args=(connection,), name="parallel-infer-client", daemon=True
                )
                self._thread.start()

    def _live(self, connection: Connection) -> None:
        poller = zmq.Poller()
        poller.register(self._woken.fileno(), zmq.POLLIN)
        poller.register(connection.monitor, zmq.POLLIN)
        try:
            while not self._stopping:
                sent = self._run_tasks(connection)
                received = connection.drain()
                connection.upkeep_if_due()
                if not sent and not received:
                    self._sleep(connection, poller)
        finally:
            self._stopping = True
            self._run_tasks(connection)
            connection.close()

    def _run_tasks(self, connection: Connection) -> int:
        count = 0
        while self._tasks and (count < _BURST or self._stopping):
            self._tasks.popleft()(connection)
            count += 1
        return count

    def _sleep(self, connection: Connection, poller: zmq.Poller) -> None:
        poller.register(connection.socket, zmq.POLLIN | (zmq.POLLOUT if connection.stuck else 0))
        self._asleep = True
        if not self._tasks and not self._stopping:
            poller.poll(None if connection.idle else round(SLICE * 1000))
        self._asleep = False
        with contextlib.suppress(OSError):  # nothing to read, or closed by a callback
            self._woken.recv(4096)
        connection.upkeep()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full: it will wake anyway
            self._wake.send(b"\0")
