"""A child process of the supervisor, seen from inside: its name, its arguments, its word to the parent, its end."""

from __future__ import annotations

import contextlib
import logging
import os
from multiprocessing.connection import Connection
from typing import Any

import msgspec
from setproctitle import setproctitle

from parallel_infer.ipc.messages import Alive, Drained, Left, Started, StartFailed
from parallel_infer.loading import load_by_name
from parallel_infer.process.group_signals import leave_signals_to_parent
from parallel_infer.process.interpreter import die_with_parent
from parallel_infer.process.logs import start_logging
from parallel_infer.process.sandbox.confinement import confine_decoder

FAILED = 3  # exit code of a child that said why it could not start
log = logging.getLogger(__name__)


class Child:
    """What the code of a process gets: who it is, and a way to tell the supervisor how it goes."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self._connection = connection
        self.facts: dict[str, Any] = {}  # what the supervisor is told beside what the code says

    def started(self, facts: dict[str, Any]) -> None:
        """Tell the supervisor that this process is up."""
        self._connection.send_bytes(msgspec.msgpack.encode(Started({**self.facts, **facts})))

    def alive(self) -> None:
        """Tell the supervisor that this process is not stuck."""
        self._connection.send_bytes(msgspec.msgpack.encode(Alive()))

    def failed(self, text: str) -> None:
        """Tell the supervisor why this process cannot start."""
        self._connection.send_bytes(msgspec.msgpack.encode(StartFailed(text)))

    def drained(self) -> None:
        """Tell the supervisor that nothing is owed any more."""
        self._connection.send_bytes(msgspec.msgpack.encode(Drained()))

    def left(self, word: Left) -> None:
        """Tell the supervisor how it went, as the last thing."""
        self._connection.send_bytes(msgspec.msgpack.encode(word))


def _confine(options: dict[str, Any]) -> dict[str, Any]:
    """First of all, while there is one thread and nothing of a stranger's was read."""
    if options.get("kind") == "decode" and options["confine"] == "on":
        return {"confined": confine_decoder(options["limits"]["max_pixels"], {options["stage"].partition(".")[0]})}
    return {}


def run(name: str, entry: str, arguments: bytes, connection: Connection, parent: int) -> None:
    """First thing in every child. `entry` is "module:function", called with a Child and its arguments."""
    setproctitle(f"parallel-infer: {name.split('.')[0]}")
    leave_signals_to_parent()
    die_with_parent(parent)
    options = msgspec.msgpack.decode(arguments)
    start_logging(options["log_format"], options["log_level"], name.split(".")[0])
    child = Child(name, connection)
    try:
        child.facts = _confine(options)
        load_by_name(entry)(child, options)
    except Exception as error:
        log.debug("stopped by an exception", exc_info=True)
        with contextlib.suppress(OSError):  # the parent, who says it in the log, may be gone
            child.failed(f"{type(error).__name__}: {error}")
        os._exit(FAILED)
    logging.shutdown()
    os._exit(0)  # mappings with live views and foreign threads need no orderly end
