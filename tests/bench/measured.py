"""Records and runs with known figures, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from parallel_infer.tools.bench.figures import Level, Run
from parallel_infer.tools.bench.machine import Origin
from parallel_infer.tools.bench.record import COLUMNS, Order, Record


def order(**fields: Any) -> Order:
    known = {"model": "m", "in_flight": 4, "begin": 99.0, "start": 100.0, "end": 102.0, "timeout": 5.0}
    return Order(**(known | fields))


def record(latencies: list[float], batch: list[int] | None = None, **fields: Any) -> Record:
    """Answers of these latencies in seconds; the server accounts for half of each, all of it inference."""
    table = np.zeros((len(latencies), len(COLUMNS)), np.float32)
    table[:, COLUMNS.index("latency")] = latencies
    table[:, COLUMNS.index("infer")] = np.array(latencies) / 2
    table[:, COLUMNS.index("total")] = np.array(latencies) / 2
    table[:, COLUMNS.index("batch")] = batch or [1] * len(latencies)
    known = {"arrived": len(latencies), "values": table.tobytes(), "delays": b"", "errors": {}, "processor_share": 0.1}
    return Record(**(known | fields))


def level(**fields: Any) -> Level:
    known: dict[str, Any] = {
        "in_flight": 8,
        "seconds": 2.0,
        "answers": 200,
        "per_second": 100.0,
        "errors": {},
        "latency_ms": {"p50": 10.0, "p90": 20.0, "p99": 30.0, "mean": 12.0, "max": 40.0},
        "batch": 2.0,
        "times_ms": {"infer": 5.0},
        "stages": {"infer": 0.9},
        "processes": {"infer-m-0": 1.2},
        "generators": 0.1,
        "bottleneck": "infer",
    }
    return Level(**(known | fields))


def run(*levels: Level, **fields: Any) -> Run:
    known: dict[str, Any] = {
        "origin": msgspec.structs.replace(Origin.here("parallel-infer bench"), processor="One", cores=4),
        "model": "m",
        "task": "detect",
        "provider": "cpu fp32 (cpu)",
        "settings": {"seconds": 2.0},
        "levels": levels,
    }
    return Run(**(known | fields))
