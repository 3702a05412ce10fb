"""A capture process seen from its parent: started with an order, heard, and killed without asking."""

from __future__ import annotations

import subprocess

import msgspec

from parallel_infer.process.interpreter import Interpreter
from parallel_infer.video.pipe import Order, Pipe, Place, Word
from parallel_infer.video.sources import SourceKind


class CaptureProcess(Interpreter):
    """Started by its constructor; `connection` can be watched, and is readable when the process has died."""

    def __init__(self, order: Order) -> None:
        stdin = None if order.kind == SourceKind.STDIN.value else subprocess.DEVNULL
        # FFmpeg writes addresses to standard error, with their passwords.
        super().__init__("parallel_infer.video.capture:run", stdin, subprocess.DEVNULL)
        self._pipe: Pipe[Word] = Pipe(self.connection, Word)  # type: ignore[arg-type]
        self.give(order)

    def kill(self) -> None:
        """Have it end for certain; it is heard no more, and `ended` tells when."""
        super().kill()
        self.close()

    def words(self) -> list[Word] | None:
        """What it said since; None when it said nothing more and is gone."""
        heard: list[Word] = []
        try:
            while self._pipe.ready():
                heard.append(self._pipe.receive())
        except (EOFError, OSError, msgspec.MsgspecError):
            return heard or None
        return heard

    def give(self, word: Order | Place) -> None:
        """Tell it something; that it has died meanwhile is found out by `words`."""
        try:
            self._pipe.send(word)
        except OSError:
            return
