"""A process of a measurement, as its parent sees it: it answers bytes with bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from multiprocessing.connection import Connection as Pipe

from parallel_infer.errors import InferError
from parallel_infer.process.interpreter import Interpreter

_STOP_TIMEOUT = 5.0  # seconds


class BenchProcess(Interpreter):
    """One such process. `entry` ("module:function") gets its end of the pipe, where `options` come first."""

    def __init__(self, name: str, entry: str, options: bytes) -> None:
        super().__init__(entry, subprocess.DEVNULL, None)
        self.name = name
        self.send(options)

    def send(self, message: bytes) -> None:
        """Send an order. Raises InferError where the process has ended."""
        try:
            self.connection.send_bytes(message)
        except OSError:
            raise self._gone() from None

    def receive(self, patience: float) -> bytes:
        """Its next message. Raises InferError where it has ended, or said nothing for `patience` seconds."""
        try:
            if self.connection.poll(patience):
                return self.connection.recv_bytes()
        except (EOFError, OSError):
            raise self._gone() from None
        raise InferError(f"the process {self.name} has said nothing for {patience:.0f} s")

    def close(self) -> None:
        """End it: it ends by itself when its pipe is closed, and is killed where it does not."""
        super().close()
        if not self.ended(_STOP_TIMEOUT):
            self.kill()
            self.ended(None)

    def _gone(self) -> InferError:
        return InferError(f"the process {self.name} ended too early")


def messages(pipe: Pipe) -> Iterator[bytes]:
    """For the process: what the parent sends, until it closes the pipe."""
    while True:
        try:
            message = pipe.recv_bytes()
        except (EOFError, OSError):
            return
        yield message
