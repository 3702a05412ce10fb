"""One child process, seen from its parent: start, its word, its end. Always spawned, never forked."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from typing import Any

import msgspec

from parallel_infer.ipc.messages import Alive, Drained, Left, Started, StartFailed
from parallel_infer.process import child
from parallel_infer.process.group_signals import start_resource_tracker, starting_child

_spawn = multiprocessing.get_context("spawn")
Word = Started | StartFailed | Alive | Drained | Left
_decode = msgspec.msgpack.Decoder(Word).decode


class Process:
    """A child with a name of its own per incarnation. `sentinel` and `connection` can be watched."""

    def __init__(self, name: str, entry: str, arguments: dict[str, Any]) -> None:
        self.name = name
        self.connection, theirs = _spawn.Pipe(duplex=False)
        self._process = _spawn.Process(
            target=child.run,
            args=(name, entry, msgspec.msgpack.encode(arguments), theirs, os.getpid()),
            name=name,
            daemon=False,
        )
        self._theirs = theirs
        self.facts: dict[str, Any] = {}

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

    def heard(self) -> Word | None:
        """What the child said; None when it said nothing more and is gone."""
        try:
            word: Word = _decode(self.connection.recv_bytes())
            return word
        except (EOFError, OSError):
            return None

    @property
    def has_spoken(self) -> bool:
        """Whether `heard` has something to give without waiting, be it the end."""
        return self.connection.poll()

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
