"""What libraries written in C say on standard error, as lines of the log: with its format, level and rate limit.

    libpng, libjpeg, libtiff ... -> descriptor 2 -> pipe -> `log()`, after each job -> the log -> the old descriptor 2

The pipe blocks nobody: what a library says beyond its size, between two calls of `log`, is dropped.
"""

from __future__ import annotations

import logging
import os
import select
import sys

_MOST_BYTES = 65536  # of a pipe, as Linux makes it
_LONGEST = 300  # characters of a line
log = logging.getLogger(__name__)


class NativeOutput:
    """Standard error of this process, taken over for good; loggers that wrote to it go on where it led."""

    def __init__(self) -> None:
        self._reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        terminal = os.dup(2)
        stream = os.fdopen(terminal, "w", buffering=1, errors="backslashreplace", closefd=False)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setStream(stream)
        os.dup2(writing, 2, inheritable=False)
        os.close(writing)
        self._poll = select.poll()
        self._poll.register(self._reading, select.POLLIN)

    def log(self) -> None:
        """Write what was said since the last call, a line each."""
        if not self._poll.poll(0):  # asked after each job: an error that says so takes three times as long
            return
        said = os.read(self._reading, _MOST_BYTES)
        for line in said.decode(errors="replace").splitlines():
            if text := "".join(mark if mark.isprintable() else "?" for mark in line[:_LONGEST]).strip():
                log.info("a library says: %s", text)
