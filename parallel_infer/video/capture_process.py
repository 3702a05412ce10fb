"""A capture process seen from its parent: started with an order, heard, and killed without asking."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec

from parallel_infer.process.group_signals import starting_child
from parallel_infer.video.pipe import Order, Pipe, Place, Word, socket_pair
from parallel_infer.video.sources import SourceKind

_ROOT = Path(__file__).resolve().parents[2]  # so that a checkout that is not installed works too


class CaptureProcess:
    """Started by its constructor; `pipe.connection` can be watched, and is readable when the process has died.

    A new interpreter, not a copy of this one: nothing of the calling program runs in it, and no `__main__` guard is
    needed there.
    """

    def __init__(self, order: Order) -> None:
        ours, theirs = socket_pair()
        command = [sys.executable, "-m", "parallel_infer.video.capture", str(theirs), str(os.getpid())]
        paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        try:
            with starting_child():
                self.process = subprocess.Popen(
                    command,
                    pass_fds=(theirs,),
                    stdin=None if order.kind == SourceKind.STDIN.value else subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # FFmpeg writes addresses there, with their passwords
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                )
        finally:
            os.close(theirs)
        self.pipe: Pipe[Word] = Pipe(ours, Word)  # type: ignore[arg-type]
        self.give(order)

    def words(self) -> list[Word] | None:
        """What it said since; None when it said nothing more and is gone."""
        heard: list[Word] = []
        try:
            while self.pipe.ready():
                heard.append(self.pipe.receive())
        except (EOFError, OSError, msgspec.MsgspecError):
            return heard or None
        return heard

    def give(self, word: Order | Place) -> None:
        """Tell it something; that it has died meanwhile is found out by `words`."""
        try:
            self.pipe.send(word)
        except OSError:
            return

    def kill(self) -> None:
        """Have it end for certain; `ended` tells when."""
        self.process.kill()
        self.pipe.close()

    def ended(self, patience: float = 0.0) -> bool:
        """Whether it is dead, and writes to no memory any more; a driver may hold it in the kernel for long."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        return True
