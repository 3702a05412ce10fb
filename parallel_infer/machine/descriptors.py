"""Open files of a process: how many there may be, and who ended a connection whose descriptor is closed already."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import select
import struct
import termios
from enum import Enum
from pathlib import Path

RESERVE = 32  # descriptors that are kept free, for newcomers who are told that there is no room, and for files
_UNLIMITED = 1 << 20


def limit() -> int:
    """How many descriptors this process may have open now."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> int:
    """Raise the limit as far as a process may by itself (soft to hard); what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return limit()


def open_now() -> int:
    """How many descriptors this process has open; where there is none left to look with, that is all of them."""
    try:
        return len(list(Path("/proc/self/fd").iterdir()))
    except OSError:
        return limit()


def untaken(descriptor: int) -> int:
    """Bytes sent that the other end of a connection has not taken (tcp: acknowledged) yet; none once it is gone."""
    poller = select.poll()
    poller.register(descriptor, 0)
    if poller.poll(0):  # POLLHUP, POLLERR or POLLNVAL
        return 0
    try:
        found: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    except OSError:
        return 0
    return found


class End(Enum):
    """Who ended a connection."""

    UNKNOWN = 0
    THEIRS = 1
    OURS = 2  # the other end is still there
    OURS_UNREAD = 3  # ... and something it sent was not read


class Duplicates:
    """A second descriptor of each connection, which outlives the first for as long as it takes to look at it.

    ZeroMQ says that a connection ended and not by whom, nor why.
    """

    def __init__(self) -> None:
        self._of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._of)

    def keep(self, descriptor: int) -> None:
        """A connection has begun. Where descriptors may become rare, a quarter of them being taken, it is left."""
        if descriptor >= limit() // 4:
            return
        with contextlib.suppress(OSError):  # it ended already
            self._of[descriptor] = os.dup(descriptor)

    def end_of(self, descriptor: int) -> End:
        """A connection has ended: who ended it."""
        duplicate = self._of.pop(descriptor, None)
        if duplicate is None:
            return End.UNKNOWN
        poller = select.poll()
        poller.register(duplicate, select.POLLIN | select.POLLRDHUP)
        found = poller.poll(0)
        os.close(duplicate)
        if not found:
            return End.OURS
        return End.OURS_UNREAD if found[0][1] == select.POLLIN else End.THEIRS

    def close(self) -> None:
        """Close them all."""
        for duplicate in self._of.values():
            os.close(duplicate)
        self._of.clear()
