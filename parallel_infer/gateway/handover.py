"""The end of a gateway: when all replies are sent, and when all clients have read them.

From the beginning of a stop it refuses what is new. It is through with its clients when no job is pending and none
of them has sent anything for a moment, or when its time is over. Then each connection is handed over: it stays open
until the client has taken every byte, since what a kernel still holds of a connection whose end is closed may be lost.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable

from parallel_infer.errors import ServerStopping
from parallel_infer.machine.descriptors import untaken
from parallel_infer.protocol import STOPPED

STOPPING = "the server is stopping"
# The errors that clients are told of a stop with: at its beginning, and as the last word to each.
NOTICE = ServerStopping.code, STOPPING, ServerStopping.reason
HAS_STOPPED = ServerStopping.code, "the server has stopped", STOPPED
GIVEN_UP = "the server stopped before the answer was ready (option drain_timeout_ms)"
_QUIET = 0.05  # seconds without a request after which nobody is expected to send one who knows that we stop
_QUIET_OF_STRANGERS = 0.5  # ... and nobody who does not
RETURN = 2.0  # seconds in which clients of a gateway that died have found its successor
_PATIENCE = 1.0  # seconds after the last answer for which that is waited for
IDLE = 3.0  # seconds without anything to take for clients after which ZeroMQ is not waited for any more
_LOOK = 0.02  # seconds between looks at whether clients have taken their replies: no event tells
_CHUNK = 65536  # bytes


class Leaving:
    """A stop under way. Pure: the time is given to it."""

    def __init__(self, until: float, pending: int, not_before: float = -math.inf) -> None:
        self.until = until
        self._not_before = not_before  # clients of a predecessor that died are expected back until then
        self.pending = pending  # jobs when it began
        self.refused = 0  # jobs that came since
        self._last_request = -math.inf  # when a client last sent something
        self._settled: float | None = None  # since when no job is pending
        self._quiet = _QUIET
        self._again = -math.inf  # when to look again whether clients have taken everything

    def hasten(self, until: float) -> None:
        """End by `until` where that is earlier."""
        self.until = min(self.until, until)

    def note_request(self, now: float) -> None:
        """A client has sent something."""
        self._last_request = now

    def continues(
        self, now: float, pending: int, has_strangers: Callable[[], bool], is_read: Callable[[], bool]
    ) -> bool:
        """Whether something is still to be said, or to be taken by a client. `pending` counts what has no reply.

        Strangers are clients that could not be told of the stop.
        """
        if pending:
            self._settled = None
        elif self._settled is None:
            self._settled = now
            self._quiet = _QUIET_OF_STRANGERS if has_strangers() else _QUIET
        if now < self.ends:
            return True
        if now < self.until and not is_read():
            self._again = now + _LOOK
            return True
        return False

    @property
    def ends(self) -> float:
        """When it is over, unless something happens before."""
        if self._settled is None:
            return self.until
        quiet = min(max(self._last_request, self._settled) + self._quiet, self._settled + _PATIENCE)
        return min(max(quiet, self._again, self._not_before), self.until)


class Handover:
    """Connections that outlive the socket they belonged to, until their clients have read everything.

    Made before ZeroMQ closes them, from their descriptors.
    """

    def __init__(self, descriptors: Iterable[int]) -> None:
        self._kept: dict[int, socket.socket] = {}
        self._dropped = bytearray(_CHUNK)
        for descriptor in descriptors:
            with contextlib.suppress(OSError):  # it has just ended
                kept = socket.socket(fileno=os.dup(descriptor))
                self._kept[kept.fileno()] = kept

    def outlast(self, end: Callable[[], object], until: float) -> None:
        """Let ZeroMQ end its sockets: `end` returns when it has handed everything to the kernel, or at `until`.

        It may also not return although nothing is left: a connection that is lost while its socket is being closed can
        keep ZeroMQ waiting for the whole time. Where clients have nothing to take for a while, that is not waited for.
        """
        ended = threading.Event()
        idle_since: float | None = None

        def run() -> None:
            end()
            ended.set()

        threading.Thread(target=run, daemon=True).start()
        while not ended.wait(_LOOK):
            now = time.monotonic()
            if any(map(untaken, self._kept)):
                idle_since = None
            elif idle_since is None:
                idle_since = now
            if now >= until + IDLE or (idle_since is not None and now - idle_since >= IDLE):
                return

    def wait(self, until: float) -> int:
        """Wait until every client has taken what it is owed, or has gone; how many had not at `until`.

        Nothing more comes from us. What clients still send is taken and dropped: unread, it would make the kernel throw
        away what it holds for them.
        """
        poller = select.poll()
        for descriptor, kept in list(self._kept.items()):
            self._drop_what_came(descriptor)
            if descriptor in self._kept and not untaken(descriptor):
                self._close(descriptor)
            elif descriptor in self._kept:
                with contextlib.suppress(OSError):
                    kept.shutdown(socket.SHUT_WR)
                poller.register(descriptor, select.POLLIN)
        while self._kept and (left := until - time.monotonic()) > 0:
            for descriptor, _ in poller.poll(min(left, _LOOK) * 1000):
                self._drop_what_came(descriptor)
                if descriptor not in self._kept:
                    poller.unregister(descriptor)
            for descriptor in [kept for kept in self._kept if not untaken(kept)]:
                poller.unregister(descriptor)
                self._close(descriptor)
        late = sum(untaken(descriptor) > 0 for descriptor in self._kept)
        for descriptor in list(self._kept):
            self._close(descriptor)
        return late

    def _drop_what_came(self, descriptor: int) -> None:
        """Read what a client has sent; where that is the end, its connection is over."""
        try:
            while self._kept[descriptor].recv_into(self._dropped, 0, socket.MSG_DONTWAIT):
                pass
        except BlockingIOError:
            return
        except OSError:
            pass
        self._close(descriptor)

    def _close(self, descriptor: int) -> None:
        self._kept.pop(descriptor).close()
