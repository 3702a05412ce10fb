"""Signals that reach a whole process group: children leave all of them to their parent, who alone decides.

A terminal that closes, a Ctrl-C, `kill -HUP -GROUP` and `systemctl kill` send a signal to everybody at once. A child
ignores it, from its first instruction on: it is started with these signals blocked, and ignores them before it
unblocks them.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

# What people, terminals and service managers send. Not SIGABRT and the like, which tell of a fault of the process.
GROUP_SIGNALS = frozenset(
    {
        *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2),
        *(signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGWINCH),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
    }
)
_UNTAKEN = (signal.SIG_DFL, signal.default_int_handler)


def leave_signals_to_parent() -> None:
    """First thing in a child: ignore every signal that is the parent's to act upon. A handler set on purpose stays."""
    for number in GROUP_SIGNALS:
        if signal.getsignal(number) in _UNTAKEN:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, GROUP_SIGNALS)


@contextlib.contextmanager
def starting_child() -> Iterator[None]:
    """Start a child in here, so that no signal of the group meets it before it ignores them; ours come afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, GROUP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def hold_hangups() -> None:
    """Keep SIGHUP waiting until somebody takes it: a reload that is asked for too early must not kill a server."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
