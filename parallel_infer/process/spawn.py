"""One child process of a server, seen from its parent: start, messages, end."""

from __future__ import annotations

import contextlib
import subprocess

import msgspec

from parallel_infer.ipc.messages import FromChild
from parallel_infer.process.child import LIFE, Order
from parallel_infer.process.interpreter import Interpreter
from parallel_infer.process.options import ChildOptions

_ENTRY = "parallel_infer.process.child:run"
_decode = msgspec.msgpack.Decoder(FromChild).decode
# NumPy's products start a thread per core otherwise; here the processes are the parallelism.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}


class Process(Interpreter):
    """A child with a name of its own per incarnation, started by its constructor.

    `entry` is "module:function", called there with a `Child` and the options as MessagePack.
    """

    def __init__(self, name: str, entry: str, options: ChildOptions) -> None:
        super().__init__(_ENTRY, subprocess.DEVNULL, None, _ENVIRONMENT)
        self.name = name
        with contextlib.suppress(OSError):  # it has died at once, which is seen like any other death
            self.connection.send_bytes(msgspec.msgpack.encode(Order(name, entry, msgspec.msgpack.encode(options))))

    def receive(self) -> FromChild | None:
        """The next message of the child, waited for; None when it has ended and said all."""
        try:
            message: FromChild = _decode(self.connection.recv_bytes())
            return message
        except (EOFError, OSError):
            return None

    @property
    def has_message(self) -> bool:
        """Whether `receive` returns at once, be it for the end of the child."""
        return self.connection.poll()

    def ask_to_end(self) -> None:
        """Tell a child that listens to its parent (`Child.orders`) that it is time to go."""
        with contextlib.suppress(OSError):  # it is gone already
            self.connection.send_bytes(b"")

    def ask_for_life(self) -> None:
        """Have such a child say that it is alive (`Child.takes_order`)."""
        with contextlib.suppress(OSError):
            self.connection.send_bytes(LIFE)

    def kill(self) -> None:
        """Kill and reap it."""
        super().kill()
        self.ended(None)
