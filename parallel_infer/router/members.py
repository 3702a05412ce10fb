"""The members of a router, which of them has which model, and who gets the next job. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import Enum
from random import Random
from typing import Any

from parallel_infer.chains.steps import JOIN
from parallel_infer.protocol import Reply
from parallel_infer.router.jobs import Job

_MOST_NAMES = 10_000  # of models and fans that are remembered
_FEW = 8  # members up to which all are compared
_SAMPLE = 4  # ... and how many of more, at random: the best of a few is nearly the best of all


class State(Enum):
    """How it stands with a member."""

    AWAY = "away"  # no connection; tried again and again
    JOINING = "joining"  # connected, and asked what it serves
    UP = "up"
    LEAVING = "leaving"  # it stops, or is no member any more: it gets nothing new


class Member:
    """A server, or another router. Seconds are those of the core's clock."""

    __slots__ = (
        *("address", "answered", "asked", "failed", "gone", "heard", "instance", "listed", "lost", "max_payload"),
        *("models", "models_asked", "models_raw", "name", "pause", "pinged", "problem", "progress", "retry_at"),
        *("reached", "route", "said", "sent", "since", "state", "stopped", "stuck", "under"),
    )

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.state = State.AWAY
        self.listed = True  # False: no member any more, and goes when its jobs are answered
        self.route = b""  # of the connection there is
        self.instance = ""  # tells servers apart, whatever their addresses are
        self.reached: tuple[str, ...] = ()  # all servers and routers behind it, itself included
        self.max_payload = 0  # bytes
        self.models: Mapping[str, dict[str, Any]] = {}  # what it serves, or served when it was there last
        self.models_raw = b""  # the same as it came
        self.models_asked = 0.0
        self.under: dict[int, Job] = {}  # jobs under way, by the number they have on this connection
        self.asked: dict[int, Callable[[Reply], None]] = {}  # other requests under way
        self.heard = self.since = self.pinged = self.progress = 0.0
        self.retry_at = self.pause = 0.0
        self.stuck = False  # it says that it is there, and finishes nothing
        self.stopped = False  # it said that it has replied to all that it took
        self.gone = 0  # connections that were lost
        self.problem = ""  # why it is not there
        self.said = ""  # what of that the log has
        self.sent = self.answered = self.failed = self.lost = 0  # jobs

    @property
    def is_there(self) -> bool:
        """Whether it answers requests."""
        return self.state in (State.UP, State.LEAVING)

    def serves(self, model: str) -> bool:
        """Whether it has, or had, a model, or all models of a fan."""
        return model in self.models or (
            JOIN in model and all(part.strip() in self.models for part in model.split(JOIN))
        )

    @property
    def takes_jobs(self) -> bool:
        """Whether it may get new ones."""
        return self.state is State.UP and not self.stopped


class Members:
    """All members, by name and by connection; who of them takes jobs of which model."""

    def __init__(self, random: Random) -> None:
        self._members: dict[str, Member] = {}
        self._routes: dict[bytes, Member] = {}
        self._takers: dict[str, list[Member]] | None = None  # by model; None: to be found anew
        self._least_payload = 0  # bytes that every member takes
        self._random = random.random
        self._turn = 0

    def __iter__(self) -> Iterator[Member]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def named(self, name: str) -> Member | None:
        """The member of this name."""
        return self._members.get(name)

    def add(self, member: Member) -> None:
        """A new member."""
        self._members[member.name] = member

    def remove(self, member: Member) -> None:
        """It is none any more."""
        del self._members[member.name]
        self.changed()

    def route(self, route: bytes, member: Member) -> None:
        """A connection to a member begins."""
        member.route = route
        self._routes[route] = member

    def unroute(self, member: Member) -> None:
        """It has ended."""
        self._routes.pop(member.route, None)
        member.route = b""

    def at(self, route: bytes) -> Member | None:
        """The member that a connection leads to; None for one that was given up."""
        return self._routes.get(route)

    def changed(self) -> None:
        """Who takes what may be different now."""
        self._takers = None

    def choose(self, model: str, size: int, without: Collection[Member] = ()) -> Member | None:
        """Who gets a job whose payload has `size` bytes: the one with the fewest under way among those that may."""
        takers = self.having(model)
        if without or size > self._least_payload:
            takers = [member for member in takers if member not in without and size <= member.max_payload]
        count = len(takers)
        if count > _FEW:
            return self._best(takers[int(self._random() * count)] for _ in range(_SAMPLE))
        if count > 1:
            self._turn = turn = (self._turn + 1) % count  # so that equals take turns
            return self._best(takers[turn - number] for number in range(count))
        return takers[0] if count else None

    @staticmethod
    def _best(takers: Iterable[Member]) -> Member | None:
        best, least = None, -1
        for member in takers:
            load = len(member.under)
            if best is None or load < least:
                best, least = member, load
        return best

    def having(self, model: str) -> list[Member]:
        """Those that take jobs of a model, or of all models of a fan, whatever their size."""
        takers = self._takers if self._takers is not None else self._find_takers()
        found = takers.get(model)
        if found is not None or JOIN not in model:
            return found or []
        parts = [takers.get(part.strip(), []) for part in model.split(JOIN)]
        takers[model] = found = [member for member in parts[0] if all(member in others for others in parts[1:])]
        if len(takers) > _MOST_NAMES:
            self.changed()
        return found

    def _find_takers(self) -> dict[str, list[Member]]:
        """By model: those that take jobs of it and are not stuck, or all of them where every one is."""
        takers: dict[str, list[Member]] = {}
        stuck: dict[str, list[Member]] = {}
        least: int | None = None
        for member in self._members.values():
            if not member.takes_jobs:
                continue
            least = member.max_payload if least is None else min(least, member.max_payload)
            for model in member.models:
                (stuck if member.stuck else takers).setdefault(model, []).append(member)
        for model, members in stuck.items():
            takers.setdefault(model, members)
        self._least_payload = least or 0
        self._takers = takers
        return takers
