"""What a load process saw, as it travels to the process that counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from parallel_infer.answers.answer import Answer
from parallel_infer.ipc.messages import TIMES

COLUMNS = ("latency", *TIMES, "total", "batch")
"""Of each answer: the client's latency, the server's stages and waits, the server's total, in seconds; batch size."""

Floats = npt.NDArray[np.float32]


class Order(Struct, frozen=True, kw_only=True):
    """A load to make. Times are seconds of the machine-wide monotonic clock.

    With `in_flight`, so many jobs are under way at any time (closed loop). With `rate`, jobs fall due at random
    moments, so many per second on average, whatever the server does (open loop).
    """

    model: str
    in_flight: int = 0
    rate: float = 0.0
    seed: int = 0  # of the random moments
    begin: float  # of the load
    start: float  # of what counts
    end: float
    timeout: float  # seconds per request


class Record(Struct, frozen=True, kw_only=True):
    """The part of a load that fell between `start` and `end`.

    Closed loop: what came back in that time. Open loop: what fell due in that time, whenever it came back; `arrived`
    counts what came back in that time, whenever it fell due.
    """

    arrived: int

    values: bytes  # float32 [answers, COLUMNS]
    delays: bytes  # float32 [jobs], seconds from when a job fell due to when it was sent; open loop only
    errors: dict[str, int]  # by code
    processor_share: float  # of one core, that the load process itself took

    @property
    def table(self) -> Floats:
        """float32 [answers, len(COLUMNS)]."""
        return np.frombuffer(self.values, np.float32).reshape(-1, len(COLUMNS))

    @property
    def lateness(self) -> Floats:
        """float32 [jobs], seconds."""
        return np.frombuffer(self.delays, np.float32)


class Notes:
    """Gathers a Record."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, ...]] = []
        self._delays: list[float] = []
        self._errors: Counter[str] = Counter()
        self._arrived = 0

    def arrival(self) -> None:
        self._arrived += 1

    def answer(self, latency: float, answer: Answer) -> None:
        timing = answer.timing
        stages = [timing.get(name, 0.0) for name in TIMES]
        self._rows.append((latency, *stages, timing.get("total", 0.0), answer.batch_size))

    def error(self, code: str) -> None:
        self._errors[code] += 1

    def sent(self, delay: float) -> None:
        self._delays.append(delay)

    def record(self, processor_share: float) -> Record:
        return Record(
            arrived=self._arrived,
            values=np.array(self._rows, np.float32).tobytes(),
            delays=np.array(self._delays, np.float32).tobytes(),
            errors=dict(self._errors),
            processor_share=processor_share,
        )


def joined(records: Iterable[Record]) -> tuple[Floats, Floats, dict[str, int]]:
    """Table, lateness and errors of several load processes together."""
    kept = list(records)
    errors: Counter[str] = Counter()
    for record in kept:
        errors.update(record.errors)
    table: Any = np.concatenate([record.table for record in kept])
    return table, np.concatenate([record.lateness for record in kept]), dict(errors)
