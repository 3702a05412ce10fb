"""The processes of a trial, seen from outside: started, given settings to load and to run, killed at the end."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Self

import msgspec

from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.process.interpreter import Interpreter
from parallel_infer.trial.settings import Mix, Setting, sessions
from parallel_infer.trial.verdict import Rates, Unusable
from parallel_infer.trial.worker import Code, Failed, Job, Load, Loaded, Order, Ran, Report, Run

_ENTRY = "parallel_infer.trial.worker:main"
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
_REST = 3  # processes besides those of the stages: gateway, dispatcher, postprocess
_IN_FLIGHT = 32  # pictures of each model at least
_BATCHES_IN_FLIGHT = 3  # at least, for each instance
_WARM = 0.25  # of what is counted of a round, before it, which is not
_BATCHES = 6  # that a round is to have of the slowest setting
_PIPE = 65536  # bytes that are read at once
_decode = msgspec.msgpack.Decoder(Report).decode


class TimeIsUp(Exception):
    """The trial has taken as long as it may."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the processes of a trial are told."""

    folder: Path  # for its pipes; made here, for this user alone
    code: Code
    plans: Sequence[Callable[[Setting], ModelPlan]]  # of each model, by how it runs
    default: Mix
    decode_workers: int
    round: float  # seconds that are counted of each measurement at least
    log_format: str
    log_level: str


@dataclass(slots=True)
class _Worker:
    """An infer worker of one model. Sessions are told apart by threads and largest batch."""

    process: Interpreter
    waiting: list[Setting] = field(default_factory=list)  # for being loaded, in this order
    loaded: dict[Setting, Loaded | Failed] = field(default_factory=dict)

    def order(self, order: Order) -> None:
        with contextlib.suppress(OSError):  # it has died, which is seen like any other death
            self.process.connection.send_bytes(msgspec.msgpack.encode(order))

    def end(self) -> int | None:
        """Kill and reap it; its exit code."""
        self.process.kill()
        self.process.ended(None)
        self.process.close()
        return self.process.exit_code


