"""A process's life: it starts and announces itself, gives signs of life, dies or is told to stop."""

from __future__ import annotations

from msgspec import Struct


class Started(Struct, frozen=True, array_like=True, tag=63):
    """From a child: it is up."""

    provider: str = ""  # an infer worker's: what runs its model
    confined: str = ""  # a decode worker's: what keeps it from everything but its work


class StartFailed(Struct, frozen=True, array_like=True, tag=64):
    """From a child: it cannot start, and why."""

    text: str


class Listening(Struct, frozen=True, array_like=True, tag=70):
    """From the gateway, or from a door: it lets clients in at these addresses."""

    addresses: tuple[str, ...]


class Register(Struct, frozen=True, array_like=True, tag=80):
    """From the dispatcher to a peer that is new to it: announce yourself (again).

    A worker does so once it has finished what an earlier dispatcher gave it; the gateway admits its pending jobs again.
    """

    epoch: int


class GatewayUp(Struct, frozen=True, array_like=True, tag=13):
    """From a gateway that was greeted: the jobs it is owed follow; those of another have nobody to answer to.

    `epoch` is that of the Register it answers, so that nobody takes it for an answer to another dispatcher.
    """

    epoch: int


class Expect(Struct, frozen=True, array_like=True, tag=15):
    """From the supervisor to a new dispatcher: who lives already.

    It asks each to announce itself, and hands out nothing before each of `workers` has, or is down.
    """

    workers: tuple[str, ...]
    gateway: str  # empty while there is none
    starting: tuple[str, ...] = ()  # workers that hold no lease yet; an earlier dispatcher may not have greeted them


class OpenDoor(Struct, frozen=True, array_like=True, tag=29):
    """From the supervisor: everything is up; let clients in."""


class Ping(Struct, frozen=True, array_like=True, tag=32):
    """From the supervisor to the dispatcher and the gateway: say that you are not stuck."""


class Alive(Struct, frozen=True, array_like=True, tag=65):
    """From a child: it took in a Ping."""


class KillWorker(Struct, frozen=True, array_like=True, tag=60):
    """From the dispatcher: this worker has not come back in time."""

    worker: str
    why: str


class WorkerDown(Struct, frozen=True, array_like=True, tag=8):
    """From the supervisor: this worker is dead and reaped; what it held may be used again."""

    worker: str


class Drain(Struct, frozen=True, array_like=True, tag=12):
    """From the supervisor: the server is stopping. The gateway lets nobody in any more; what is inside goes on."""


class CloseDoor(Struct, frozen=True, array_like=True, tag=30):
    """From the supervisor: refuse what is new, send what is owed, give up what is left at `until`, and stop.

    Said again with an earlier time, that one counts.
    """

    until: float


class Drained(Struct, frozen=True, array_like=True, tag=61):
    """From the gateway: nothing is owed any more. It answers no Ping from now on, and waits for slow readers."""


class Left(Struct, frozen=True, array_like=True, tag=66):
    """From the gateway, as its last word: how many of the jobs it was owed when the stop began ended how.

    `unread` counts the clients that had not taken all their replies when the time was over.
    """

    answered: int
    refused: int  # requests that came later
    abandoned: int
    unread: int


class StopWorkers(Struct, frozen=True, array_like=True, tag=14):
    """From the supervisor: let the workers go, then stop. What is sent has until `until` to leave."""

    until: float


class StopWorker(Struct, frozen=True, array_like=True, tag=43):
    """Stop now; what was sent has until `until` to leave."""

    until: float
