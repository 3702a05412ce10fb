"""How busy a server is: the stages by its own account, the processes by the kernel's."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from parallel_infer.client import Client
from parallel_infer.errors import InferError

_TITLE = "parallel-infer: "
_TICKS = os.sysconf("SC_CLK_TCK")  # per second, of the times in /proc
SINGLE = ("gateway", "dispatcher")  # processes of one thread, of which there is one: a core is all they can use


class Busy(NamedTuple):
    """One moment of a server. What it does not tell is empty."""

    moment: float
    stages: dict[str, tuple[float, int]]  # by stage: seconds its workers were busy since they started, and workers
    processes: dict[str, float]  # by name: seconds of processor time since it started
    rows: tuple[int, int] = (0, 0)  # of the model: in all batches, and copied together for them


class Use(NamedTuple):
    """What happened between two moments, as shares."""

    stages: dict[str, float]  # of the time of a stage's workers, 0 to 1
    processes: dict[str, float]  # of one core, so a process of several threads may be above 1
    gathered: float = 0.0  # of the rows: those copied together for their batch


def look(client: Client, model: str, processes: list[int]) -> Busy:
    """The server now. `processes` are its process ids where it runs on this machine, else empty."""
    stages: dict[str, tuple[float, int]] = {}
    rows = 0, 0
    with contextlib.suppress(InferError, KeyError, TypeError):  # overloaded, or a server that says other things
        status = client.status()
        stages, rows = _stages(status["workers"], model), _rows(status["models"], model)
    return Busy(time.monotonic(), stages, _processor_seconds(processes), rows)


def between(first: Busy, second: Busy) -> Use:
    """Shares of the time between two moments; what began or ended meanwhile is left out."""
    seconds = max(1e-9, second.moment - first.moment)
    stages = {}
    for stage, (busy, workers) in second.stages.items():
        before = first.stages.get(stage)
        if before is not None and before[1] == workers and busy >= before[0]:
            stages[stage] = (busy - before[0]) / seconds / workers
    processes = {
        name: (spent - first.processes[name]) / seconds
        for name, spent in second.processes.items()
        if spent >= first.processes.get(name, float("inf"))
    }
    batched, gathered = (after - before for before, after in zip(first.rows, second.rows, strict=True))
    return Use(stages, processes, gathered / batched if batched > 0 else 0.0)


def _rows(models: dict[str, dict[str, Any]], model: str) -> tuple[int, int]:
    versions = [facts for key, facts in models.items() if facts.get("name", key) == model]
    return sum(facts["batched_rows"] for facts in versions), sum(facts["gathered_rows"] for facts in versions)


def _stages(workers: dict[str, dict[str, object]], model: str) -> dict[str, tuple[float, int]]:
    busy: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    for worker in workers.values():
        if worker["model"] in ("", model):  # CPU stages work for every model
            stage = str(worker["stage"])
            busy[stage] += float(worker["busy_seconds"])  # type: ignore[arg-type]  # a number on the wire
            count[stage] += 1
    return {stage: (busy[stage], count[stage]) for stage in busy}


def _processor_seconds(processes: list[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for process in processes:
        with contextlib.suppress(OSError, ValueError, IndexError):  # it ended meanwhile
            name = _name(process)
            if name:
                found[name] = found.get(name, 0.0) + _spent(process)
    return found


def _name(process: int) -> str:
    """Such as "decode-0", by the title that every process of a server gives itself; empty for others."""
    title = Path(f"/proc/{process}/cmdline").read_bytes().partition(b"\0")[0].decode()
    return title.removeprefix(_TITLE) if title.startswith(_TITLE) else ""


def _spent(process: int) -> float:
    """Processor seconds of all threads: fields 14 and 15 of proc_pid_stat(5)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
