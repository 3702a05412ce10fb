"""What the page shows of a server's state, made from two answers to a status request. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from parallel_infer.doors.http.page.figures import (
    ClientsWord,
    DoorNow,
    IngressNow,
    MemberNow,
    ModelNow,
    ProcessNow,
    Snapshot,
    SourceNow,
    StageNow,
    Totals,
)
from parallel_infer.errors import Dropped
from parallel_infer.observe.histogram import PARTS, all_counts, difference, percentile
from parallel_infer.observe.rates import Rates, SourceRates, rates

Status = Mapping[str, Any]
_WORKER = re.compile(r"(?:^|/)(?:decode|infer|postprocess)-")  # a router puts the member's name and / before it
WINDOW = 10.0  # seconds: percentiles, stage times and batch sizes are those of the jobs that ended within it


class Snapshots:
    """Makes snapshots of the answers to status requests, in the order in which they come."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Status]] = deque()

    def add(self, status: Status, now: float) -> Snapshot:
        """The snapshot of a status that came at `now` (seconds, monotonic)."""
        if self._seen and self._seen[-1][1]["gateway"]["uptime"] > status["gateway"]["uptime"]:
            self._seen.clear()  # another gateway, which counts anew
        while len(self._seen) > 1 and self._seen[0][0] < now - WINDOW:
            self._seen.popleft()
        at, last = self._seen[-1] if self._seen else (now - 1.0, status)
        first = self._seen[0][1] if self._seen else status
        self._seen.append((now, status))
        return _snapshot(first, last, status, max(1e-3, now - at))


def _snapshot(first: Status, last: Status, status: Status, seconds: float) -> Snapshot:
    found = rates(last, status, seconds)
    gateway = status["gateway"]
    return Snapshot(
        uptime=gateway["uptime"],
        draining=status["draining"],
        clients=gateway["clients"],
        limit=_label(found.bottleneck.name, found.bottleneck.model) if found.bottleneck else "",
        lent=gateway["lent_bytes"],
        unread=gateway["unread"],
        cut=gateway["cut"],
        totals=_totals(first, status, found),
        models=list(_models(first, status, found)),
        stages=[
            StageNow(
                name=stage.name,
                model=stage.model,
                workers=stage.workers,
                utilisation=stage.utilisation,
                per_second=stage.per_second,
            )
            for stage in found.stages
        ],
        processes=list(_processes(last, status, seconds)),
        doors=[
            DoorNow(
                name=name,
                addresses=door["addresses"],
                state=door["state"],
                requests=sum(door["requests"].values()),
                refused=door["refused"],
                in_flight=door["in_flight"],
            )
            for name, door in status["doors"].items()
        ],
        ingress=[
            IngressNow(slot_size=ring["slot_size"], slots=ring["slots"], free=ring["free"])
            for ring in gateway["ingress"]
        ],
        sources=[_source(source, gateway["sources"][source.name]) for source in found.sources],
        members=[
            MemberNow(
                name=name,
                address=member["address"],
                state=member["state"],
                problem=member["problem"],
                models=len(member["models"]),
                under_way=member["under_way"],
                answered=member["answered"],
            )
            for name, member in status.get("members", {}).items()
        ],
    )


def _source(rate: SourceRates, source: Mapping[str, Any]) -> SourceNow:
    told = source.get("client")
    return SourceNow(
        name=rate.name,
        fps=rate.per_second,
        answered=source["answered"],
        dropped=rate.dropped,
        failed=source["failed"],
        age=rate.age,
        client=None if told is None else ClientsWord(**told),
    )


def _label(stage: str, model: str) -> str:
    return f"{stage} {model}" if model else stage


def _totals(first: Status, status: Status, found: Rates) -> Totals:
    ends = [model["ends"] for model in status["gateway"]["models"].values()]
    counts: list[int] = []
    for name in status["times"]["models"]:
        counts = _added(counts, _counts(first, status, name))
    workers = _workers_up(status)
    return Totals(
        answered=sum(end.get("answered", 0) for end in ends),
        failed=sum(count for end in ends for code, count in end.items() if code not in ("answered", Dropped.code)),
        dropped=sum(end.get(Dropped.code, 0) for end in ends),
        fps=sum(model.per_second for model in found.models),
        p50=_milliseconds(counts, 0.5),
        p99=_milliseconds(counts, 0.99),
        queue=sum(model["queued"] + model["ready"] for model in status["models"].values()),
        pending=status["gateway"]["pending"],
        workers=sum(workers),
        all_workers=len(workers),
    )


