"""A process that answers bytes with bytes, as its parent sees it. Always spawned; nothing is pickled on the pipe."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection as Pipe

from parallel_infer.errors import InferError
from parallel_infer.process.group_signals import leave_signals_to_parent, start_resource_tracker, starting_child

_spawn = multiprocessing.get_context("spawn")
_STOP_TIMEOUT = 5.0  # seconds

Entry = Callable[[bytes, Pipe], None]


class Piped:
    """One such process. `entry` gets `options` and its end of the pipe; it ends when that pipe does."""

    def __init__(self, name: str, entry: Entry, options: bytes) -> None:
        self.name = name
        self._pipe, theirs = _spawn.Pipe()
        self._process = _spawn.Process(target=_run, args=(entry, options, theirs), name=name, daemon=True)
        start_resource_tracker()
        with starting_child():
            self._process.start()
        theirs.close()  # so that the end of the process is the end of the pipe

    def tell(self, order: bytes) -> None:
        """Send an order. Raises InferError where nobody is there any more."""
        try:
            self._pipe.send_bytes(order)
        except OSError:
            raise self._gone() from None

    def hear(self, patience: float) -> bytes:
        """The next word of the process. Raises InferError where it ended, or said nothing for `patience` seconds."""
        try:
            if self._pipe.poll(patience):
                return self._pipe.recv_bytes()
        except (EOFError, OSError):
            raise self._gone() from None
        raise InferError(f"the process {self.name} has said nothing for {patience:.0f} s")

    def close(self) -> None:
        """End it."""
        self._pipe.close()
        self._process.join(_STOP_TIMEOUT)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _gone(self) -> InferError:
        return InferError(f"the process {self.name} ended too early")


def orders(pipe: Pipe) -> Callable[[], bytes | None]:
    """For the process: what to call for the next order; None once the parent has closed the pipe."""

    def following() -> bytes | None:
        try:
            return pipe.recv_bytes()
        except (EOFError, OSError):
            return None

    return following


def _run(entry: Entry, options: bytes, pipe: Pipe) -> None:
    leave_signals_to_parent()
    entry(options, pipe)
