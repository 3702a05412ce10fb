"""What is compared, under which conditions, and under which names its figures are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from benchmarks.peers.filters import LINEAR, OWN, Filter
from benchmarks.peers.peer import Peer, Served
from benchmarks.peers.schedule import Group
from benchmarks.peers.settings import Setting, settings

TRIAL_IN_FLIGHT = 32
_OWN_LINEAR = Filter(OWN, (LINEAR,))
AS_STARTED, AS_OURS = "default", "as ours"  # how a peer runs the model, for tables

Point = dict[str, Any]
OurPoints = dict[str, list[Point]]  # by the way that ours is asked


class Provider(NamedTuple):
    """What runs the model in a peer."""

    name: str  # "cpu" or "openvino"
    precision: str
    spins: bool
    label: str  # for tables

    def __str__(self) -> str:
        return f"{self.name} {self.precision}{', spinning' if self.spins else ''}"


@dataclass(frozen=True)
class Durations:
    """Seconds of each part, and how often all is repeated."""

    trial: float = 2.0
    warm: float = 0.5
    point: float = 2.5
    overload: float = 3.0  # 0: none
    rounds: int = 3


@dataclass(frozen=True)
class Conditions:
    """What is the same for every pair."""

    in_flight: tuple[int, ...]
    our_options: tuple[str, ...]
    tunes_ours: bool
    decoder: str  # of the peers
    deadline: float  # seconds, under overload
    ways: tuple[str, ...] = ("wire",)  # how ours is asked: over our own wire, over http with the peers' client
    eight_bits: Mapping[str, str] = field(default_factory=dict)  # copies to be served by ours, by model: paths


@dataclass(frozen=True)
class Pair:
    """A peer with a provider, to be compared on a model."""

    model: str
    path: str
    peer: Peer
    provider: Provider
    compared: (
        tuple[str, ...] | None
    ) = ()  # our options while both must find the same in the photographs; None: need not
    second: str = ""  # path of the model that a chain asks about each object
    filter: Filter = _OWN_LINEAR

    @property
    def served(self) -> Served:
        """The same on our side."""
        return Served(self.path, self.second, self.filter.chosen)

    @property
    def work(self) -> str:
        """What is the same for all peers of a comparison."""
        return f"{self.model}, {LINEAR}" if self.filter.chosen == LINEAR else self.model

    @property
    def label(self) -> str:
        return f"{self.work}: {self._runner}"

    @property
    def tried(self) -> str:
        """Of trials, which both filters share."""
        return f"{self.model}: {self._runner}"

    @property
    def _runner(self) -> str:
        return f"{self.peer.title} ({self.provider})"

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What is tried of the peer."""
        return settings(self.peer.name, self.peer.work)


@dataclass
class Record:
    """What came of a pair: rounds[i] is {"ours": points by way, "peer": points, "eight bits": points by way}."""

    pair: Pair
    setting: Setting | None = None
    our_options: tuple[str, ...] = ()
    trials: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""


def trial_key(pair: Pair, setting: Setting) -> str:
    return f"trial, {pair.tried}, {setting}"


def our_trial_key(model: str, options: tuple[str, ...]) -> str:
    return f"trial, {model}: ours, {' '.join(options) or 'as it starts'}"


def is_trial(key: str) -> bool:
    """Whether a peer's setting was tried, which another run may take over."""
    return key.startswith("trial, ") and ": ours, " not in key


def turn_key(group: Group[Pair], number: int, side: Pair | str) -> str:
    beside = " and ".join(sorted(pair.label for pair in group.peers))
    return f"round {number + 1}, " + (side.label if isinstance(side, Pair) else f"ours beside {beside}")


def eight_bits_key(number: int, pair: Pair) -> str:
    return f"round {number + 1}, {pair.work}: ours in 8 bits"
