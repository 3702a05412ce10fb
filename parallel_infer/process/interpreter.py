"""A child process that is a new interpreter at the other end of a socket pair: its start, its end, both sides of it.

Nothing of the calling program runs in it, so no `__main__` guard is needed there. It dies with its parent.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from parallel_infer.loading import load_by_name
from parallel_infer.process.group_signals import leave_signals_to_parent, starting_child

_ROOT = Path(__file__).resolve().parents[2]  # so that a checkout that is not installed works too
_PR_SET_PDEATHSIG = 1


class Interpreter:
    """Started by its constructor. `connection` can be watched, and is readable when the process has died.

    `entry` is "module:function", called there with the other end of the connection; the process ends when it returns.
    `stdin` and `output` (standard output and error) are as `subprocess` takes them; None is the parent's own.
    """

    def __init__(self, entry: str, stdin: int | None, output: int | None) -> None:
        ours, theirs = (end.detach() for end in socket.socketpair())
        command = [sys.executable, "-m", "parallel_infer.process.interpreter", entry, str(theirs), str(os.getpid())]
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.connection = Connection(ours)
        try:
            with starting_child():
                self.process = subprocess.Popen(
                    command,
                    pass_fds=(theirs,),
                    stdin=stdin,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                )
        except BaseException:
            self.connection.close()
            raise
        finally:
            os.close(theirs)  # so that the end of the process is the end of the connection

    def kill(self) -> None:
        """Have it end for certain; `ended` tells when."""
        self.process.kill()
        self.connection.close()

    def ended(self, patience: float = 0.0) -> bool:
        """Whether it is dead within `patience` seconds, and writes to no memory any more.

        A driver may hold a process that was killed in the kernel for long.
        """
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True


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
    load_by_name(entry)(Connection(int(descriptor)))


if __name__ == "__main__":
    main()
