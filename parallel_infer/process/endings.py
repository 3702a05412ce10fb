"""Signals that ask a command to end, and what it has to stop and remove before it does."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator


def heeded(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Those to take: not a SIGHUP that is ignored from the start, as `nohup` does it to outlast its terminal."""
    return [number for number in numbers if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end this program as Ctrl-C does: what is open is stopped, closed and removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in heeded((signal.SIGTERM, signal.SIGHUP))}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
