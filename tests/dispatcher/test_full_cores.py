"""Batches when the cores are full, simulated on two of them: fuller where that pays, as ever where it does not.

Both policies meet the same arrivals, and their work is drawn from the same distributions. `AutoBatch` is compared with
itself when it is told that cores are free, which is how it decides for a model on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import pytest

from parallel_infer.dispatcher.policy import Situation, Start, Wait
from parallel_infer.ipc.messages import ModelPlan
from stages.batch import AutoBatch
from stages.pipeline import batching
from tests.dispatcher.simulated_server import SimulatedServer, Times

# Seconds of processor time per picture like those of a small classifier on a 720p JPEG, of a detector, and of a model
# that takes less time than the messages around it.
CLASSIFIER = Times(decode=0.0026, batch=0.0016, row=0.0025, post=0.00025, gateway=0.0006, message=0.0001)
DETECTOR = Times(decode=0.0026, batch=0.0005, row=0.0115, post=0.0004, gateway=0.0006, message=0.0001)
SMALL = Times(decode=0.0005, batch=0.001, row=0.0004, post=0.0001, gateway=0.0004, message=0.0001)
LONG_DECODING = Times(decode=0.012, batch=0.0005, row=0.0027, post=0.00025, gateway=0.0012, message=0.0001)
SECONDS = 4


class FreeCores(AutoBatch):
    """Decides as if there were always a free core."""

    def decide(self, now: Situation) -> Start | Wait:
        return super().decide(now._replace(load=0.0))


def free_cores(plan: ModelPlan) -> FreeCores:
    return FreeCores(
        max_batch=plan.max_batch,
        preferred=plan.preferred_batch,
        fixed=plan.fixed_batch,
        max_delay=plan.max_queue_delay,
    )


class Result(NamedTuple):
    """Of one simulated run."""

    rate: float  # answers per second
    batch: float  # mean rows
    gathered: float  # part of the rows
    latencies: list[float]  # seconds, in rising order


def simulated(
    times: Times,
    *,
    in_flight: int = 0,
    rate: float = 0.0,
    warm_up: float = 1.0,
    policy: Callable[..., AutoBatch] = batching,
) -> Result:
    """A server on two cores with two instances of one thread, and who asks: so many in flight, or so many a second."""
    simulated = SimulatedServer(times, cores=2, decoders=1, postprocessors=1, warm_up=warm_up, policy=policy)
    if rate:
        simulated.open(rate, (1000.0,), SECONDS)
    else:
        simulated.closed(in_flight, (1000.0,))
    simulated.run(SECONDS)
    answered = [outcome for outcome in simulated.outcomes if not outcome.code]
    assert answered
    rows = sum(simulated.batches)
    latencies = sorted(outcome.ended - outcome.sent for outcome in answered)
    return Result(len(answered) / SECONDS, rows / len(simulated.batches), simulated.gathered / rows, latencies)


@pytest.mark.parametrize(("times", "gain"), [(CLASSIFIER, 1.12), (SMALL, 1.10)], ids=["classifier", "small"])
def test_batches_are_fuller_and_throughput_higher_where_all_cores_are_busy(times, gain):
    before, after = simulated(times, in_flight=32, policy=free_cores), simulated(times, in_flight=32)
    assert after.batch > 1.5 * before.batch
    assert after.rate > gain * before.rate
    assert median(after.latencies) < median(before.latencies)
    assert after.gathered < 0.01


def test_a_large_batch_that_was_measured_wrongly_is_tried_again():
    wrong = simulated(CLASSIFIER, in_flight=32, warm_up=5.0)
    assert wrong.rate > 0.95 * simulated(CLASSIFIER, in_flight=32).rate


@pytest.mark.parametrize("in_flight", [8, 32])
def test_a_model_whose_batches_gain_little_loses_nothing(in_flight):
    before = simulated(DETECTOR, in_flight=in_flight, policy=free_cores)
    after = simulated(DETECTOR, in_flight=in_flight)
    assert after.rate > 0.97 * before.rate


@pytest.mark.parametrize("times", [CLASSIFIER, DETECTOR, LONG_DECODING], ids=["classifier", "detector", "decoding"])
def test_one_picture_at_a_time_waits_for_nothing(times):
    assert simulated(times, in_flight=1) == simulated(times, in_flight=1, policy=free_cores)


@pytest.mark.parametrize(("times", "rate"), [(CLASSIFIER, 60), (DETECTOR, 25), (LONG_DECODING, 24)])
def test_light_load_is_served_as_ever(times, rate):
    before, after = simulated(times, rate=rate, policy=free_cores), simulated(times, rate=rate)
    assert median(after.latencies) <= 1.01 * median(before.latencies)
    assert after.latencies[-1] <= 1.01 * before.latencies[-1]


def test_where_decoding_is_what_everybody_waits_for_nothing_changes():
    before = simulated(LONG_DECODING, in_flight=32, policy=free_cores)
    after = simulated(LONG_DECODING, in_flight=32)
    assert after.rate >= 0.99 * before.rate
    assert median(after.latencies) <= 1.01 * median(before.latencies)
