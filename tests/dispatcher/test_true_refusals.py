"""Nobody is refused or dropped who had time, and overload still costs little: whole minutes of a simulated server."""

from __future__ import annotations

import itertools

import pytest

from tests.dispatcher.core_rig import FakeWorker, Rig, plan
from tests.dispatcher.simulated_server import EVERYBODY, Outcome, SimulatedServer, Slow, Times

IN_FLIGHT = 32
TIMEOUTS = (5.0, 6.0, 7.0, 8.0)  # seconds; the work in flight takes one or two
SECONDS = 30
SEEDS = (1, 2)
SHAPES = [(1, 1), (2, 1), (2, 4), (1, 8)]  # instances, and jobs in a batch: rows take the time that makes 30 jobs/s

STALLS = {
    "nothing": (),
    "a slow start": (Slow(0.0, 1.5, 0.1),),
    "a standstill at the start": (Slow(0.2, 2.2, 0.0),),
    "instances stopped for 2 s": (Slow(6.0, 8.0, 0.0, ("infer",)),),
    "instances stopped again and again": tuple(Slow(s, s + 2.0, 0.0, ("infer",)) for s in (1.0, 6.0, 14.0, 22.0)),
    "decoders stopped for 2 s": (Slow(6.0, 8.0, 0.0, ("decode",)),),
    "the dispatcher stopped for 2 s": (Slow(6.0, 8.0, 0.0, ("dispatcher",)),),
    "bursts of other programs": tuple(Slow(s, s + 3.0, 1 / 3) for s in (0.0, 5.0, 11.0, 17.0, 26.0)),
    "long slowness": (Slow(4.0, 30.0, 0.4),),
}


def simulate(shape: tuple[int, int], seed: int, slows: tuple[Slow, ...] = (), noise: float = 0.3) -> SimulatedServer:
    instances, batch = shape
    return SimulatedServer(
        Times(row=instances / 30 - 0.002 / batch, noise=noise),
        instances=instances,
        max_batch=batch,
        slows=slows,
        seed=seed,
    )


