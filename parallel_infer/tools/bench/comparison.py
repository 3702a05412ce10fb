"""The pipeline and a synchronous loop in turns, so that what the machine does besides meets both alike."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import replace

import msgspec

from parallel_infer.config.schema import ServerConfig
from parallel_infer.ipc.messages import ModelPlan
from parallel_infer.machine.cores import usable_cores
from parallel_infer.supervisor.plan import make_plan
from parallel_infer.tools.bench.figures import Comparison
from parallel_infer.tools.bench.measure import Bench, Demand
from parallel_infer.tools.bench.synchronous import Subject, Synchronous

BATCH = 8  # of the batched loop, where the model takes any size
_STEP_SECONDS = 1.0  # that each step is measured alone


def compare(bench: Bench, demand: Demand, config: ServerConfig, rounds: int) -> Comparison:
    """Measure both in turns. `config` is that of the server, `demand` the load of the pipeline."""
    plan = loop_plan(config, bench.model)
    subject = Subject(plan, bench.generators.target.source, limits_of(config))
    with contextlib.closing(Synchronous(subject)) as loop:
        facts = loop.ready()
        found: dict[str, list[float]] = {"pipeline": [], "single": [], "batched": []}
        for number in range(rounds):
            for way in list(found) if number % 2 == 0 else reversed(list(found)):
                found[way].append(_measured(way, bench, demand, loop, plan.max_batch, number))
        steps = loop.steps(min(_STEP_SECONDS, demand.seconds)) if facts.on_processor else None
    return Comparison(
        in_flight=demand.in_flight,
        rounds=rounds,
        batch=plan.max_batch,
        threads=plan.session.threads,
        provider=facts.provider,
        pipeline=statistics.median(found["pipeline"]),
        single=statistics.median(found["single"]),
        batched=statistics.median(found["batched"]),
        spread={way: (min(figures), max(figures)) for way, figures in found.items()},
        steps=steps,
        cores=usable_cores(),
    )


def loop_plan(config: ServerConfig, name: str) -> ModelPlan:
    """How the loop runs a model of the server: same provider and precision, and as many threads as all instances of
    the server have together.
    """
    model = msgspec.structs.replace(config.models[name], max_batch_size=BATCH, preferred_batch_size=None)
    (plan,) = make_plan(msgspec.structs.replace(config, models={name: model})).models
    threads = plan.session.threads * plan.instances
    session = msgspec.structs.replace(plan.session, threads=threads, alone_threads=threads)
    return msgspec.structs.replace(plan, instances=1, session=session)


def limits_of(config: ServerConfig) -> dict[str, object]:
    """What the decode stage is told about pictures."""
    return {"max_pixels": config.max_pixels, "formats": config.formats}


def _measured(way: str, bench: Bench, demand: Demand, loop: Synchronous, batch: int, number: int) -> float:
    if way == "pipeline":
        return bench.measure(replace(demand, rate=0.0), number).per_second
    return loop.per_second(1 if way == "single" else batch, demand.seconds, demand.warm_up)
