"""Why a server is not reached, found out while a client tries, and said after a second.

ZeroMQ tries again and again and tells no reason. `Outage` therefore looks for itself, once it has been trying for a
moment: it connects as any program would and reads the first bytes.
"""

from __future__ import annotations

import logging
import threading

import zmq

from parallel_infer.client.endpoint import Address
from parallel_infer.client.pending import Pending
from parallel_infer.client.reachability import other_mechanism, other_server_key, reason_for
from parallel_infer.errors import InferError, ServerUnavailable, Unanswered, Unauthorized

SAY_AFTER = 1.0  # seconds
_LOOK_AFTER = 0.1  # seconds
_FULL = 500  # status of a handshake with a server that has no room
_OTHER_MECHANISM = int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH)
_HANGS_UP = 2  # handshakes that end without a word, before and after a look, until the reason is clear
_GLANCE = 0.1  # seconds that a look may take where somebody waits for it
_SAY_AGAIN = 30.0  # seconds after which the same address may be spoken of again
FULL = "{} takes no more clients: it has as many as it may (option max_clients), or as its open files allow (ulimit -n)"

log = logging.getLogger("parallel_infer.client")
last_said: dict[str, float] = {}  # when, by address: connections of one process say it once


def unanswered(address: Address, pending: Pending, complaint: str) -> InferError:
    """What is said of a request whose time is over though the server is reached; `complaint` is the server's, if any.

    A server that complains of what it cannot attribute may not understand a word. Any other is late.
    """
    failed = "has not answered" if pending.sent else "took in no request"
    said = f" It said: {complaint}." if complaint else ""
    error = ServerUnavailable if complaint else Unanswered
    text = f"The server at {address.endpoint} {failed} within {pending.timeout:g} s.{said}"
    return error(f"{text} A larger timeout= waits longer.")


class Outage:
    """What one connection knows of a server that it cannot reach."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._since: float | None = None  # when somebody first wanted something in vain
        self._found = ""
        self._looking = False
        self._said = False
        self._hung_up = 0  # handshakes that ended without a word, since a look or the last connection
        self.full = False  # the server said that it has no room

    def ended(self) -> None:
        """The server is there."""
        if self._said:
            log.warning("%s is reached now", self._address.endpoint)
        self._since = None
        self._found = ""
        self._said = self.full = False
        self._hung_up = 0

    def refusal(self, event: int, value: int) -> Unauthorized | None:
        """What is said of a handshake that failed, where nothing but another key helps; None where time may."""
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self.full = value == _FULL
            text = f"The server at {self._address.endpoint} does not know this key"
            return None if self.full else Unauthorized(text)
        if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:  # of another value: it is no server of this kind
            return Unauthorized(other_mechanism(self._address)) if value == _OTHER_MECHANISM else None
        hung_up = event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and self._address.key is not None
        return Unauthorized(f"{other_server_key(self._address)}.") if hung_up and self._has_other_key() else None

    def _has_other_key(self) -> bool:
        """A handshake with keys ended without a word. Whether that is because the server's key is another one.

        A server that cannot decrypt hangs up, and so does whatever stands before a server that is away. So it has to
        be seen greeting as a server does, and to hang up again afterwards.
        """
        self._hung_up += 1
        if self._looking or self._hung_up < _HANGS_UP:
            return False
        self._hung_up = 0
        if self._found.startswith(other_server_key(self._address)):
            self._found = ""  # it may have another key when it is tried next
            return True
        self._look()
        return False

    def goes_on(self, now: float, until: float) -> None:
        """Requests wait for a connection, the last of them `until`."""
        if self._since is None:
            self._since = now
        elif now - self._since >= _LOOK_AFTER and not self._looking and not self._found:
            self._look()
        if now - self._since >= SAY_AFTER and not self._said and (self._found or self.full):
            self._said = True
            if now - last_said.get(self._address.endpoint, -_SAY_AGAIN) >= _SAY_AGAIN:
                last_said[self._address.endpoint] = now
                log.warning("%s Trying again for up to %.0f s", self.reason(), max(1.0, until - now))

    def unavailable(self, pending: Pending) -> ServerUnavailable:
        """What is said of a request whose time is over while nobody is reached."""
        lost = "The connection was lost before the answer came. " if pending.sent else ""
        waited = f"(Waited {pending.timeout:g} s; a larger timeout= waits longer.)"
        return ServerUnavailable(f"{lost}{self.reason()} {waited}")

    def reason(self) -> str:
        """Why, in one sentence or two."""
        if self.full:
            return FULL.format(f"The server at {self._address.endpoint}") + "."
        if not self._found and not self._looking and self._address.answers_at_once:
            self._found = reason_for(self._address, _GLANCE)
        return self._found or f"Nobody answers at {self._address.endpoint}. Is the server running?"

    def _look(self) -> None:
        self._looking = True

        def look() -> None:
            self._found = reason_for(self._address)
            self._looking = False

        threading.Thread(target=look, name="parallel-infer-outage", daemon=True).start()
