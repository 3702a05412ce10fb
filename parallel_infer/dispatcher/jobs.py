"""A job as the dispatcher sees it, and the batch whose outputs wait for postprocessing."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from parallel_infer.ipc.messages import Admit, Geometry

if TYPE_CHECKING:
    from parallel_infer.dispatcher.model_queue import ModelQueue
    from parallel_infer.dispatcher.workers import Lease


class JobState(IntEnum):
    """Where a job is. What it holds follows from this alone."""

    QUEUED = 0  # its ingress slot
    DECODING = 1  # its ingress slot, a row, a lease
    READY = 2  # a row
    INFERRING = 3  # a row, a place in a batch
    INFERRED = 4  # a part of an output slot
    POSTPROCESSING = 5  # a part of an output slot, a lease
    GONE = 6  # nothing


class Job:
    """One job, from admission to its reply."""

    __slots__ = (
        "admit",
        "answered",
        "deaths",
        "decode_seconds",
        "decode_started",
        "decoded",
        "generation",
        "geometry",
        "infer_seconds",
        "infer_started",
        "passed_over",
        "row",
        "served",
        "state",
        "turn",
    )

    def __init__(self, admit: Admit, served: ModelQueue) -> None:
        self.admit = admit
        self.served = served  # the model's version that the job was admitted to
        self.state = JobState.QUEUED
        self.answered = False  # the client has its reply; only what the job holds is still to be freed
        self.deaths = 0  # workers that died while they held this job
        self.passed_over = False  # a batch was started without it though it was the oldest
        self.turn = 0  # among queued jobs of the same priority and deadline
        self.row = -1
        self.generation = 0
        self.geometry: Geometry = ()
        self.decode_started = 0.0
        self.decode_seconds = 0.0
        self.decoded = 0.0
        self.infer_started = 0.0
        self.infer_seconds = 0.0

    def times(self) -> tuple[float, ...]:
        """Seconds as in messages.TIMES, up to the end of inference."""
        return (
            self.decode_started - self.admit.received,
            self.decode_seconds,
            self.infer_started - self.decode_started - self.decode_seconds,
            self.infer_seconds,
        )


class Batch:
    """Jobs that were inferred together, and the output slot that holds their outputs until all are answered."""

    __slots__ = ("alone", "generation", "inferred", "jobs", "leases", "onward", "shapes", "size", "slot")

    def __init__(self, jobs: list[Job], slot: int, generation: int) -> None:
        self.jobs: list[Job | None] = list(jobs)  # None: failed or answered otherwise
        self.size = len(jobs)
        self.slot = slot
        self.generation = generation
        self.alone = False  # one job that had the cores to itself
        self.inferred = 0.0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.leases = 0  # postprocess leases and queued shares that still need the slot
        self.onward: Lease | None = None  # of a batch of one: to be answered without our asking, once it has run