def _workers_up(status: Status) -> list[bool]:
    """Whether it is up, of each worker process; one that is down is known by its process alone."""
    return [process["state"] == "up" for name, process in status["processes"].items() if _WORKER.search(name)]


def _added(one: list[int], other: list[int]) -> list[int]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [count + (shorter[place] if place < len(shorter) else 0) for place, count in enumerate(longer)]


def _counts(first: Status, status: Status, name: str) -> list[int]:
    """The jobs of the window by their time in all; where there were none, all jobs since the gateway counts."""
    older, newer = (all_counts(s["times"]["models"].get(name, {}), "total") for s in (first, status))
    changed = difference(newer, older)
    return changed if sum(changed) else newer


def _milliseconds(counts: list[int], share: float) -> float | None:
    return 1000 * percentile(counts, share) if sum(counts) else None


def _models(first: Status, status: Status, found: Rates) -> Iterator[ModelNow]:
    for rate in found.models:
        model = status["models"][rate.name]
        name = model["name"]
        ends = dict(status["gateway"]["models"].get(name, {}).get("ends", {}))
        counts = _counts(first, status, name)
        yield ModelNow(
            key=rate.name,
            name=name,
            version=model["version"],
            state=model["state"],
            unavailable=model["unavailable"],
            instances=model["instances"],
            fps=rate.per_second,
            errors_per_second=rate.errors_per_second,
            answered=ends.pop("answered", 0),
            errors=ends,
            p50=_milliseconds(counts, 0.5),
            p99=_milliseconds(counts, 0.99),
            times=_times(first, status, name),
            batch=_mean_batch(first, status, rate.name),
            batch_sizes=model["batch_sizes"],
            queued=model["queued"],
            decoding=model["decoding"],
            ready=model["ready"],
            rows=(model["rows"]["free"], model["rows"]["slots"]),
            outputs=(model["outputs"]["free"], model["outputs"]["slots"]),
            memory=model["memory"],
            limit=rate.tight,
        )


def _times(first: Status, status: Status, name: str) -> dict[str, float]:
    """The mean of each part of a job's time in ms, of the jobs of the window, else of all; {} where there are none."""
    newer = status["times"]["models"].get(name, {})
    older = first["times"]["models"].get(name, {})
    jobs = sum(_jobs(newer)) - sum(_jobs(older))
    if jobs <= 0:
        jobs, older = sum(_jobs(newer)), {}
    if jobs <= 0:
        return {}
    return {
        part: 1000 * (newer.get(part, {}).get("seconds", 0.0) - older.get(part, {}).get("seconds", 0.0)) / jobs
        for part in PARTS
    }


def _jobs(times: Mapping[str, Any]) -> list[int]:
    return all_counts(times, "total")


def _mean_batch(first: Status, status: Status, key: str) -> float:
    newer, older = status["models"][key], first["models"].get(key, {})
    batches, rows = (newer[count] - older.get(count, 0) for count in ("batches", "batched_rows"))
    if batches <= 0:
        batches, rows = newer["batches"], newer["batched_rows"]
    return rows / batches if batches else 0.0


def _processes(last: Status, status: Status, seconds: float) -> Iterator[ProcessNow]:
    for name, process in status["processes"].items():
        worker, before = status["workers"].get(name), last["workers"].get(name, {})
        busy = None
        if worker is not None:
            grown = worker["busy_seconds"] - before.get("busy_seconds", 0.0)
            busy = min(1.0, max(0.0, grown) / seconds)
        elif name in ("gateway", "dispatcher"):
            busy = min(1.0, max(0.0, status[name]["cpu_seconds"] - last[name]["cpu_seconds"]) / seconds)
        yield ProcessNow(
            name=name,
            stage=worker["stage"] if worker else "",
            model=worker["model"] if worker else "",
            state=process["state"],
            restarts=process["restarts"],
            utilisation=busy,
        )
