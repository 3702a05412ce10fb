"""One load on one server, measured: orders to the load processes, a look at the server at both ends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from parallel_infer.client import Client
from parallel_infer.errors import ConfigError
from parallel_infer.machine.cores import usable_cores
from parallel_infer.tools.bench.figures import Level, level_of
from parallel_infer.tools.bench.generators import Generators
from parallel_infer.tools.bench.payloads import Source
from parallel_infer.tools.bench.record import Order
from parallel_infer.tools.bench.usage import between, look

_LEAD = 0.1  # seconds for orders to arrive
_LONGEST_WARM_UP = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class Demand:
    """A load as a user asks for it: so many jobs in flight, or else jobs at a rate."""

    in_flight: int = 0
    rate: float = 0.0
    seconds: float = 5.0
    timeout: float = 10.0  # per request
    within: float = 1.0  # seconds in which an answer of an open loop counts as goodput

    @property
    def warm_up(self) -> float:
        """Seconds of the same load before anything counts."""
        return min(_LONGEST_WARM_UP, self.seconds / 2)

    def order(self, model: str, seed: int = 0) -> Order:
        """That load, beginning shortly."""
        begin = time.monotonic() + _LEAD
        start = begin + self.warm_up
        return Order(
            model=model,
            in_flight=self.in_flight,
            rate=self.rate,
            seed=seed,
            begin=begin,
            start=start,
            end=start + self.seconds,
            timeout=self.timeout,
        )


@dataclass(frozen=True, slots=True)
class Bench:
    """A server under measurement: a client to ask it, load processes, its process ids where it is on this machine."""

    client: Client
    generators: Generators
    model: str
    processes: tuple[int, ...] = ()

    def measure(self, demand: Demand, seed: int = 0) -> Level:
        """The figures of one load."""
        order = demand.order(self.model, seed)
        self.generators.give(order)
        _sleep_until(order.start)
        first = look(self.client, self.model, list(self.processes))
        _sleep_until(order.end)
        second = look(self.client, self.model, list(self.processes))
        records = self.generators.records(order)
        return level_of(order, records, between(first, second), usable_cores(), demand.within)


def demands(demand: Demand, in_flight: Sequence[int], rates: Sequence[float]) -> list[Demand]:
    """The loads of a run: closed loops first, then open ones."""
    closed = [replace(demand, in_flight=count) for count in in_flight]
    return closed + [replace(demand, rate=rate) for rate in rates]


def source_for(facts: dict[str, object], folder: str, frame: tuple[int, int] | None = None) -> Source:
    """Payloads that a model takes: pictures, or for a tensor model noise. `facts` are those of `Client.models`.

    Raises ConfigError for frames where the model takes tensors.
    """
    if facts["task"] != "tensor":
        return Source(folder, frame)
    if frame is not None:
        raise ConfigError(f"the model {facts['name']} takes tensors, so it cannot be sent frames (--frames)")
    inputs: list[tuple[str, str, list[int]]] = facts["inputs"]  # type: ignore[assignment]  # plain values of the wire
    return Source(tensors=tuple((name, dtype, tuple(shape)) for name, dtype, shape in inputs))


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))
