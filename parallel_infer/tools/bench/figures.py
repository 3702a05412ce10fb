"""What a measurement says: plain data, as it is saved, and the arithmetic that makes it from records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from parallel_infer.ipc.messages import TIMES
from parallel_infer.tools.bench.machine import Origin
from parallel_infer.tools.bench.record import COLUMNS, Floats, Order, Record, joined
from parallel_infer.tools.bench.usage import SINGLE, Use

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
BETWEEN = "hand-overs"  # what the server's latency has beyond its stages and waits: messages between its processes
OUTSIDE = "client and transport"  # the client's latency beyond what the server accounts for
_BUSY = 0.85  # of one core: a load process of one thread does not get much further
_BOUND = 0.7  # share of its time from which on a stage is what holds the rest up
_KEPT_UP = 1.1  # times as many jobs as answers: noise up to here, a growing queue beyond
_LATE = 0.1  # of the median latency: the load generator was late by more than this is worth a word


class Level(Struct, frozen=True, kw_only=True):
    """One load and what came of it."""

    in_flight: int = 0  # closed loop: jobs under way at any time
    rate: float = 0.0  # open loop: jobs per second that fell due, on average
    seconds: float
    answers: int
    per_second: float  # answers that came back
    offered: float = 0.0  # open loop: jobs per second that did fall due
    goodput: float = 0.0  # open loop: of these, per second, those answered within `within_ms` of falling due
    within_ms: float = 0.0
    errors: dict[str, int]  # by code
    latency_ms: dict[str, float]  # p50, p90, p99, mean, max, of the client; empty without answers
    batch: float  # mean rows per run of the model
    gathered: float = 0.0  # share of rows that had to be copied together for their batch
    times_ms: dict[str, float]  # mean per stage and wait, and the rest
    stages: dict[str, float]  # utilisation of each stage's workers, 0 to 1
    processes: dict[str, float]  # cores that each process of the server used; empty where it is elsewhere
    generators: float  # cores that the busiest load process used
    late_ms: float = 0.0  # open loop: p99 of the time between falling due and being sent
    bottleneck: str
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.rate:g}/s" if self.rate else f"{self.in_flight} in flight"


class Steps(Struct, frozen=True, kw_only=True):
    """Milliseconds of processor time per picture that each step takes when it runs alone."""

    decode: float
    infer: float
    postprocess: float

    @property
    def total(self) -> float:
        return self.decode + self.infer + self.postprocess


class Comparison(Struct, frozen=True, kw_only=True):
    """The pipeline beside a synchronous loop of the same model. Medians over rounds that alternate."""

    in_flight: int
    rounds: int
    batch: int  # of the batched loop
    threads: int  # of ONNX Runtime in the loop
    provider: str
    pipeline: float  # pictures per second
    single: float  # the loop, one picture at a time
    batched: float  # the loop, in batches
    spread: dict[str, tuple[float, float]]  # least and most of each over the rounds
    steps: Steps | None  # None where the device is no processor
    cores: int

    @property
    def ceiling(self) -> float | None:
        """Pictures per second if every core did nothing but the steps."""
        return None if self.steps is None else self.cores / (self.steps.total / 1000)


class Run(Struct, frozen=True, kw_only=True):
    """Everything that one `bench` measured, as it is saved."""

    origin: Origin
    model: str
    task: str
    provider: str
    settings: dict[str, float | int | str]
    levels: tuple[Level, ...]
    comparison: Comparison | None = None


def level_of(order: Order, records: Sequence[Record], use: Use, cores: int, within: float = 1.0) -> Level:
    """The figures of one load. `within` is how late an answer may be, in seconds, to count as goodput."""
    table, lateness, errors = joined(records)
    seconds = order.end - order.start
    latency = table[:, COLUMNS.index("latency")]
    busiest = max(record.processor_share for record in records)
    latencies = _latencies(latency)
    per_second, offered = sum(record.arrived for record in records) / seconds, len(lateness) / seconds
    late = float(np.percentile(lateness, 99)) * 1000 if len(lateness) else 0.0
    return Level(
        in_flight=order.in_flight,
        rate=order.rate,
        seconds=seconds,
        answers=len(table),
        per_second=per_second,
        offered=offered,
        goodput=float((latency <= within).sum()) / seconds if order.rate else 0.0,
        within_ms=within * 1000 if order.rate else 0.0,
        errors=errors,
        latency_ms=latencies,
        batch=_mean_batch(table),
        gathered=use.gathered,
        times_ms=_times(table),
        stages=use.stages,
        processes=use.processes,
        generators=busiest,
        late_ms=late,
        bottleneck=bottleneck(use, busiest, cores),
        warnings=(*_warnings(busiest, late, latencies, errors), *_backlog(offered, per_second)),
    )


def bottleneck(use: Use, generator: float, cores: int) -> str:
    """What held the rest up: the busiest stage or process, unless all of them had time left."""
    shares = dict(use.stages)
    shares |= {name: use.processes[name] for name in SINGLE if name in use.processes}
    shares["load generator"] = generator
    busiest = max(shares, key=lambda name: shares[name])
    used = sum(use.processes.values())
    full = f"; all {cores} cores are busy" if use.processes and used + generator > 0.9 * cores else ""
    if shares[busiest] < _BOUND and not full:
        return f"none: the busiest, {busiest}, is busy for {shares[busiest]:.0%} of the time"
    return f"{busiest}, busy for {shares[busiest]:.0%} of the time{full}"


def _latencies(latency: Floats) -> dict[str, float]:
    if not len(latency):
        return {}
    found = {name: float(np.percentile(latency, share)) * 1000 for name, share in PERCENTILES.items()}
    return found | {"mean": float(latency.mean()) * 1000, "max": float(latency.max()) * 1000}


def _mean_batch(table: Floats) -> float:
    """Each job of a batch of b stands for 1/b of a run, so the mean is the harmonic one over jobs."""
    sizes = table[:, COLUMNS.index("batch")]
    return len(sizes) / float((1 / np.maximum(sizes, 1)).sum()) if len(sizes) else 0.0


def _times(table: Floats) -> dict[str, float]:
    if not len(table):
        return {}
    means = {name: float(table[:, COLUMNS.index(name)].mean()) * 1000 for name in (*TIMES, "latency", "total")}
    stages = sum(means[name] for name in TIMES)
    rest = {BETWEEN: means["total"] - stages, OUTSIDE: means["latency"] - means["total"]}
    return {name: means[name] for name in TIMES} | rest


def _warnings(busiest: float, late: float, latencies: dict[str, float], errors: dict[str, int]) -> list[str]:
    warnings = []
    if busiest > _BUSY:
        warnings.append(
            f"a load process was busy for {busiest:.0%} of the time, so the server may be faster than this; "
            "give more of them with --processes"
        )
    elif latencies and late > max(1.0, _LATE * latencies["p50"]):
        warnings.append(
            f"1 in 100 jobs was sent {late:.1f} ms late or more, which is part of its latency; "
            "give more load processes with --processes, or more cores"
        )
    if errors:
        warnings.append("not every job was answered; what was counted are answers")
    return warnings


def _backlog(offered: float, per_second: float) -> list[str]:
    if offered <= per_second * _KEPT_UP:
        return []
    return ["jobs fell due faster than they were answered, so their latency says how long this went on, and no more"]
