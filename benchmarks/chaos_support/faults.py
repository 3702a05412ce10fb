"""Who breaks things: a thread that kills, stops or hangs processes of a server, and notes how it recovers."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import random
import signal
import statistics
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from parallel_infer import Client
from parallel_infer.errors import InferError
from parallel_infer.tools.local_server import LocalServer

_TITLE = "parallel-infer: "
WORKERS = ("decode", "infer", "postprocess")
KINDS = (*WORKERS, "dispatcher", "gateway")
HANG = signal.SIGUSR1  # what chaos_support/injected makes of it: a loop that never lets go of the GIL
_LOOK = 0.025  # seconds between looks at the status
_PROMPT = 0.25  # seconds from one to the next at most where all are up


class Fault(Enum):
    """What is done to a process."""

    KILL = "kill"  # SIGKILL
    STOP = "stop"  # SIGSTOP, and SIGCONT after a while, unless it was replaced before
    RESTART = "restart"  # the whole server: SIGTERM, its end, and a new one on the same address
    GIL = "gil"  # busy in one C call for ever, holding the GIL; workers only


@dataclass
class Incident:
    """One fault, and when things were well again (monotonic seconds)."""

    kind: str
    place: str
    at: float
    number: int  # of the kills of this place
    served: float | None = None  # the first answer to a job that was sent after it
    back: float | None = None  # the process runs again


def processes(server: LocalServer) -> dict[str, int]:
    """Process ids by place: "decode-0", "gateway", ..."""
    found = {}
    for process in server.processes():
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
            if title.startswith(_TITLE):
                found[title.removeprefix(_TITLE)] = process
    return found


def kind_of(place: str) -> str:
    """The stage or the name in a place's name."""
    return place.partition("-")[0]


