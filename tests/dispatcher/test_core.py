"""The dispatcher's decisions one by one: bounds, ends, the stop, who computes alone. No clock, no socket."""

from __future__ import annotations

import gc

import pytest

from parallel_infer.crops import Crop, PicturePart, Selection
from parallel_infer.dispatcher.jobs import Job
from parallel_infer.dispatcher.workers import Worker
from parallel_infer.ipc.messages import CloseModel, InferLease, SlotFate
from tests.dispatcher.core_rig import Rig, codes, crew, plan


def test_a_job_goes_through_every_stage_and_leaves_nothing():
    rig = Rig(plan())
    crew(rig)
    job = rig.admit()
    rig.run_dry()
    assert rig.answered == {job: 1}
    rig.check_drained()


def test_a_refusal_says_when_an_eighth_of_the_queue_will_be_free():
    rig = Rig(plan(queue_size=16, max_batch=1))
    for stage in ("decode", "postprocess"):
        rig.worker(stage)
    rig.worker("infer", "m", times={1: 0.05})
    for _ in range(30):
        rig.admit()
        rig.step()
    assert {message.reason for message in rig.refused.values()} == {"queue_full"}
    told = [message.retry_after for message in rig.refused.values()]
    assert told == pytest.approx([0.15] * len(told))  # two, and its own


def test_the_queue_of_each_model_is_bounded_by_its_own_size():
    rig = Rig(plan("small", queue_size=2), plan("large", queue_size=100))
    jobs = [rig.admit("small") for _ in range(4)]
    others = [rig.admit("large") for _ in range(50)]
    assert codes(rig) == dict.fromkeys(jobs[2:], "RESOURCE_UNAVAILABLE")
    text = rig.refused[jobs[2]].text
    assert "'small'" in text
    assert "2 jobs" in text
    assert "queue_size" in text
    assert (rig.refused[jobs[2]].reason, rig.refused[jobs[2]].retry_after) == ("queue_full", 0.0)  # no pace is known
    crew(rig, "small", "large")
    rig.run_dry()
    assert rig.answered == dict.fromkeys([*jobs[:2], *others], 1)
    rig.check_drained()


def test_room_in_the_queue_counts_again_as_soon_as_decoding_begins():
    rig = Rig(plan(queue_size=1))
    crew(rig)
    rig.admit()
    rig.step()
    second = rig.admit()
    assert second not in rig.refused


def test_unknown_models_and_past_deadlines_are_refused_at_once():
    rig = Rig(plan())
    unknown, late = rig.admit("other"), rig.admit(timeout=0.0)
    assert codes(rig) == {unknown: "UNKNOWN_MODEL", late: "DEADLINE_EXCEEDED"}
    rig.check_drained()


def test_queued_jobs_expire_on_a_timer_though_nobody_works():
    rig = Rig(plan())
    soon, later = rig.admit(timeout=0.1), rig.admit(timeout=0.2)
    rig.step()
    timer = rig.core.next_timer()
    assert timer is not None
    assert 0.1 <= timer - rig.now <= 0.1051
    rig.now = timer
    rig.step()
    assert codes(rig) == {soon: "DEADLINE_EXCEEDED"}
    rig.pass_time(0.2)
    assert codes(rig).keys() == {soon, later}
    rig.check_drained()


def test_expiry_in_decode_holds_the_payload_until_the_worker_is_done():
    rig = Rig(plan())
    infer, decoder = crew(rig)
    job = rig.admit(timeout=0.1)
    rig.step()
    rig.pass_time(0.2)
    assert rig.refused[job].slot == SlotFate.HELD
    assert rig.held == {job}
    rig.finish(decoder)
    rig.step()
    assert not infer.leases
    rig.check_drained()


