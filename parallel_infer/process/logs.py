"""Logs: one line an event, on stderr, as text or JSON.

What strangers can cause again and again must not fill a disk: of one kind of event only so many are written in a while.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable

MOST = 20  # events of one kind that are written within PERIOD
PERIOD = 10.0  # seconds


class _JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "process": self._process,
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _TextLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03d %(levelname)-7s {process}: %(message)s", "%H:%M:%S")
        self.converter = time.localtime


class Throttle(logging.Filter):
    """Lets through the first MOST events of a kind in each PERIOD, the last of them with a word about the silence.

    A kind is a logger and a text before its values are filled in. The first event of a kind after a silence says how
    many there were in between.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, str], tuple[float, int]] = {}  # to the start of its period, and events in it

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write it."""
        now = self._clock()
        kind = record.name, str(record.msg)
        start, count = self._kinds.get(kind, (now, 0))
        if now - start >= PERIOD:
            if count > MOST:
                _add(record, f" ({count - MOST} more like this were not written)")
            start, count = now, 0
        elif count == MOST - 1:
            _add(record, f" (more like this are not written for {PERIOD:.0f} s)")
        self._kinds[kind] = start, count + 1
        return count < MOST


def _add(record: logging.LogRecord, text: str) -> None:
    record.msg, record.args = record.getMessage() + text, None


def start_logging(log_format: str, level: str, process: str) -> None:
    """Send this process's log to stderr."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(_JsonLines(process) if log_format == "json" else _TextLines(process))
    output.addFilter(Throttle())  # on the output, so that it sees the events of every logger
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level.upper())
