"""A child process of the supervisor, seen from inside: its name, its arguments, its word to the parent, its end."""

from __future__ import annotations

import contextlib
import logging
import os
from multiprocessing.connection import Connection

import msgspec
from setproctitle import setproctitle

from parallel_infer.errors import ConfigError, InferError
from parallel_infer.ipc.messages import Alive, FromChild, StartFailed
from parallel_infer.loading import load_by_name
from parallel_infer.process.logs import start_logging
from parallel_infer.process.options import ChildOptions

LIFE = b"?"  # the parent asks for a sign of life
FAILED = 3  # exit code of a child that said why it could not start
log = logging.getLogger(__name__)


class Child:
    """What the code of a process gets: its name, and a way to tell its parent how it goes."""

    def __init__(self, name: str, connection: Connection) -> None:
        self.name = name
        self._connection = connection

    def orders(self) -> int:
        """A descriptor that becomes readable when the parent says something, or is gone; see `takes_order`."""
        return self._connection.fileno()

    def takes_order(self) -> bool:
        """Take in what the parent said. A question for life is answered; False when it is time to go."""
        try:
            asked = self._connection.recv_bytes() == LIFE
        except (EOFError, OSError):
            return False
        if asked:
            self.tell(Alive())
        return asked

    def tell(self, message: FromChild) -> None:
        """Tell the parent."""
        self._connection.send_bytes(msgspec.msgpack.encode(message))


class Order(msgspec.Struct, frozen=True, array_like=True):
    """The first message to a child: who it is, what it runs ("module:function"), and its options as MessagePack."""

    name: str
    entry: str
    options: bytes


def run(connection: Connection) -> None:
    """First thing in every child of a server."""
    order = msgspec.msgpack.decode(connection.recv_bytes(), type=Order)
    title = order.name.split(".")[0]
    setproctitle(f"parallel-infer: {title}")
    options = msgspec.msgpack.decode(order.options, type=ChildOptions)
    start_logging(options.log_format, options.log_level, title)
    child = Child(order.name, connection)
    try:
        load_by_name(order.entry)(child, order.options)
    except Exception as error:
        log.debug("stopped by an exception", exc_info=True)
        with contextlib.suppress(OSError):  # the parent, who says it in the log, may be gone
            child.tell(StartFailed(reason(error)))
        os._exit(FAILED)
    logging.shutdown()
    os._exit(0)  # mappings with live views and foreign threads need no orderly end


def reason(error: Exception) -> str:
    """Why a process cannot start, for people: errors of ours and of the system say it themselves, others are named."""
    if isinstance(error, (ConfigError, InferError)):
        return str(error)
    if isinstance(error, OSError):
        names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, (str, bytes))]
        return ": ".join([*names, error.strerror or str(error)])
    if isinstance(error, MemoryError):
        return "there is not enough memory; allow this process more (ulimit -v, or memory of the container)"
    return f"an internal error, {type(error).__name__}: {error}"