class Saboteur:
    """Does faults at random times to random processes of some kinds until it is ended, or has done `most` of them.

    It does not wait until a process is back. Where processes take longer to start than faults are apart, on a busy
    machine, a server that is never left alone serves nobody, and no timeout is long enough: with `most` it is left
    alone in the end.
    """

    def __init__(
        self,
        server: LocalServer,
        kinds: tuple[str, ...],
        fault: Fault,
        every: tuple[float, float],
        seed: int,
        most: float = math.inf,
    ) -> None:
        self.incidents: list[Incident] = []
        self.superseded = 0  # killed again before it was back
        self.looks: list[
            tuple[float, bool]
        ] = []  # when the status was asked for, and whether jobs could go all the way
        self._server = server
        self._kinds = kinds
        self._fault = fault
        self._every = every
        self._most = most
        self._random = random.Random(seed)
        self._hurt: set[int] = set()
        self._kills: Counter[str] = Counter()
        self._waiting: list[Incident] = []  # for their process to be back
        self._unserved: list[Incident] = []
        self._stopped: list[tuple[float, int]] = []  # (when to go on, process)
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run), threading.Thread(target=self._watch)]

    def __enter__(self) -> Saboteur:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """Break nothing more; what is stopped goes on."""
        self._end.set()
        for thread in self._threads:
            thread.join()
        self._continue(float("inf"))

    def answered(self, sent: float) -> None:
        """A job that was sent at `sent` has its answer now."""
        if not self._unserved:
            return
        now = time.monotonic()
        with self._lock:
            for incident in [incident for incident in self._unserved if incident.at < sent]:
                incident.served = now
                self._unserved.remove(incident)

    def _run(self) -> None:
        due = time.monotonic() + self._random.uniform(*self._every)
        while not self._end.wait(0.005):
            now = time.monotonic()
            self._continue(now)
            if now >= due and len(self.incidents) < self._most:
                self._strike()
                due = now + self._random.uniform(*self._every)

    def _strike(self) -> None:
        there = {place: pid for place, pid in processes(self._server).items() if kind_of(place) in self._kinds}
        fresh = sorted(place for place, pid in there.items() if pid not in self._hurt)
        if not fresh:
            return
        place = self._random.choice(fresh)
        process = there[place]
        self._kills[place] += 1
        incident = Incident(kind_of(place), place, time.monotonic(), self._kills[place])
        if self._hurt_it(process):
            with self._lock:
                self.incidents.append(incident)
                if self._fault is not Fault.STOP:  # one that goes on is not started again
                    self._waiting.append(incident)
                self._unserved.append(incident)

    def _hurt_it(self, process: int) -> bool:
        """Whether the process was still there to be hurt."""
        number = {Fault.KILL: signal.SIGKILL, Fault.STOP: signal.SIGSTOP, Fault.GIL: HANG}[self._fault]
        try:
            os.kill(process, number)
        except ProcessLookupError:
            return False
        if self._fault is Fault.STOP:
            self._stopped.append((time.monotonic() + self._random.uniform(0.05, 1.5), process))
        else:
            self._hurt.add(process)
        return True

    def _continue(self, now: float) -> None:
        for when, process in [stopped for stopped in self._stopped if stopped[0] <= now]:
            self._stopped.remove((when, process))
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)

    def _watch(self) -> None:
        """Ask for the status, and note which processes are back."""
        with Client(self._server.address, timeout=5.0) as client:
            while not self._end.wait(_LOOK):
                status: dict[str, dict[str, Any]] = {}
                with contextlib.suppress(InferError):
                    status = client.status()["processes"]
                    self._note(status)
                self.looks.append((time.monotonic(), goes_all_the_way(status)))

    def _note(self, status: dict[str, dict[str, Any]]) -> None:
        now = time.monotonic()
        with self._lock:
            for incident in list(self._waiting):
                place = status.get(incident.place, {"restarts": 0, "state": "down"})
                if place["restarts"] > incident.number:
                    self.superseded += 1
                    self._waiting.remove(incident)
                elif place["restarts"] == incident.number and place["state"] == "up":
                    incident.back = now
                    self._waiting.remove(incident)

    def lines(self) -> list[str]:
        """Recovery by kind, for people."""
        found: dict[str, list[Incident]] = defaultdict(list)
        for incident in self.incidents:
            found[incident.kind].append(incident)
        head = f"{'seconds after it':18s} {'faults':>7s}   {'next answer p50':>15s} {'p99':>8s} {'max':>8s}"
        lines = [f"{head}   {'back p50':>9s} {'p99':>8s} {'max':>8s}"]
        for kind in KINDS:
            if found[kind]:
                served = three([i.served - i.at for i in found[kind] if i.served is not None])
                back = three([i.back - i.at for i in found[kind] if i.back is not None])
                lines.append(f"{kind:18s} {len(found[kind]):7d}   {served[0]:>15s} {served[1]:>8s} {served[2]:>8s}"
                             f"   {back[0]:>9s} {back[1]:>8s} {back[2]:>8s}")  # fmt: skip
        last = max((incident.at for incident in self.incidents), default=0.0)
        together, longest, whole = up_together([look for look in self.looks if look[0] <= last])
        up = f"until the last fault all kinds were up for {together:.1f} of {whole:.1f} s, {longest:.1f} s in a row"
        return [*lines, up]


def goes_all_the_way(status: dict[str, dict[str, Any]]) -> bool:
    """Whether one process of each stage and of each model is up; `status` is of all processes, {} without a reply."""
    stages: defaultdict[str, bool] = defaultdict(bool)
    for place, process in status.items():
        stages[place.rstrip("0123456789")] |= process["state"] == "up"
    return bool(stages) and all(stages.values())


def up_together(looks: list[tuple[float, bool]]) -> tuple[float, float, float]:
    """Seconds in which jobs could go all the way, the longest of them in a row, and seconds of all looks (in order).

    Not those before a look that took long: the gateway or the dispatcher was not there to answer it.
    """
    together = longest = row = 0.0
    for (before, was_up), (now, is_up) in itertools.pairwise(looks):
        up = now - before if was_up and is_up and now - before < _PROMPT else 0.0
        row = row + up if up else 0.0
        together += up
        longest = max(longest, row)
    return together, longest, looks[-1][0] - looks[0][0] if looks else 0.0


def three(values: list[float]) -> tuple[str, str, str]:
    """Median, 99th percentile and maximum."""
    if not values:
        return "-", "-", "-"
    values.sort()
    p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
    return f"{statistics.median(values):.3f}", f"{p99:.3f}", f"{values[-1]:.3f}"