def wronged(found: list[Outcome], stalls: tuple[Slow, ...] = ()) -> list[Outcome]:
    """Jobs without an answer, but for those whose time ran out while nobody worked."""

    def had_no_time(outcome: Outcome) -> bool:
        limit = outcome.sent + outcome.timeout
        return outcome.code == "DEADLINE_EXCEEDED" and any(
            outcome.sent <= stall.start + 100.0 and limit <= stall.end + 100.0 for stall in stalls
        )

    return [outcome for outcome in found if outcome.code and not had_no_time(outcome)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("slows", STALLS.values(), ids=STALLS.keys())
def test_nobody_who_has_time_is_refused_or_dropped(slows, shape):
    for seed in SEEDS:
        simulated = simulate(shape, seed, slows)
        simulated.closed(IN_FLIGHT, TIMEOUTS)
        simulated.run(SECONDS)
        assert len(simulated.outcomes) > 300
        assert not wronged(simulated.outcomes), seed
        assert not simulated.kills


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
@pytest.mark.parametrize("seconds", [14.0, 40.0])
def test_a_machine_that_was_suspended_accuses_nobody_and_refuses_nobody(seconds, shape):
    for seed in SEEDS:
        pause = (Slow(6.0, 6.0 + seconds, 0.0, EVERYBODY),)
        simulated = simulate(shape, seed, pause)
        simulated.closed(IN_FLIGHT, TIMEOUTS)
        simulated.run(seconds + 30)
        assert not wronged(simulated.outcomes, pause), seed
        assert len(simulated.outcomes) > 600
        assert not simulated.kills


@pytest.mark.parametrize("seconds", [3.0, 9.0])
def test_a_first_run_that_takes_longer_than_a_deadline_costs_those_that_wait_for_it(seconds):
    for seed in SEEDS:
        simulated = SimulatedServer(Times(), first_run=seconds, seed=seed)
        simulated.closed(IN_FLIGHT, TIMEOUTS)
        simulated.run(SECONDS)
        late = [outcome for outcome in simulated.outcomes if outcome.code]
        assert all(outcome.sent < 101.0 and outcome.code == "DEADLINE_EXCEEDED" for outcome in late)
        assert len(late) <= (8 if seconds > 8.0 else 0)  # at most its batch: the other instance does the rest


def test_after_a_long_standstill_only_what_had_no_time_is_lost():
    for seed, (start, seconds) in itertools.product(SEEDS, [(1.0, 6.0), (8.0, 10.0)]):
        stall = (Slow(start, start + seconds, 0.0, ("infer",)),)
        simulated = simulate((2, 4), seed, stall)
        simulated.closed(IN_FLIGHT, TIMEOUTS)
        simulated.run(SECONDS)
        later = [outcome for outcome in simulated.outcomes if outcome.sent > 100.0 + start + seconds]
        assert len(later) > 250
        assert not wronged(later)
        assert not any(outcome.code == "RESOURCE_UNAVAILABLE" for outcome in simulated.outcomes)


def test_what_was_refused_in_an_overload_is_taken_again_at_once():
    for seed in SEEDS:
        simulated = simulate((2, 4), seed)
        simulated.open(150.0, (2.0,), until=10.0)
        simulated.run(10.0)
        assert simulated.codes()["RESOURCE_UNAVAILABLE"] > 300
        simulated.run(12.5)  # the queue is empty
        simulated.closed(IN_FLIGHT, TIMEOUTS)
        simulated.run(30.0)
        assert not wronged([outcome for outcome in simulated.outcomes if outcome.sent >= 112.0])


OVERLOADS = [  # times, seconds a job has, instances, jobs in a batch
    pytest.param(Times(), 1.0, 2, 2, id="second"),
    pytest.param(Times(noise=0.6), 1.0, 2, 2, id="noise"),
    pytest.param(Times(), 0.5, 2, 2, id="half a second"),
    pytest.param(Times(), 5.0, 2, 8, id="five seconds"),
    pytest.param(Times(0.002, 0.05, 0.002, 0.0005), 0.5, 1, 32, id="large batches"),
]


@pytest.mark.parametrize("load", [2.0, 10.0])
@pytest.mark.parametrize(("times", "timeout", "instances", "batch"), OVERLOADS)
def test_overload_costs_little_goodput(times, timeout, instances, batch, load):
    capacity = instances * batch / (times.batch + times.row * batch) / 2.718281828 ** (times.noise**2 / 2)
    seconds, found = 12, []
    for seed in (1, 2):
        simulated = SimulatedServer(times, instances=instances, max_batch=batch, seed=seed, queue_size=1000)
        simulated.open(capacity * load, (timeout,), until=seconds)
        simulated.run(seconds)
        found.append(simulated.goodput(1, seconds) / capacity)
    assert sum(found) / len(found) > 0.82


def test_a_mix_of_timeouts_costs_little_goodput():
    simulated = SimulatedServer(Times(), queue_size=1000)
    simulated.open(60.0, (0.5, 1.0, 2.0, 8.0), until=20.0)
    simulated.run(20.0)
    assert simulated.goodput(2, 20) / 30.3 > 0.88


def crew(rig: Rig) -> tuple[FakeWorker, FakeWorker]:
    """The only decode worker, and the only instance."""
    rig.worker("postprocess")
    return rig.worker("decode"), rig.worker("infer", "m")


@pytest.mark.parametrize("stage", ["decode", "infer"])
def test_time_in_which_the_dispatcher_did_not_run_counts_against_nobody(stage):
    rig = Rig(plan())
    decoder, infer = crew(rig)
    rig.admit(timeout=5.0)
    rig.step()
    if stage == "infer":
        rig.finish(decoder)
        rig.step()
    held = {"decode": decoder, "infer": infer}[stage]
    rig.pass_time(0.3)
    rig.stand_still(40.0)
    rig.pass_time(0.8)
    assert not rig.kills
    rig.pass_time(1.0)  # now it has had time enough
    assert rig.kills == [held.name]


def test_a_worker_of_an_earlier_dispatcher_is_given_its_patience_again_after_a_pause():
    rig = Rig(plan())
    rig.core.expect(["infer-9"], rig.now)
    rig.step()
    rig.stand_still(40.0)
    rig.pass_time(4.0)
    assert not rig.kills
    rig.pass_time(2.0)
    assert rig.kills == ["infer-9"]
