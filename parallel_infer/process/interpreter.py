"""The one way a process of Python is started here: a new interpreter at the other end of a socket pair.

    parent: Interpreter(entry) ── spawn ──► main() ── entry(connection) ── end of the process
                connection ◄──── bytes, both ways; readable also once the process has ended ────►

Nothing is forked, and nothing of the calling program runs in it, so no `__main__` guard is needed there. It finds
modules where its parent does, leaves the signals of the group to it, and dies with it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path

from parallel_infer.loading import load_by_name
from parallel_infer.process.group_signals import leave_signals_to_parent, starting_child

_ROOT = str(Path(__file__).resolve().parents[2])  # so that a checkout that is not installed works too
_PR_SET_PDEATHSIG = 1


class Interpreter:
    """Started by its constructor. `connection` can be watched, and is readable when the process has died.

    `entry` is "module:function", called there with the other end of the connection; the process ends when it returns.
    `stdin` and `output` (standard output and error) are as `subprocess` takes them; None is the parent's own.
    `environment` are variables that it has besides those of the parent.
    """

    def __init__(
        self, entry: str, stdin: int | None, output: int | None, environment: Mapping[str, str] | None = None
    ) -> None:
        ours, theirs = (end.detach() for end in socket.socketpair())
        self.connection = Connection(ours)
        try:
            with starting_child():
                self._process = subprocess.Popen(
                    [*_command(), entry, str(theirs), str(os.getpid())],
                    pass_fds=(theirs,),
                    stdin=stdin,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **(environment or {}), "PYTHONPATH": os.pathsep.join([*sys.path, _ROOT])},
                )
        except BaseException:
            self.connection.close()
            raise
        finally:
            os.close(theirs)  # so that the end of the process is the end of the connection

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None until `ended`; negative: the signal that ended it."""
        return self._process.returncode

    def kill(self) -> None:
        """Have it end for certain; `ended` tells when."""
        self._process.kill()

    def ended(self, patience: float | None = 0.0) -> bool:
        """Whether it is dead within `patience` seconds (None: for ever), and writes to no memory any more.

        A driver may hold a process that was killed in the kernel for long.
        """
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        """Give up the connection."""
        self.connection.close()


def die_with_parent(parent: int) -> None:
    """In a child: be killed when the parent, whose process id is given, dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # the parent died before the line above


def main() -> None:
    """`python -m parallel_infer.process.interpreter ENTRY DESCRIPTOR PARENT`."""
    entry, descriptor, parent = sys.argv[1:]
    leave_signals_to_parent()
    die_with_parent(int(parent))
    os.set_inheritable(int(descriptor), False)
    load_by_name(entry)(Connection(int(descriptor)))


def _command() -> list[str]:
    """A Python that takes modules from where this one does, and from the working folder only where this one does."""
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
    return [sys.executable, *utf8, "-P", "-m", "parallel_infer.process.interpreter"]


if __name__ == "__main__":
    main()
