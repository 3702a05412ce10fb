"""The way ahead: a batch of one is handed on by the worker that ran it, and the dispatcher hears of it beside."""

from __future__ import annotations

import pytest

from parallel_infer.ipc.messages import InferLease, PostLease
from tests.dispatcher.core_rig import FakeWorker, Rig, plan


@pytest.fixture
def rig() -> Rig:
    return Rig(plan(), onward=True)


@pytest.fixture
def decode(rig: Rig) -> FakeWorker:
    return rig.worker("decode")


@pytest.fixture
def infer(rig: Rig) -> FakeWorker:
    return rig.worker("infer", "m", {1: 0.01, 4: 0.011})


@pytest.fixture
def post(rig: Rig) -> FakeWorker:
    return rig.worker("postprocess")


def until_inference(rig: Rig, decode: FakeWorker) -> int:
    """A job alone; its number, once an instance has it."""
    job = rig.admit()
    rig.step()
    rig.finish(decode)
    rig.step()
    return job


def lease_of(worker: FakeWorker) -> InferLease:
    (lease,) = worker.leases
    assert isinstance(lease, InferLease)
    return lease


@pytest.mark.parametrize("first", ["report", "answer"])
def test_whoever_ran_a_job_alone_hands_it_on(rig, decode, infer, post, first):
    job = until_inference(rig, decode)
    rig.finish(infer)
    if first == "report":
        assert rig.hear()
        rig.step()
    assert post.leases == [], "the dispatcher says nothing of it"
    rig.arrive(rig.flights[0])
    rig.finish(post)
    rig.hear()
    rig.step()
    assert rig.answered == {job: 1}
    assert rig.core.leasing.models["m"].counts["answered"] == 1
    rig.check_drained()


@pytest.mark.parametrize("handed_on", [False, True])
@pytest.mark.parametrize("reported", [False, True])
def test_a_lease_whose_carrier_dies_is_recalled_or_done(rig, decode, infer, post, handed_on, reported):
    job = until_inference(rig, decode)
    rig.finish(infer)
    if reported:
        rig.hear()
    if handed_on:
        rig.arrive(rig.flights[0])
    rig.replace(infer)
    rig.run_dry()
    assert rig.answered == {job: 1}
    assert rig.inferred[job] == (1 if handed_on or reported else 2)
    rig.check_drained()


def test_a_lease_that_arrives_after_it_was_recalled_is_not_begun(rig, decode, infer, post):
    job = until_inference(rig, decode)
    rig.finish(infer)
    (flight,) = rig.flights
    rig.replace(infer, lost=lambda: False)
    while rig.hear():
        rig.step()
    rig.arrive(flight)
    assert post.leases == []
    rig.run_dry()
    assert rig.answered == {job: 1}
    rig.check_drained()


@pytest.mark.parametrize("ran", [False, True])
def test_a_worker_that_dies_while_it_waits_costs_nothing(rig, decode, infer, post, ran):
    job = until_inference(rig, decode)
    if ran:
        rig.finish(infer)
    rig.replace(post)
    rig.run_dry()
    assert rig.answered == {job: 1}
    assert rig.inferred[job] == 1
    rig.check_drained()


def test_what_waits_for_a_long_inference_does_not_count_as_hung(rig, decode, infer, post):
    until_inference(rig, decode)
    rig.pass_time(20)
    assert rig.kills == [infer.name]


def test_what_never_arrives_costs_its_worker_its_life_and_not_the_job(rig, decode, infer, post):
    job = until_inference(rig, decode)
    rig.finish(infer)
    rig.hear()
    rig.pass_time(60)
    assert rig.kills[0] == post.name
    rig.replace(post)
    rig.run_dry()
    assert rig.answered == {job: 1}


def test_a_row_that_failed_is_not_handed_on(rig, decode, infer, post):
    job = until_inference(rig, decode)
    rig.finish(infer, fail=[job])
    rig.step()
    assert not rig.flights
    assert rig.refused[job].code == "BAD_INPUT"
    rig.check_drained()


def test_a_job_that_is_cancelled_while_it_runs_is_freed_when_its_last_worker_is_through(rig, decode, infer, post):
    job = until_inference(rig, decode)
    rig.core.cancel(job)
    rig.run_dry()
    assert rig.refused[job].code == "DROPPED"
    rig.check_drained()


def test_only_one_job_waits_for_a_worker(rig, decode, infer, post):
    second = rig.worker("infer", "m")
    until_inference(rig, decode)
    until_inference(rig, decode)
    assert lease_of(infer).onward is not None
    assert lease_of(second).onward is None
    rig.run_dry()
    rig.check_drained()


def test_several_jobs_go_step_by_step(rig, decode, infer, post):
    for _ in range(3):
        rig.admit()
    rig.run_dry()
    rig.check_drained()
    assert rig.core.leasing.models["m"].batch_sizes.keys() - {1}, "no batch of several was made"


def test_a_suspect_goes_step_by_step(rig, decode, infer, post):
    job = until_inference(rig, decode)
    infer = rig.replace(infer)
    while rig.hear():
        rig.step()
    rig.step()
    assert lease_of(infer).onward is None
    rig.kill(infer)
    assert rig.refused[job].code == "POISON"


def test_a_lease_of_an_earlier_dispatcher_means_nothing_once_its_worker_has_another(rig, decode, infer, post):
    job = until_inference(rig, decode)
    rig.restart()
    rig.announce(post)
    rig.announce(decode)
    rig.announce(infer)  # it finishes what it had, and hands it on
    (flight,) = rig.flights
    assert isinstance(flight.lease, PostLease)
    rig.arrive(flight)
    assert post.leases == []
    rig.run_dry()
    assert rig.answered == {job: 1}
    rig.check_drained()
