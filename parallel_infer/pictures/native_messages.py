"""What libraries written in C say of a picture on standard error, as lines of the log instead."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator

_LONGEST, _MOST = 300, 65536  # characters of a line, bytes in all
log = logging.getLogger("parallel_infer.pictures")


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """While this lasts, what is said on standard error goes to the logger `parallel_infer.pictures`, at level INFO.

    Standard error belongs to the whole process: where another thread might write to it, or start a process that
    inherits it, it is left alone.
    """
    if threading.active_count() > 1:
        yield
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none at all
        sys.stderr.flush()
    try:
        before = os.dup(2)
    except OSError:
        yield
        return
    said = os.memfd_create("said")
    try:
        os.dup2(said, 2)
        yield
    finally:  # what is said of a picture that cannot be read, too
        os.dup2(before, 2)
        os.close(before)
        text = os.pread(said, _MOST, 0).decode(errors="replace")
        os.close(said)
        _log(text)


def _log(said: str) -> None:
    for line in said.splitlines():
        if text := "".join(mark if mark.isprintable() else "?" for mark in line[:_LONGEST]).strip():
            log.info("a library says: %s", text)