class Stand:
    """Measures settings of the models. All that were loaded stay, so that they can be run in turns."""

    def __init__(self, told: Told, seconds: float) -> None:
        """Everything is over in so many seconds from now."""
        self._told = told
        self.until = time.monotonic() + seconds
        self._workers: dict[tuple[int, int], _Worker] = {}  # by model and instance
        self._others: list[Interpreter] = []
        self._starting: list[Interpreter] = []  # of those
        self._pipes: dict[str, int] = {}
        self._numbers: dict[Setting, int] = {}  # of sessions, the same in every process

    def __enter__(self) -> Self:
        self._told.folder.mkdir(mode=0o700)
        for name in ("credits", "done", *(f"ready-{model}" for model in range(len(self._told.plans)))):
            os.mkfifo(self._path(name), 0o600)
            self._pipes[name] = os.open(self._path(name), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.ExitStack() as stack:
            stack.push(self.__exit__)
            self._others.extend(self._start_others())
            self._starting = list(self._others)
            stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        for process in [*(worker.process for worker in self._workers.values()), *self._others]:
            process.kill()  # all of them first, so that they end side by side
        for process in [*(worker.process for worker in self._workers.values()), *self._others]:
            process.ended(None)
            process.close()
        for descriptor in self._pipes.values():
            os.close(descriptor)
        shutil.rmtree(self._told.folder, ignore_errors=True)

    def load(self, mixes: Sequence[Mix], until: float) -> None:
        """Load what these need and is not there yet, in all processes at once and in this order; at most until then."""
        for mix in mixes:
            for key, session in sessions(mix):
                worker = self._workers.get(key) or self._start(key)
                if session not in worker.waiting and session not in worker.loaded:
                    worker.waiting.append(session)
                    self._order_load(key, session)
        while busy := {worker.process.connection: key for key, worker in self._workers.items() if worker.waiting}:
            there = wait(list(busy), max(0.0, until - time.monotonic()))
            if not there:
                return
            for connection in there:
                self._take_in(busy[connection])  # type: ignore[index]

    def keep(self, mix: Mix) -> None:
        """End the processes that this does not need: their sessions take memory, a GPU's for example."""
        needed = {key for key, _ in sessions(mix)}
        for key in self._workers.keys() - needed:
            self._workers.pop(key).end()

    def is_loaded(self, mix: Mix) -> bool:
        """Whether all its sessions were tried to be loaded; `measure` tells of those where that failed."""
        return all(key in self._workers and s in self._workers[key].loaded for key, s in sessions(mix))

    def targets(self, mix: Mix) -> list[int]:
        """The batch size worth having, by model. Raises Unusable, and TimeIsUp."""
        self.load([mix], self.until)  # again, where a process died of another setting
        if not self.is_loaded(mix):
            raise TimeIsUp
        return [found.target for found in self._found(mix)]

    def seconds(self, mixes: Sequence[Mix]) -> float:
        """How long a round is to be, so that there are enough batches of each of these."""
        longest = 0.0
        for mix in mixes:
            with contextlib.suppress(Unusable):
                longest = max(longest, *(found.seconds for found in self._found(mix)))
        return (1 + _WARM) * max(self._told.round, _BATCHES * longest)

    def measure(self, mix: Mix, seconds: float) -> Rates:
        """Rows per second by model, in a round of so many seconds. Raises Unusable, and TimeIsUp."""
        targets = self.targets(mix)
        self._await_others()
        if time.monotonic() + seconds > self.until:
            raise TimeIsUp
        self._fill(mix, targets)
        for key, session in sessions(mix):
            counted = seconds / (1 + _WARM)
            self._workers[key].order(Run(self._numbers[session], seconds - counted, counted))
        rates = [0.0] * len(mix)
        try:
            for key, _ in sessions(mix):
                rates[key[0]] += self._ran(key)
            if not all(rates):
                raise Unusable("too slow to be measured")
        except Unusable:
            for key, _ in sessions(mix):  # what the others still say would be taken for something else
                self._workers.pop(key).end()
            raise
        return rates

    def _await_others(self) -> None:
        """Wait for the stand-ins. Raises Unusable, and TimeIsUp."""
        while self._starting:
            process = self._starting[-1]
            if not wait([process.connection], max(0.0, self.until - time.monotonic())):
                raise TimeIsUp
            if isinstance(_received(process), Failed):
                raise Unusable("the processes that stand for decoding do not start")
            self._starting.pop()

    def _ran(self, key: tuple[int, int]) -> float:
        worker = self._workers[key]
        if not wait([worker.process.connection], max(0.0, self.until - time.monotonic())):
            raise TimeIsUp
        report = _received(worker.process)
        if isinstance(report, Ran):
            return report.rate
        raise Unusable(report.text if isinstance(report, Failed) else "it does not run")

    def _take_in(self, key: tuple[int, int]) -> None:
        """Take in how loading went. Where the process died of it, another one loads what is left."""
        worker = self._workers[key]
        session = worker.waiting.pop(0)
        report = _received(worker.process)
        if isinstance(report, (Loaded, Failed)):
            worker.loaded[session] = report
        if worker.process.ended():
            failed = {one: found for one, found in worker.loaded.items() if isinstance(found, Failed)}
            again = [one for one in (*worker.loaded, *worker.waiting) if one not in failed]
            worker.end()
            self._start(key).loaded.update(failed)
            for one in again:
                self._workers[key].waiting.append(one)
                self._order_load(key, one)

    def _found(self, mix: Mix) -> list[Loaded]:
        """What is known of a setting that is loaded, by model. Raises Unusable where it did not load."""
        found: dict[int, Loaded] = {}
        for (model, instance), session in sessions(mix):
            report = self._workers[model, instance].loaded[session]
            if isinstance(report, Failed):
                raise Unusable(report.text)
            found.setdefault(model, report)
        return list(found.values())

    def _order_load(self, key: tuple[int, int], session: Setting) -> None:
        plan = self._told.plans[key[0]](session)
        alone = msgspec.structs.replace(plan.session_of(key[1]), alone_threads=session.threads, profile=None)
        spec = msgspec.structs.replace(plan.spec, names=())
        number = self._numbers.setdefault(session, len(self._numbers))
        self._workers[key].order(Load(number, msgspec.structs.replace(plan, session=alone, spec=spec)))

    def _fill(self, mix: Mix, targets: Sequence[int]) -> None:
        """Let as many pictures of each model be under way as keep all of its instances busy, and no older ones."""
        for descriptor in self._pipes.values():
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, _PIPE)
        for model, (setting, target) in enumerate(zip(mix, targets, strict=True)):
            count = max(math.ceil(_IN_FLIGHT / len(mix)), _BATCHES_IN_FLIGHT * setting.instances * target)
            os.write(self._pipes["credits"], bytes([model]) * count)

    def _start(self, key: tuple[int, int]) -> _Worker:
        job = self._job(work="infer", model=key[0], taken=f"ready-{key[0]}", given=("done",))
        self._workers[key] = _Worker(_process(job))
        return self._workers[key]

    def _start_others(self) -> Iterator[Interpreter]:
        plans = tuple(make(setting) for make, setting in zip(self._told.plans, self._told.default, strict=True))
        ready = tuple(f"ready-{model}" for model in range(len(plans)))
        for _ in range(self._told.decode_workers):
            yield _process(self._job(work="decode", plans=plans, taken="credits", given=ready))
        for _ in range(_REST):
            yield _process(self._job(work="rest", taken="done", given=("credits",)))

    def _job(self, *, taken: str, given: tuple[str, ...], **what: Any) -> Job:
        told = self._told
        return Job(
            code=told.code,
            log_format=told.log_format,
            log_level=told.log_level,
            taken=self._path(taken),
            given=tuple(map(self._path, given)),
            **what,
        )

    def _path(self, name: str) -> str:
        return str(self._told.folder / name)


def _process(job: Job) -> Interpreter:
    process = Interpreter(_ENTRY, subprocess.DEVNULL, None, _ENVIRONMENT)
    with contextlib.suppress(OSError):  # it has died at once
        process.connection.send_bytes(msgspec.msgpack.encode(job))
    return process


def _received(process: Interpreter) -> Report:
    try:
        report: Report = _decode(process.connection.recv_bytes())
    except (EOFError, OSError):
        process.ended(None)
        return Failed(f"its process ended (exit code {process.exit_code})")
    return report