def test_expiry_in_inference_frees_row_and_slot_when_the_batch_returns():
    rig = Rig(plan())
    infer, decoder = crew(rig)
    job = rig.admit(timeout=0.1)
    rig.step()
    rig.finish(decoder)
    rig.step()
    assert rig.jobs_of(infer) == [[job]]
    rig.pass_time(0.2)
    assert codes(rig) == {job: "DEADLINE_EXCEEDED"}
    served = rig.core.leasing.models["m"]
    assert served.rows.free < served.rows.count
    assert served.outputs.free < served.outputs.count
    rig.finish(infer)
    rig.run_dry()
    rig.check_drained()


def test_a_batch_returning_with_bad_rows_fails_only_those():
    rig = Rig(plan(max_batch=4))
    infer, decoder = crew(rig)
    blocker = rig.admit()
    rig.step()
    rig.finish(decoder)
    rig.step()
    jobs = [rig.admit() for _ in range(4)]
    rig.step()
    while decoder.leases:
        rig.finish(decoder)
        rig.step()
    rig.finish(infer)
    rig.step()
    held = [job for batch in rig.jobs_of(infer) for job in batch]
    assert set(held) == set(jobs)
    while infer.leases:
        rig.finish(infer, fail=[jobs[1]])
        rig.step()
    rig.run_dry()
    assert codes(rig) == {jobs[1]: "BAD_INPUT"}
    assert rig.answered == dict.fromkeys([blocker, jobs[0], jobs[2], jobs[3]], 1)
    rig.check_drained()


@pytest.mark.parametrize("steps", range(4))
def test_a_cancelled_job_is_dropped_wherever_it_is(steps):
    rig = Rig(plan())
    infer, decoder = crew(rig)
    job = rig.admit()
    for worker in [None, decoder, infer][:steps]:
        if worker is not None:
            rig.finish(worker)
        rig.step()
    rig.core.cancel(job)
    rig.core.cancel(job)
    assert codes(rig) == {job: "DROPPED"}
    rig.run_dry()
    rig.check_drained()


def test_a_closing_model_takes_no_jobs_and_says_when_the_last_is_answered():
    rig = Rig(plan(), plan("n"))
    crew(rig, "m", "n")
    first = rig.admit()
    rig.core.close_model(CloseModel("m"))
    second = rig.admit()
    rig.step()
    assert rig.closed == []
    rig.run_dry()
    assert (codes(rig), rig.closed) == ({second: "UNKNOWN_MODEL"}, ["m"])
    assert rig.answered == {first: 1}
    assert list(rig.core.leasing.models) == ["n"]


def test_draining_finishes_everything_that_the_gateway_let_in():
    """The gateway lets nobody in any more; what is under way from there, or is sent again, was admitted."""
    rig = Rig(plan())
    crew(rig)
    first = rig.admit()
    rig.core.draining = True
    second = rig.admit()
    rig.run_dry()
    assert codes(rig) == {}
    assert rig.answered == {first: 1, second: 1}
    assert not rig.core.ledger.jobs


def test_a_restarted_gateway_ends_the_jobs_of_the_old_one():
    rig = Rig(plan())
    _, decoder = crew(rig)
    jobs = [rig.admit() for _ in range(5)]
    rig.step()
    rig.finish(decoder)
    rig.step()
    rig.core.gateway_restarted()
    assert set(codes(rig).values()) == {"DROPPED"}
    assert rig.refused.keys() == set(jobs)
    rig.run_dry()
    rig.check_drained()


def test_a_job_admitted_twice_leaves_nothing_behind():
    rig = Rig(plan())
    crew(rig)
    job = rig.admit()
    rig.step()
    rig.core.admit(rig.admitted[job], rig.now)
    rig.run_dry()
    rig.check_drained()


def test_jobs_that_gave_up_waiting_take_no_memory():
    rig = Rig(plan(queue_size=10))
    head = rig.admit(priority=1)
    gc.collect()
    before = sum(isinstance(thing, Job) for thing in gc.get_objects())
    for _ in range(1000):
        rig.core.cancel(rig.admit())
    assert head not in rig.refused
    assert sum(isinstance(thing, Job) for thing in gc.get_objects()) < before + 200


