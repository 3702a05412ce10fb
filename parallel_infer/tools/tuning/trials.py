"""Settings measured on a server of their own, under the load that `bench` makes."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Self

from parallel_infer.client import Client
from parallel_infer.errors import InferError
from parallel_infer.tools.bench.figures import Level
from parallel_infer.tools.bench.generators import Generators, Target
from parallel_infer.tools.bench.measure import Bench, Demand, source_for
from parallel_infer.tools.local_server import local_server
from parallel_infer.tools.tuning.search import Outcome, Trial
from parallel_infer.tools.tuning.settings import Settings

_ATTEMPTS = 4  # to find how many jobs in flight keep a limit
_MARGIN = 0.9  # of the number in flight that should keep it
_CLIENT_TIMEOUT = 30.0  # seconds
_LONGEST_REASON = 160  # characters
_LOG_PREFIX = re.compile(r"^\S+ +[A-Z]+ +\S+: ")


@dataclass(frozen=True, slots=True)
class Subject:
    """What is tuned, and under which load."""

    name: str
    path: str
    folder: str  # of pictures
    demand: Demand
    p99_ms: float | None = None
    processes: int = 1

    def measure(self, settings: Settings) -> Outcome:
        """A first look at settings. A server that does not start, or fails, is an outcome too."""
        with tempfile.TemporaryFile("w+") as log:
            try:
                with self.server(settings, log) as bench:
                    return self._within_limit(bench)
            except InferError as error:
                return Outcome(failure=_last_line(log) or str(error))

    @contextlib.contextmanager
    def server(self, settings: Settings, log: IO[str]) -> Iterator[Bench]:
        """A server with these settings and its load, ready."""
        options = ["--model", f"{self.name}={self.path}", *settings.options()]
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(local_server(*options, stderr=log))
            client = stack.enter_context(Client(server.address, timeout=_CLIENT_TIMEOUT))
            target = Target(server.address, source_for(client.models()[0], self.folder))
            generators = stack.enter_context(Generators(target, self.processes))
            generators.ready()
            yield Bench(client, generators, self.name, tuple(server.processes()))

    def again(self, bench: Bench, in_flight: int, seed: int) -> Outcome:
        """One more round with that many jobs in flight."""
        return outcome_of(bench.measure(replace(self.demand, in_flight=in_flight), seed))

    def _within_limit(self, bench: Bench) -> Outcome:
        """The load asked for; with a limit, fewer jobs in flight until it is kept. Under a full load latency is
        proportional to the jobs in flight (Little's law), which says how many to try next.
        """
        in_flight = self.demand.in_flight
        outcome = self.again(bench, in_flight, 0)
        for _ in range(_ATTEMPTS):
            if self.p99_ms is None or outcome.failure or outcome.p99_ms <= self.p99_ms or in_flight == 1:
                break
            in_flight = max(1, min(in_flight - 1, int(in_flight * self.p99_ms / outcome.p99_ms * _MARGIN)))
            outcome = self.again(bench, in_flight, 0)
        return outcome


class Finals:
    """Servers of the finalists side by side, measured in turns; those whose turn it is not are idle."""

    def __init__(self, subject: Subject, trials: list[Trial]) -> None:
        self._subject = subject
        self._trials = trials
        self._stack = contextlib.ExitStack()
        self._benches: list[Bench] = []

    def __enter__(self) -> Self:
        with self._stack:
            for trial in self._trials:
                log = self._stack.enter_context(tempfile.TemporaryFile("w+"))
                self._benches.append(self._stack.enter_context(self._subject.server(trial.settings, log)))
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def round(self, number: int) -> Iterator[Trial]:
        """Measure each once, every other round in reverse; what was measured is added to its rounds."""
        turns = list(zip(self._trials, self._benches, strict=True))
        for trial, bench in turns if number % 2 == 0 else reversed(turns):
            trial.rounds.append(self._subject.again(bench, trial.first.in_flight, number))
            yield trial


def outcome_of(level: Level) -> Outcome:
    """What counts of a level."""
    if not level.answers:
        codes = ", ".join(sorted(level.errors)) or "nothing came back"
        return Outcome(in_flight=level.in_flight, failure=f"no job was answered: {codes}")
    return Outcome(level.per_second, level.latency_ms["p99"], level.in_flight)


def _last_line(log: IO[str]) -> str:
    """What the server said last, without time, level and process in front."""
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    return _LOG_PREFIX.sub("", lines[-1])[:_LONGEST_REASON] if lines else ""
