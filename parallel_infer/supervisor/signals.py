"""Signals as something to look at: what came is read from a descriptor that also wakes the loop."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from typing import Self

ENDINGS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_MEANINGLESS = frozenset({signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM})  # sent by habit, to have logs reopened
_TAKEN = (*ENDINGS, signal.SIGHUP, *_MEANINGLESS)
log = logging.getLogger(__name__)


class Signals:
    """Takes the supervisor's signals. Until `calm`, one that asks for an end raises KeyboardInterrupt as well.

    `descriptor` becomes readable with every signal, and no longer is once something was asked here, so that a signal
    that is not acted upon yet wakes nobody twice.
    """

    def __enter__(self) -> Self:
        self._got: set[int] = set()
        self._calm = False
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._handlers = {number: signal.signal(number, self._interrupt) for number in _TAKEN}
        # A command may hold hangups back from its first line on, when there is no handler yet.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._write)

    def calm(self) -> None:
        """From now on somebody looks."""
        self._calm = True

    def _interrupt(self, number: int, frame: object) -> None:
        if number in ENDINGS and not self._calm:
            raise KeyboardInterrupt

    @property
    def any(self) -> bool:
        """Whether a signal waits to be acted upon."""
        self._look()
        return bool(self._got)

    @property
    def ending(self) -> bool:
        """Whether an end was asked for."""
        self._look()
        return not ENDINGS.isdisjoint(self._got)

    def take_reload(self) -> bool:
        """Whether the configuration is to be read again; asks once, however many signals there were."""
        self._look()
        asked = signal.SIGHUP in self._got
        self._got.discard(signal.SIGHUP)
        return asked

    def forget(self) -> None:
        """Act on no signal that came so far."""
        self._look()
        self._got.clear()

    def _look(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while numbers := os.read(self.descriptor, 4096):
                for number in _MEANINGLESS.intersection(numbers):
                    log.info("%s came and means nothing here", signal.Signals(number).name)
                self._got.update(set(numbers) - _MEANINGLESS)
