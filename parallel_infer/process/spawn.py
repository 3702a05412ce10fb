"""One child process, seen from its parent: start, its word, its end. Always spawned, never forked."""

from __future__ import annotations

import contextlib
import multiprocessing
import os

import msgspec

from parallel_infer.ipc.messages import FromChild, Started
from parallel_infer.process import child
from parallel_infer.process.group_signals import start_resource_tracker, starting_child
from parallel_infer.process.options import ChildOptions

_spawn = multiprocessing.get_context("spawn")
_decode = msgspec.msgpack.Decoder(FromChild).decode


class Process:
    """A child with a name of its own per incarnation. `sentinel` and `connection` can be watched."""

    def __init__(self, name: str, entry: str, options: ChildOptions) -> None:
        self.name = name
        self.connection, theirs = _spawn.Pipe()
        self._process = _spawn.Process(
            target=child.run,
            args=(name, entry, msgspec.msgpack.encode(options), theirs, os.getpid()),
            name=name,
            daemon=False,
        )
        self._theirs = theirs
        self.started = Started()  # what it said once it was up

    def start(self) -> None:
        """Start the process."""
        start_resource_tracker()
        # NumPy's products start a thread per core otherwise; here the processes are the parallelism.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        with starting_child():
            self._process.start()
        self._theirs.close()  # so that the end of the child is the end of the pipe

    @property
    def sentinel(self) -> int:
        """A descriptor that becomes readable when the process is dead."""
        return self._process.sentinel

    @property
    def exit_code(self) -> int | None:
        """None while it lives; negative: the signal that ended it."""
        return self._process.exitcode

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

    def kill(self) -> None:
        """Kill and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self.reap()

    def reap(self, timeout: float | None = None) -> bool:
        """Wait for its end; whether it has ended."""
        self._process.join(timeout)
        return self._process.exitcode is not None

    def close(self) -> None:
        """Give up what the parent keeps of a dead child."""
        self.connection.close()
        self._process.close()
