"""Logs: one line an event, on stderr, as text or JSON."""

from __future__ import annotations

import json
import logging
import sys
import time


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


def start_logging(log_format: str, level: str, process: str) -> None:
    """Send this process's log to stderr."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(_JsonLines(process) if log_format == "json" else _TextLines(process))
    root = logging.getLogger()
    root.handlers = [output]
    root.setLevel(level.upper())
