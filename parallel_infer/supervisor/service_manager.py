"""What a service manager such as systemd is told: sd_notify(3), a few lines of text to a socket that it names."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Mapping, MutableMapping

_SHARE = 3  # of its time a watchdog is told early enough that two signs may be lost
_AGAIN = 0.5  # seconds until it is tried again where there was no life to tell of
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """The one that started this process; where there is none, everything here does nothing.

    Its variables are taken out of the environment, so that no child speaks for this process.
    """

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        given = {name: environment.pop(name, "") for name in _VARIABLES}
        self._socket = _connected(given["NOTIFY_SOCKET"])
        self._interval = _watchdog(given) / _SHARE if self._socket is not None else math.inf
        self.due = math.inf  # when to call `beat`

    @property
    def listens(self) -> bool:
        """Whether anybody is told."""
        return self._socket is not None

    def starting(self, status: str, patience: float) -> None:
        """It may take `patience` seconds until `ready`."""
        self._say(STATUS=status, EXTEND_TIMEOUT_USEC=_microseconds(patience))

    def ready(self, status: str) -> None:
        """It serves. From now on the watchdog is told, as often as `beat` is called with life to tell of."""
        if not math.isinf(self._interval):
            self.due = time.monotonic()
        self._say(READY="1", STATUS=status)

    def reloading(self) -> None:
        """The configuration is read again; `ready` ends it."""
        self._say(RELOADING="1", MONOTONIC_USEC=_microseconds(time.monotonic()))

    def stopping(self, status: str, patience: float) -> None:
        """It ends, within `patience` seconds."""
        self._say(STOPPING="1", STATUS=status, EXTEND_TIMEOUT_USEC=_microseconds(patience))

    def beat(self, now: float, alive: bool) -> None:  # a fact, not a choice
        """Tell the watchdog that all is well, if it is; else it is asked for again soon."""
        if now < self.due:
            return
        self.due = now + (self._interval if alive else min(_AGAIN, self._interval))
        if alive:
            self._say(WATCHDOG="1")

    def close(self) -> None:
        """Say no more."""
        self.due = math.inf
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, **fields: str) -> None:
        if self._socket is None:
            return
        text = "\n".join(f"{name}={' '.join(value.splitlines())}" for name, value in fields.items())
        with contextlib.suppress(OSError):  # a manager that is gone, or takes no more for now, hears nothing
            self._socket.send(text.encode(errors="replace"))


def _connected(address: str) -> socket.socket | None:
    """A socket to the manager, abstract ones too; None where there is none."""
    if not address.startswith(("/", "@")):
        return None
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError:
        channel.close()
        return None
    return channel


def _watchdog(given: Mapping[str, str]) -> float:
    """Seconds within which the watchdog wants to hear something; infinite where there is none, or it is another's."""
    if given["WATCHDOG_PID"] not in ("", str(os.getpid())):
        return math.inf
    with contextlib.suppress(ValueError):
        if (microseconds := int(given["WATCHDOG_USEC"])) > 0:
            return microseconds / 1e6
    return math.inf


def _microseconds(seconds: float) -> str:
    return str(int(seconds * 1e6))
