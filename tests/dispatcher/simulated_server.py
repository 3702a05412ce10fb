"""A server simulated around the real dispatcher: clients, workers and their times are made up, every decision is real.

Time is a number that jumps from event to event. Workers take noisy times; `Slow` intervals slow any of them down, or
stop them, the dispatcher and the clients' side of the gateway included.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from parallel_infer.dispatcher.core import Core
from parallel_infer.dispatcher.policy import Policy
from parallel_infer.ipc.messages import (
    Admit,
    AnswerFormat,
    Decoded,
    DecodeLease,
    InferLease,
    Inferred,
    KillWorker,
    ModelPlan,
    PayloadKind,
    PostLease,
    Postprocessed,
    Refused,
    SlotRef,
    WorkerReady,
)
from stages.pipeline import batching
from tests.dispatcher.core_rig import plan
from tests.dispatcher.simulated_cores import Cores

RETRY = 0.02  # seconds after which a refused job is asked for again
RESTART = 0.5  # seconds until a killed worker is back


@dataclass(frozen=True)
class Slow:
    """Somebody runs at `speed` (0: not at all) for a while."""

    start: float
    end: float
    speed: float
    who: tuple[str, ...] = ("decode", "infer", "postprocess")


EVERYBODY = ("decode", "infer", "postprocess", "dispatcher")


@dataclass(frozen=True)
class Outcome:
    """How one job ended; `code` is "" where it was answered."""

    sent: float
    ended: float
    timeout: float
    code: str


@dataclass
class Times:
    """Usual seconds of work, and how much they scatter (sigma of a lognormal)."""

    decode: float = 0.004
    batch: float = 0.002  # of any batch
    row: float = 0.065  # of each row in it
    post: float = 0.001
    noise: float = 0.15
    hop: float = 0.0  # from one process to the next, on average (exponential): processes wait for a core
    gateway: float = 0.0  # processor time of the client and the gateway for each job; only where cores are simulated
    message: float = 0.0  # processor time of the dispatcher for each message; only where cores are simulated


@dataclass
class FakeWorker:
    """A worker that does its leases one after the other."""

    name: bytes
    stage: str
    leases: list[Any] = field(default_factory=list)


class SimulatedServer:
    """One model `m`, its workers, and whoever asks."""

    def __init__(
        self,
        times: Times,
        *,
        instances: int = 2,
        slows: tuple[Slow, ...] = (),
        seed: int = 1,
        first_run: float = 0.0,
        queue_size: int = 1000,
        max_batch: int = 8,
        cores: int = 0,
        threads: int = 1,
        decoders: int = 2,
        postprocessors: int = 2,
        delay: float = 0.002,
        warm_up: float = 1.0,
        policy: Callable[[ModelPlan], Policy] = batching,
    ) -> None:
        """`cores` 0: each process has one of its own; else stages, gateway and dispatcher share so many.

        `warm_up`: times that the largest batch took longer than it does, when it was measured before serving.
        """
        self.now = 100.0
        self.times = times
        self.slows = [Slow(s.start + self.now, s.end + self.now, s.speed, s.who) for s in slows]
        self.outcomes: list[Outcome] = []
        self.kills: list[str] = []
        self.first_run = first_run  # seconds that the first batch takes longer
        self._random = random.Random(seed)
        self._arrivals = random.Random(-seed)  # the same for whatever is compared
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = itertools.count()
        self._jobs: dict[int, tuple[Admit, Callable[[Outcome], None]]] = {}
        self._sent: dict[int, float] = {}
        self._numbers = itertools.count(1)
        self._workers: dict[bytes, FakeWorker] = {}
        self._timer = 0
        self._cores = Cores(cores, self._later, lambda: self.now) if cores else None
        self.core = Core(self._deliver, policy, 30.0, cores or 64, kept=0, first=1)
        self._threads = threads
        self._warm_up = warm_up
        self.batches: list[int] = []  # sizes
        self.gathered = 0  # rows
        size = max_batch * instances * 2
        self.plan = plan(
            rows=size + max_batch,
            outputs=instances * 2 + 2,
            max_batch=max_batch,
            queue_size=queue_size,
            delay=delay,
        )
        self.core.open_model(self.plan)
        for stage, count in (("decode", decoders), ("infer", instances), ("postprocess", postprocessors)):
            for _ in range(count):
                self._start_worker(stage)

    # --- what a test does ---------------------------------------------------------------------------------------------

    def ask(self, timeout: float, then: Callable[[Outcome], None] = lambda outcome: None) -> None:
        """One job now."""
        number, sent = next(self._numbers), self.now

        def admit() -> None:
            ref = SlotRef("in", number, 1, 1, 1)
            message = Admit(
                *(number, "m", ref, PayloadKind.PICTURE, (), b"\x80", AnswerFormat.ARRAYS),
                *(self.now, self.now + timeout, 0, ""),
            )
            self._jobs[number] = message, then
            self._sent[number] = sent
            self.core.admit(message, self.now)

        self._on_core("gateway", self.times.gateway, lambda: self._at_dispatcher(admit))

    def closed(self, in_flight: int, timeouts: tuple[float, ...]) -> None:
        """So many jobs at any time, each for ever followed by another."""

        def again(outcome: Outcome) -> None:
            if outcome.code == "RESOURCE_UNAVAILABLE":
                self._later(self.now + RETRY, lambda: self.ask(outcome.timeout, again))
            else:
                self.ask(self._random.choice(timeouts), again)

        for _ in range(in_flight):
            self.ask(self._random.choice(timeouts), again)

    def open(self, rate: float, timeouts: tuple[float, ...], until: float) -> None:
        """So many jobs a second at random moments, whatever happens, until `until` seconds from the beginning."""

        def arrive() -> None:
            if self.now < 100.0 + until:
                self.ask(self._arrivals.choice(timeouts))
                self._later(self.now + self._arrivals.expovariate(rate), arrive)

        self._later(self.now, arrive)

    def run(self, seconds: float) -> None:
        """Let time pass, until so many seconds from the beginning."""
        while self._events and self._events[0][0] <= 100.0 + seconds:
            when, _, event = heapq.heappop(self._events)
            self.now = max(self.now, when)
            event()

    def codes(self, start: float = 0.0, end: float = 1e9) -> Counter[str]:
        """Outcomes by code, of jobs sent within these seconds from the beginning."""
        return Counter(o.code for o in self.outcomes if 100.0 + start <= o.sent < 100.0 + end)

    def goodput(self, start: float, end: float) -> float:
        """Answers per second, of those that came within these seconds from the beginning."""
        answered = sum(not o.code and 100.0 + start <= o.ended < 100.0 + end for o in self.outcomes)
        return answered / (end - start)

    # --- the server ---------------------------------------------------------------------------------------------------

    def _later(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._sequence), event))

    def _at_dispatcher(self, event: Callable[[], None]) -> None:
        """Something for the dispatcher to do, now or as soon as it runs."""
        stopped = [s.end for s in self.slows if "dispatcher" in s.who and s.start <= self.now < s.end]
        if stopped:
            self._later(max(stopped), lambda: self._at_dispatcher(event))
            return

        def take_in() -> None:
            event()
            self._later(self.now, self._pump)  # after whatever else came at the same moment

        self._on_core("dispatcher", self.times.message, take_in)

    def _on_core(self, process: str, seconds: float, then: Callable[[], None]) -> None:
        """Let a process work; at once where cores are not simulated."""
        if self._cores is None or not seconds:
            then()
        else:
            self._cores.work(process, seconds, then)

    def _pump(self) -> None:
        self.core.step(self.now)
        timer = self.core.next_timer()
        self._timer += 1
        if timer is not None:
            number = self._timer
            self._later(max(timer, self.now + 1e-6), lambda: self._on_timer(number))

    def _on_timer(self, number: int) -> None:
        if number == self._timer:
            self._at_dispatcher(lambda: None)

    def _on_cores(self, worker: FakeWorker, seconds: float, then: Callable[[], None]) -> None:
        """Let a worker work, an instance with all its threads."""
        threads = self._threads if worker.stage == "infer" else 1
        left = itertools.count(threads - 1, -1)

        def thread_done() -> None:
            if not next(left):
                then()

        for thread in range(threads):
            self._on_core(f"{worker.name.decode()} {thread}", seconds / threads, thread_done)

    def _start_worker(self, stage: str) -> None:
        name = f"{stage}-{next(self._sequence)}".encode()
        self._workers[name] = FakeWorker(name, stage)
        most = self.plan.max_batch
        times = {1: self.times.batch + self.times.row, most: (self.times.batch + self.times.row * most) * self._warm_up}
        infers = stage == "infer"
        costs = times if self._cores is not None else {}
        self.core.worker_ready(name, WorkerReady(stage, *(("m", times, self._threads, costs) if infers else ("", {}))))

    def _deliver(self, peer: bytes, message: object) -> None:
        worker = self._workers.get(peer)
        if isinstance(message, Refused):
            self._end(message.job, message.code)
        elif isinstance(message, KillWorker):
            self._kill(message.worker.encode())
        elif worker is not None and isinstance(message, DecodeLease | InferLease | PostLease):
            worker.leases.append(message)
            if len(worker.leases) == 1:
                self._work(worker)

    def _kill(self, name: bytes) -> None:
        worker = self._workers.pop(name)
        self.kills.append(worker.stage)

        def back() -> None:
            self.core.worker_down(name, self.now)
            self._start_worker(worker.stage)

        self._later(self.now + RESTART, lambda: self._at_dispatcher(back))

    def _end(self, job: int, code: str) -> None:
        admit, then = self._jobs.pop(job)
        outcome = Outcome(self._sent.pop(job), self.now, admit.deadline - admit.received, code)
        self.outcomes.append(outcome)
        self._later(self.now, lambda: then(outcome))

    def _work(self, worker: FakeWorker) -> None:
        lease, began = worker.leases[0], self.now
        times = self.times
        if isinstance(lease, DecodeLease):
            work = times.decode
        elif isinstance(lease, InferLease):
            work = times.batch + times.row * len(lease.rows) + self.first_run
            self.first_run = 0.0
            self.batches.append(len(lease.rows))
            self.gathered += 0 if lease.rows[-1] - lease.rows[0] + 1 == len(lease.rows) else len(lease.rows)
        else:
            work = times.post * len(lease.jobs)

        def done() -> None:
            self._done(worker, lease, began, work)

        work *= self._random.lognormvariate(0.0, times.noise)
        hop = self._random.expovariate(1 / times.hop) if times.hop else 0.0
        if self._cores is not None:
            self._later(began + hop, lambda: self._on_cores(worker, work, done))
            return
        end = self._worked(worker.stage, began + hop, work)
        self._later(end, done)

    def _worked(self, stage: str, began: float, work: float) -> float:
        """When so much work is done, as fast as the stage runs."""
        now = began
        while True:
            speed = min((s.speed for s in self.slows if stage in s.who and s.start <= now < s.end), default=1.0)
            change = min((t for s in self.slows for t in (s.start, s.end) if t > now), default=float("inf"))
            if work <= speed * (change - now):
                return now + work / speed
            work -= speed * (change - now)
            now = change

    def _done(self, worker: FakeWorker, lease: Any, began: float, work: float) -> None:
        if worker.name not in self._workers:
            return
        worker.leases.pop(0)
        seconds = self.now - began
        if isinstance(lease, DecodeLease):
            self._at_dispatcher(lambda: self.core.decoded(Decoded(lease.lease, (), began, seconds), self.now))
        elif isinstance(lease, InferLease):
            message = Inferred(lease.lease, began, seconds, 0, {}, (), work if self._cores is not None else 0.0)
            self._at_dispatcher(lambda: self.core.inferred(message, self.now))
        else:
            for job in lease.jobs:
                if job.job in self._jobs:
                    self._end(job.job, "")
            self._at_dispatcher(lambda: self.core.postprocessed(Postprocessed(lease.lease, seconds), self.now))
        if worker.leases:
            self._work(worker)


def seeds() -> Iterator[int]:
    """A few of them: what holds must hold for each."""
    return iter(range(1, 6))
