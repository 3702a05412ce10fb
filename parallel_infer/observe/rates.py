"""What happened between two looks at a server: rates, percentiles, utilisation, and where it is tight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from parallel_infer.errors import Dropped
from parallel_infer.observe.histogram import all_counts, difference, percentile

Status = Mapping[str, Any]
TIGHT = 0.7  # utilisation from which a stage is what holds up the others
_PASSING = ("gateway", "dispatcher")  # processes that pass jobs on


@dataclass(frozen=True)
class ModelRates:
    """One model."""

    name: str
    state: str
    per_second: float  # answers
    errors_per_second: float  # but those dropped for a newer frame
    p50: float  # seconds from admission to the answer
    p99: float
    mean_batch: float
    waiting: int  # jobs, now
    tight: str  # the busiest stage on its way, where that is busy enough to hold it up; else ""


@dataclass(frozen=True)
class StageRates:
    """One stage: decode, postprocess, the infer workers of one model, or a process that passes jobs on."""

    name: str
    model: str  # of infer workers
    workers: int
    utilisation: float  # 0 to 1, of all its workers together
    per_second: float | None  # leases returned; None for processes that have none


@dataclass(frozen=True)
class SourceRates:
    """One live source."""

    name: str
    per_second: float  # answered frames
    dropped_per_second: float
    dropped: int  # since the server counts
    age: float | None  # seconds since the newest answered frame came in


@dataclass(frozen=True)
class Rates:
    """Everything, over `seconds`."""

    seconds: float
    uptime: float
    clients: int
    pending: int
    models: list[ModelRates]
    stages: list[StageRates]
    sources: list[SourceRates]

    @property
    def bottleneck(self) -> StageRates | None:
        """The busiest stage, where it is busy enough to hold up the others."""
        busiest = max(self.stages, key=lambda stage: stage.utilisation, default=None)
        return busiest if busiest is not None and busiest.utilisation >= TIGHT else None


def rates(older: Status, newer: Status, seconds: float) -> Rates:
    """What happened between two answers to a status request that came `seconds` apart."""
    stages = list(_stages(older, newer, seconds))
    gateway = newer["gateway"]
    return Rates(
        seconds,
        gateway["uptime"],
        gateway["clients"],
        gateway["pending"],
        list(_models(older, newer, seconds, stages)),
        stages,
        list(_sources(older, newer, seconds)),
    )


def _grown(newer: Mapping[str, Any], older: Mapping[str, Any], key: str) -> float:
    """How much a counter has grown; one that began anew has grown by what it is."""
    after: float = newer.get(key, 0)
    before: float = older.get(key, 0)
    return after - before if after >= before else after


def _models(older: Status, newer: Status, seconds: float, stages: list[StageRates]) -> Iterator[ModelRates]:
    for key, model in newer["models"].items():
        name = model.get("name", key)
        before = older["models"].get(key, {})
        after, earlier = (status["gateway"]["models"].get(name, {}).get("ends", {}) for status in (newer, older))
        ended = {end: _grown(after, earlier, end) for end in after}
        answered = ended.pop("answered", 0)
        ended.pop(Dropped.code, None)  # as the client wished; sources tell
        times = (all_counts(status["times"]["models"].get(name, {}), "total") for status in (newer, older))
        counts = difference(*times)
        batches = _grown(model, before, "batches")
        yield ModelRates(
            key,
            model.get("state", ""),
            answered / seconds,
            sum(ended.values()) / seconds,
            percentile(counts, 0.5),
            percentile(counts, 0.99),
            _grown(model, before, "batched_rows") / batches if batches else 0.0,
            model["queued"] + model["ready"],
            _tight(key, stages) if answered or model["jobs"] else "",
        )


def _tight(model: str, stages: list[StageRates]) -> str:
    busiest = max((s for s in stages if s.model in ("", model)), key=lambda stage: stage.utilisation, default=None)
    return busiest.name if busiest is not None and busiest.utilisation >= TIGHT else ""


def _stages(older: Status, newer: Status, seconds: float) -> Iterator[StageRates]:
    groups: dict[tuple[str, str], list[str]] = {}
    for stage in ("decode", "infer", "postprocess"):
        for name, worker in newer["workers"].items():
            if worker["stage"] == stage:
                groups.setdefault((stage, worker["model"]), []).append(name)
    for (stage, model), names in groups.items():
        pairs = [(newer["workers"][name], older["workers"].get(name, {})) for name in names]
        busy = sum(_grown(after, before, "busy_seconds") for after, before in pairs)
        done = sum(_grown(after, before, "done") for after, before in pairs)
        yield StageRates(stage, model, len(names), min(1.0, busy / len(names) / seconds), done / seconds)
    for name in _PASSING:
        busy = _grown(newer[name], older[name], "cpu_seconds")
        yield StageRates(name, "", 1, min(1.0, busy / seconds), None)


def _sources(older: Status, newer: Status, seconds: float) -> Iterator[SourceRates]:
    for name, source in newer["gateway"]["sources"].items():
        before = older["gateway"]["sources"].get(name, {})
        answered, dropped = (_grown(source, before, key) / seconds for key in ("answered", "dropped"))
        yield SourceRates(name, answered, dropped, source["dropped"], source["age"])
