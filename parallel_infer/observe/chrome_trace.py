"""A trace as a Chrome trace, the JSON that https://ui.perfetto.dev and chrome://tracing open.

One track per process, a slice per piece of work, arrows that follow a job from track to track, and per model a curve of
the jobs in flight. Times are microseconds since the trace began, on one clock for all processes. The format:
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU ("Trace Event Format").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

Event = dict[str, Any]
_PROCESS = 1  # the server; its processes are the tracks
_ORDER = ("gateway", "dispatcher", "decode", "infer", "postprocess")


class Work(NamedTuple):
    """A lease that a worker returned."""

    process: str
    stage: str
    model: str
    started: float  # seconds, of the server's clock
    seconds: float
    jobs: list[int]
    received: list[float]  # when each job came in


def chrome_trace(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The trace of what `Client.trace` returned."""
    work = [Work(*span) for span in recorded["work"]]
    tracks = _tracks(work)
    begin = recorded["started"]
    events = [
        *_names(tracks),
        *_work(work, tracks, begin),
        *_passing(recorded, tracks, begin),
        *_arrows(work, recorded, tracks, begin),
        *_levels(work, begin),
    ]
    facts = {"seconds": recorded["seconds"], "complete": recorded["complete"]}
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": facts}


def _tracks(work: list[Work]) -> dict[str, int]:
    """A number for each process, in the order a job meets them."""
    stages = {"gateway": "gateway", "dispatcher": "dispatcher", **{span.process: span.stage for span in work}}
    ordered = sorted(stages, key=lambda name: (_ORDER.index(stages[name]), name))
    return {name: number for number, name in enumerate(ordered, start=1)}


def _names(tracks: Mapping[str, int]) -> Iterator[Event]:
    yield {"ph": "M", "pid": _PROCESS, "name": "process_name", "args": {"name": "parallel-infer"}}
    for name, number in tracks.items():
        about = {"ph": "M", "pid": _PROCESS, "tid": number}
        yield {**about, "name": "thread_name", "args": {"name": name}}
        yield {**about, "name": "thread_sort_index", "args": {"sort_index": number}}


def _slice(name: str, kind: str, track: int, started: float, seconds: float, **facts: Any) -> Event:
    return {
        "ph": "X",
        "pid": _PROCESS,
        "tid": track,
        "name": name,
        "cat": kind,
        "ts": _microseconds(started),
        "dur": _microseconds(seconds),
        "args": facts,
    }


def _microseconds(seconds: float) -> float:
    return round(seconds * 1e6, 3)


def _work(work: list[Work], tracks: Mapping[str, int], begin: float) -> Iterator[Event]:
    for span in work:
        many = f" x{len(span.jobs)}" if span.stage == "infer" or len(span.jobs) > 1 else ""
        facts = {"jobs": span.jobs, "model": span.model}
        started = span.started - begin
        yield _slice(span.model + many, span.stage, tracks[span.process], started, span.seconds, **facts)


def _passing(recorded: Mapping[str, Any], tracks: Mapping[str, int], begin: float) -> Iterator[Event]:
    """What the processes did that pass jobs on."""
    for name, key in (("admit", "admitted"), ("answer", "answered")):
        for started, seconds, job in recorded[key]:
            yield _slice(name, "gateway", tracks["gateway"], started - begin, seconds, jobs=[job])
    for started, seconds, _ in recorded["dispatcher"]:
        yield _slice("hand out", "dispatcher", tracks["dispatcher"], started - begin, seconds)


def _arrows(work: list[Work], recorded: Mapping[str, Any], tracks: Mapping[str, int], begin: float) -> Iterator[Event]:
    """From the slice in which a job came in to the one in which it was answered, through all it was worked on in."""
    stops: dict[int, list[tuple[float, int]]] = {}
    for key in ("admitted", "answered"):
        for started, seconds, job in recorded[key]:
            stops.setdefault(job, []).append((started + seconds / 2, tracks["gateway"]))
    for span in work:
        for job in span.jobs:
            stops.setdefault(job, []).append((span.started + span.seconds / 2, tracks[span.process]))
    for number, passed in zip(count(1), stops.values(), strict=False):
        passed.sort()
        last = len(passed) - 1
        for place, (moment, track) in enumerate(passed if last else []):
            phase = "s" if not place else "f" if place == last else "t"
            binding = {"bp": "e"} if phase == "f" else {}
            where = {"pid": _PROCESS, "tid": track, "ts": _microseconds(moment - begin)}
            yield {"ph": phase, "name": "job", "cat": "job", "id": number, **where, **binding}


def _levels(work: list[Work], begin: float) -> Iterator[Event]:
    """How many jobs of each model were in flight: from their admission until their answer was made."""
    changes: dict[str, list[tuple[float, int]]] = {}
    for span in work:
        if span.stage == "postprocess":
            ended = span.started + span.seconds
            if ended <= begin:  # it was on its way when the trace began
                continue
            for received in span.received:
                changes.setdefault(span.model, []).extend([(max(received, begin), 1), (ended, -1)])
    for model, steps in changes.items():
        level = 0
        for moment, change in sorted(steps):
            level += change
            where = {"pid": _PROCESS, "ts": _microseconds(moment - begin)}
            yield {"ph": "C", "name": f"{model}: jobs in flight", **where, "args": {"jobs": level}}
