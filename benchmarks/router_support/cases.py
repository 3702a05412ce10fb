"""What is done to a router and its members while jobs are under way."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from benchmarks.router_support.processes import RouterUnderTest

_AWHILE = 3.0  # seconds that somebody is away


def kill(router: RouterUnderTest) -> None:
    """All processes of a member are killed with -9, and it is started again at the same address."""
    member = router.members[0]
    member.kill()
    time.sleep(_AWHILE)
    member.start()
    router.wait_for(len(router.members))


def stop(router: RouterUnderTest) -> None:
    """All processes of a member stand still (SIGSTOP), like a machine behind a dead switch, and go on."""
    member = router.members[0]
    member.signal(signal.SIGSTOP)
    time.sleep(_AWHILE)
    member.signal(signal.SIGCONT)
    router.wait_for(len(router.members))


def kill_router(router: RouterUnderTest) -> None:
    """The router is killed with -9 and started again at the same address."""
    router.kill()
    router.start()
    router.wait_for(len(router.members))


def rolling(router: RouterUnderTest) -> None:
    """One member after the other is stopped in order and started again, as when versions change."""
    for member in router.members:
        member.stop()
        member.start()
        router.wait_for(len(router.members))


def fewer(router: RouterUnderTest) -> None:
    """All members but one leave the list and come back."""
    router.list(router.members[:1])
    router.wait_for(1)
    time.sleep(1.0)
    router.list(router.members)
    router.wait_for(len(router.members))


CASES: dict[str, Callable[[RouterUnderTest], None]] = {
    "kill": kill,
    "stop": stop,
    "router": kill_router,
    "rolling": rolling,
    "fewer": fewer,
    "control": kill,  # with a router that sends nothing again: it must lose at least one
}
