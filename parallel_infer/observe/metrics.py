"""A server's status as Prometheus metrics. docs/metrics.md says what each of them means."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from parallel_infer.errors import InferError
from parallel_infer.observe.histogram import all_counts, merged

Status = Mapping[str, Any]
_PREFIX = "parallel_infer_"
_WAITS = {"decode": "queue", "infer": "batch_wait", "postprocess": "post_wait"}  # stage -> the wait before it
_STATES = ("loading", "ready", "degraded", "unavailable", "closing")


class ServerMetrics(Collector):
    """Asks for the status when it is collected, and never otherwise."""

    def __init__(self, ask: Callable[[], Status]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """All metrics; only `parallel_infer_up` 0 where the server does not answer."""
        try:
            status = self._ask()
        except InferError:
            yield _gauge("up", "Whether the server answers.", (), [((), 0)])
            return
        yield _gauge("up", "Whether the server answers.", (), [((), 1)])
        if "router" in status:
            yield from _router(status["router"], status["members"])
        if "gateway" not in status:
            return  # a router without members that are there
        yield from _jobs(status)
        yield from _times(status["times"]["models"])
        yield from _models(status["models"])
        yield from _ingress(status["gateway"])
        yield from _processes(status)
        yield from _doors(status["doors"])
        yield from _sources(status["gateway"]["sources"])


Samples = list[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = GaugeMetricFamily(_PREFIX + name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _router(router: Status, members: Mapping[str, Any]) -> Iterator[Metric]:
    """What a router says of itself and of each member; everything else is the sum over its members."""
    yield _gauge("router_jobs", "Jobs that the router keeps.", (), [((), router["jobs"])])
    yield _gauge("router_jobs_waiting", "Jobs of these that no member has.", (), [((), router["waiting"])])
    yield _gauge("router_kept_bytes", "Memory that kept jobs take.", (), [((), router["kept_bytes"])])
    replies: Samples = [((outcome,), count) for outcome, count in router["counts"].items()]
    yield _counter("router_replies", "Replies by what they were: answered, or an error's code.", ("outcome",), replies)
    yield _counter("router_cpu_seconds", "Processor time of the router.", (), [((), router["cpu_seconds"])])
    up: Samples = [((name,), float(member["state"] == "up")) for name, member in members.items()]
    yield _gauge("member_up", "Whether a member takes jobs.", ("member",), up)
    under_way: Samples = [((name,), member["under_way"]) for name, member in members.items()]
    yield _gauge("member_jobs", "Jobs under way at a member.", ("member",), under_way)
    for key, text in (
        ("sent", "Jobs that were sent to a member."),
        ("answered", "Jobs that a member has answered."),
        ("failed", "Jobs that a member has replied to with an error."),
        ("sent_elsewhere", "Jobs that went to others because a member was lost."),
        ("connections_lost", "Connections to a member that were lost."),
    ):
        counts: Samples = [((name,), member[key]) for name, member in members.items()]
        yield _counter(f"member_{key}", text, ("member",), counts)


def _jobs(status: Status) -> Iterator[Metric]:
    models = status["gateway"]["models"]
    ends: Samples = [((name, end), n) for name, tally in models.items() for end, n in tally["ends"].items()]
    yield _counter("jobs", "Jobs by how they ended: answered, or an error's code.", ("model", "outcome"), ends)
    for key, text in (
        ("bytes_in", "Bytes of the payloads of admitted jobs."),
        ("bytes_out", "Bytes of answers, headers included."),
    ):
        yield _counter(key, text, ("model",), [((name,), tally[key]) for name, tally in models.items() if name])
    for key, text in (
        ("cache_hits", "Jobs answered with an answer given before (option response_cache_mb)."),
        ("cache_misses", "Jobs computed though answers are kept."),
    ):
        yield _counter(key, text, ("model",), [((name,), tally[key]) for name, tally in models.items() if name])
    kept = status["gateway"]["response_cache"]["used"]
    yield _gauge("response_cache_bytes", "Memory that kept answers take.", (), [((), kept)])
    yield _gauge("jobs_pending", "Admitted jobs without a reply.", (), [((), status["gateway"]["pending"])])


def _times(models: Mapping[str, Any]) -> Iterator[Metric]:
    for name, text, parts in (
        ("stage_seconds", "Time that jobs spent in a stage.", {stage: stage for stage in _WAITS}),
        ("wait_seconds", "Time that jobs waited before a stage.", _WAITS),
    ):
        family = HistogramMetricFamily(_PREFIX + name, text, labels=("model", "stage"))
        for model, times in models.items():
            for stage, part in parts.items():
                family.add_metric((model, stage), *_buckets(times, part))
        yield family
    family = HistogramMetricFamily(_PREFIX + "job_seconds", "Time from admission to the answer.", labels=("model",))
    for model, times in models.items():
        family.add_metric((model,), *_buckets(times, "total"))
    yield family


def _buckets(times: Mapping[str, Any], part: str) -> tuple[list[tuple[str, float]], float]:
    """As a HistogramMetricFamily takes them: buckets with their jobs and all smaller ones, and the sum of seconds."""
    counts = all_counts(times, part)
    buckets: list[tuple[str, float]] = [(f"{bound:.10g}", count) for bound, count in merged(counts)]
    return [*buckets, ("+Inf", sum(counts))], times[part]["seconds"]


def _models(models: Mapping[str, Any]) -> Iterator[Metric]:
    """What the dispatcher counts, by model and version: two versions of a name are there while one replaces another."""
    names = {key: (model.get("name", key), str(model.get("version", 1))) for key, model in models.items()}
    labels = ("model", "version")
    states: Samples = [
        ((*names[key], state), float(model.get("state") == state)) for key, model in models.items() for state in _STATES
    ]
    yield _gauge("model_state", "1 for the state a model is in.", (*labels, "state"), states)
    yield _gauge("instances", "Infer workers that are up.", labels, _each(models, names, "instances"))
    stages = {"queued": "decode", "ready": "infer"}
    waiting: Samples = [
        ((*names[key], stage), model[found]) for key, model in models.items() for found, stage in stages.items()
    ]
    yield _gauge("queue_jobs", "Jobs that wait for a stage.", (*labels, "stage"), waiting)
    yield _counter("rows", "Rows that were inferred.", labels, _each(models, names, "batched_rows"))
    gathered = _each(models, names, "gathered_rows")
    yield _counter("gathered_rows", "Rows that were copied together for their batch.", labels, gathered)
    for figure, text in (
        ("decoded", "Times that a picture of a fan or a chain was decoded for a model."),
        ("reused", "Jobs of fans and chains whose picture was decoded already."),
    ):
        yield _counter(f"shared_pictures_{figure}", text, labels, _each(models, names, figure))
    family = HistogramMetricFamily(_PREFIX + "batch_size", "Jobs that were inferred together.", labels=labels)
    for key, model in models.items():
        family.add_metric(names[key], *_sizes(model["batch_sizes"]))
    yield family
    rings: list[tuple[str, str]] = [(key, ring) for key in models for ring in ("rows", "outputs")]
    for figure, text in (("slots", "Slots of a model's ring."), ("slots_free", "Slots that are free.")):
        found = figure.removeprefix("slots_")
        samples: Samples = [((*names[key], ring), models[key][ring][found]) for key, ring in rings]
        yield _gauge(f"model_{figure}", text, (*labels, "ring"), samples)
    leaked: Samples = [((*names[key], ring), models[key]["leaked"][ring]) for key, ring in rings]
    yield _gauge("model_slots_leaked", "Slots taken that no job needs; always 0.", (*labels, "ring"), leaked)


def _each(models: Mapping[str, Any], names: Mapping[str, tuple[str, str]], figure: str) -> Samples:
    return [(names[key], model[figure]) for key, model in models.items()]


def _sizes(counts: Mapping[str, int]) -> tuple[list[tuple[str, float]], float]:
    """Buckets of powers of two up to the largest batch there was."""
    sizes = {int(size): number for size, number in counts.items()}
    powers = range(max(sizes, default=1).bit_length() + 1)
    buckets: list[tuple[str, float]] = [
        (str(1 << power), sum(n for size, n in sizes.items() if size <= 1 << power)) for power in powers
    ]
    return [*buckets, ("+Inf", sum(sizes.values()))], sum(size * number for size, number in sizes.items())


def _ingress(gateway: Mapping[str, Any]) -> Iterator[Metric]:
    rings = [((str(ring["slot_size"]),), ring) for ring in gateway["ingress"]]
    for name, key, text in (
        ("ingress_slots", "slots", "Slots for payloads, by their size in bytes."),
        ("ingress_slots_free", "free", "Slots for payloads that are free."),
        ("ingress_slots_leaked", "leaked", "Slots taken that no job needs; always 0."),
    ):
        yield _gauge(name, text, ("slot_size",), [(label, ring[key]) for label, ring in rings])
    held = "Slots of answered jobs that a worker may still read."
    yield _gauge("ingress_slots_held", held, (), [((), gateway["held"])])
    yield _gauge("lent_bytes", "Memory lent to clients on this machine.", (), [((), gateway["lent_bytes"])])
    yield _gauge("clients", "Clients active within the last second.", (), [((), gateway["clients"])])
    yield _counter("unread_replies", "Replies lost because nobody read them.", (), [((), gateway["unread"])])


def _processes(status: Status) -> Iterator[Metric]:
    processes, workers = status["processes"], status["workers"]
    up: Samples = [((name,), float(found["state"] == "up")) for name, found in processes.items()]
    yield _gauge("process_up", "Whether a process is up.", ("process",), up)
    restarts: Samples = [((name,), found["restarts"]) for name, found in processes.items()]
    yield _counter("restarts", "How often a process was started again.", ("process",), restarts)
    killed = status["refused"].get("killed", 0)
    yield _counter("workers_killed", "Workers killed because they did not return their work.", (), [((), killed)])
    labels = ("worker", "stage", "model")
    named = {(name, found["stage"], found["model"]): found for name, found in workers.items()}
    busy: Samples = [(names, found["busy_seconds"]) for names, found in named.items()]
    yield _counter("worker_busy_seconds", "Time a worker was at work.", labels, busy)
    done: Samples = [(names, found["done"]) for names, found in named.items()]
    yield _counter("worker_leases", "Pieces of work a worker has returned.", labels, done)
    cpu: Samples = [((name,), status[name]["cpu_seconds"]) for name in ("gateway", "dispatcher")]
    yield _counter("cpu_seconds", "Processor time of the processes that pass jobs on.", ("process",), cpu)
    uptime = status["gateway"]["uptime"]
    yield _gauge("uptime_seconds", "Seconds since the gateway was started.", (), [((), uptime)])


def _doors(doors: Mapping[str, Any]) -> Iterator[Metric]:
    statuses: Samples = [
        ((name, status), count) for name, door in doors.items() for status, count in door["requests"].items()
    ]
    text = "Requests that a door has answered, by the status in its protocol's words."
    yield _counter("door_requests", text, ("door", "status"), statuses)
    codes: Samples = [((name, code), count) for name, door in doors.items() for code, count in door["refused"].items()]
    yield _counter("door_refused", "Those that got an error, by its code.", ("door", "code"), codes)
    in_flight: Samples = [((name,), door["in_flight"]) for name, door in doors.items()]
    yield _gauge("door_requests_in_flight", "Requests at a door that wait for their answer.", ("door",), in_flight)
    for key, text in (("bytes_in", "Bytes of the bodies of requests."), ("bytes_out", "Bytes of those of replies.")):
        sizes: Samples = [((name,), door[key]) for name, door in doors.items()]
        yield _counter(f"door_{key}", text, ("door",), sizes)


def _sources(sources: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ("source", "outcome")
    ends: Samples = [
        ((name, end), found[end]) for name, found in sources.items() for end in ("answered", "dropped", "failed")
    ]
    yield _counter("frames", "Frames of live sources by what became of them.", labels, ends)
    ages: Samples = [((name,), found["age"]) for name, found in sources.items() if found["age"] is not None]
    yield _gauge("frame_age_seconds", "Age of the newest frame of a source that has an answer.", ("source",), ages)
    yield from _counted(sources)


def _counted(sources: Mapping[str, Any]) -> Iterator[Metric]:
    """What the clients of sources counted at lines and zones."""
    crossed, present, entered = Counter[tuple[str, ...]](), Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for name, source in sources.items():
        for what, place, kind, number in (source["client"] or {}).get("counts", ()):
            if what in ("in", "out"):
                crossed[name, place, kind, what] += number
            else:  # added up: a name that is told twice must not be on the page twice
                (present if what == "present" else entered)[name, place, kind] += number
    text = "Objects of live sources that crossed a line, as their client tells."
    yield _counter("line_crossings", text, ("source", "line", "class", "direction"), list(crossed.items()))
    zone = ("source", "zone", "class")
    yield _gauge("zone_objects", "Objects in a zone, as the client of the source tells.", zone, list(present.items()))
    yield _counter("zone_entered", "Different objects that ever were in a zone.", zone, list(entered.items()))
