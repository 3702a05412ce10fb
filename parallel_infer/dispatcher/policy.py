"""What a batching policy sees and says. The policy itself is a stage (`stages.batch`), loaded by name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple, Protocol


class Situation(NamedTuple):
    """What the dispatcher sees of one model when an instance has room."""

    ready: int  # decoded rows that wait
    upstream: int  # jobs queued or in decode
    idle: int  # instances with nothing to do
    spare: int  # busy instances with room for a second batch
    waited: float  # seconds since the oldest ready row was decoded
    next_row: float  # seconds until the next upstream row is expected
    slack: float  # seconds until the earliest deadline among the ready rows
    free_cores: float = math.inf  # cores that no stage works on; infinite where the model runs on another device
    load: float = 0.0  # part of the cores that the stages used lately


class Start(NamedTuple):
    """Start a batch of this many rows now."""

    size: int


class Wait(NamedTuple):
    """Start nothing; look again after `seconds` (infinite: when something changes)."""

    seconds: float


class Policy(Protocol):
    """One model's batching policy."""

    target: int  # the batch size worth having, as far as is known

    def learn(self, times: Mapping[int, float], costs: Mapping[int, float]) -> None:
        """Take what was measured before serving, by batch size: seconds, and seconds of processor time."""

    def observe(self, size: int, seconds: float, cost: float) -> None:
        """Take a run into account; `cost` is its processor time, 0.0 where another device computed it."""

    def expected(self, size: int) -> float:
        """Expected seconds of a batch of `size`; 0 while nothing is known."""

    def decide(self, now: Situation) -> Start | Wait:
        """What to do when at least one row is ready and an instance has room."""