def test_a_batch_is_alone_only_while_nothing_else_needs_the_cores():
    rig = Rig(plan("m"), plan("n"))
    infer, decoder = crew(rig, "m", "n")
    rig.admit("m")
    rig.step()
    rig.finish(decoder)
    rig.step()
    (first,) = infer.leases
    assert isinstance(first, InferLease)
    assert first.alone
    job = rig.admit("n")
    rig.step()
    rig.finish(decoder)
    rig.step()
    other = next(worker for worker in rig.workers.values() if worker.model == "n")
    assert rig.jobs_of(other) == [[job]]
    (second,) = other.leases
    assert isinstance(second, InferLease)
    assert not second.alone
    rig.finish(infer)
    rig.run_dry()
    rig.check_drained()


def test_a_batch_is_not_alone_while_others_are_on_their_way():
    rig = Rig(plan("m"), plan("n"))
    infer, decoder = crew(rig, "m", "n")
    rig.admit("m")
    rig.step()
    rig.admit("n")
    rig.finish(decoder)
    rig.step()
    (lease,) = infer.leases
    assert isinstance(lease, InferLease)
    assert not lease.alone
    rig.run_dry()
    rig.check_drained()


# --- jobs that share a picture ----------------------------------------------------------------------------------------

CROP = Crop(0.0, 0.0, 1.0, 1.0, 2, 2)


def decoded_by(rig: Rig, *jobs: int) -> set[str]:
    """The decode workers that hold these jobs."""
    return {worker.name.decode() for worker in rig.core.cpu_workers() for job in jobs if holds(worker, job)}


def holds(worker: Worker, number: int) -> bool:
    return any(job.admit.job == number for lease in worker.leases.values() for job in lease.jobs)


def test_the_jobs_of_one_picture_go_to_one_decode_worker_in_a_row():
    rig = Rig(plan("a"), plan("b"), plan("c"))
    for _ in range(3):
        rig.worker("decode")
    parts = [PicturePart(7), PicturePart(8), PicturePart(7)]
    first, other, second = (rig.admit(name, part=part) for name, part in zip("abc", parts, strict=True))
    rig.step()
    assert len(decoded_by(rig, first, second)) == 1
    assert decoded_by(rig, other) != decoded_by(rig, first)
    crew(rig, "a", "b", "c")
    rig.run_dry()
    assert rig.answered == dict.fromkeys((first, other, second), 1)
    rig.check_drained()


def test_what_is_cut_out_goes_to_who_decoded_the_picture_while_that_has_room():
    rig = Rig(plan("a"), plan("b"), kept=1)
    workers = [rig.worker("decode") for _ in range(3)]
    root = rig.admit("a", part=PicturePart(7, None, (Selection(9),)))
    rig.step()
    (who,) = decoded_by(rig, root)
    first = next(worker for worker in workers if worker.name == who)
    rig.finish(first)
    for _ in range(2):
        rig.admit("a")
        rig.step()
    child = rig.admit("b", part=PicturePart(7, CROP))
    rig.step()
    assert decoded_by(rig, child) == {who}
    rig.core.ledger.pictures.all_cut(7)
    crew(rig, "a", "b")
    rig.run_dry()
    assert rig.refused == {}
    rig.check_drained()


def test_the_jobs_of_a_picture_that_killed_a_worker_are_tried_one_by_one():
    rig = Rig(plan("a"), plan("b"))
    worker = rig.worker("decode")
    jobs = [rig.admit(name, part=PicturePart(7)) for name in "ab"]
    rig.step()
    assert decoded_by(rig, *jobs) == {worker.name}
    rig.kill(worker)
    fresh = rig.worker("decode")
    rig.step()
    assert [len(found.leases) for found in rig.core.cpu_workers()] == [1]
    rig.finish(fresh)
    crew(rig, "a", "b")
    rig.run_dry()
    assert rig.answered == dict.fromkeys(jobs, 1)
    rig.check_drained()
