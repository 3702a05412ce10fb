"""The dispatcher's decisions one by one: bounds, order, fairness, deaths, restarts. No clock, no socket."""

from __future__ import annotations

import gc

import pytest

from parallel_infer.dispatcher.jobs import Job, JobState
from parallel_infer.ipc.messages import CloseModel, InferLease, SlotFate, WorkerReady
from tests.dispatcher.core_rig import FakeWorker, Rig, plan


def crew(rig: Rig, *models: str) -> tuple[FakeWorker, FakeWorker]:
    """One decode worker and one postprocess worker, and an instance of each model; the first instance, the decoder."""
    decoder = rig.worker("decode")
    rig.worker("postprocess")
    instances = [rig.worker("infer", model) for model in models or ("m",)]
    return instances[0], decoder


def codes(rig: Rig) -> dict[int, str]:
    return {job: message.code for job, message in rig.refused.items()}


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


def test_jobs_of_one_model_go_by_priority_then_deadline_then_age():
    rig = Rig(plan())
    decoder = rig.worker("decode")
    late = rig.admit(timeout=50)
    early = rig.admit(timeout=10)
    urgent = rig.admit(timeout=90, priority=5)
    lazy = rig.admit(timeout=1, priority=-5)
    same_1, same_2 = rig.admit(timeout=20), rig.admit(timeout=20)
    while rig.core.leasing.models["m"].queued or decoder.leases:
        rig.step()
        rig.finish(decoder, 0.01)
    assert rig.decoded_order == [urgent, early, same_1, same_2, late, lazy]


def test_latest_replaces_the_queued_job_of_the_same_source_only():
    rig = Rig(plan(), plan("n"))
    plain = rig.admit()
    first, other = rig.admit(source="a"), rig.admit(source="b")
    elsewhere = rig.admit("n", source="c")
    second = rig.admit(source="a")
    rig.admit(source="c")  # of another model than the one that waits under this name
    assert codes(rig) == {first: "DROPPED"}
    assert rig.refused[first].slot == SlotFate.FREE
    crew(rig, "m", "n")
    rig.run_dry()
    assert {plain, other, elsewhere, second} <= rig.answered.keys()
    rig.check_drained()


def test_latest_leaves_a_job_alone_that_is_being_decoded():
    rig = Rig(plan())
    crew(rig)
    first = rig.admit(source="a")
    rig.step()
    second = rig.admit(source="a")
    assert not rig.refused
    rig.run_dry()
    assert rig.answered == {first: 1, second: 1}


def test_latest_takes_the_older_ones_place_in_a_full_queue():
    rig = Rig(plan(queue_size=1))
    first = rig.admit(source="a")
    second = rig.admit(source="a")
    third = rig.admit(source="b")
    assert codes(rig) == {first: "DROPPED", third: "RESOURCE_UNAVAILABLE"}
    assert second in rig.core.ledger.jobs


def decode_one_by_one(rig: Rig, decoder: FakeWorker, count: int) -> list[str]:
    """The models of the next decoded jobs, with the row rings kept empty."""
    for _ in range(count):
        rig.step()
        rig.finish(decoder, 0.002)
        rig.now += 0.002
        rig.step()
        for worker in rig.workers.values():
            while worker is not decoder and worker.leases:
                rig.finish(worker)
                rig.step()
    return [rig.admitted[job].model for job in rig.decoded_order[:count]]


def test_a_flood_on_one_model_does_not_starve_another():
    rig = Rig(plan("flood"), plan("drop"))
    _, decoder = crew(rig, "flood", "drop")
    for _ in range(300):
        rig.admit("flood")
    decode_one_by_one(rig, decoder, 100)
    rig.decoded_order.clear()
    lonely = rig.admit("drop")
    decode_one_by_one(rig, decoder, 8)
    assert lonely in rig.decoded_order[:4]


def test_two_floods_share_the_decoders_by_weight():
    rig = Rig(plan("heavy", weight=3.0), plan("light", weight=1.0))
    _, decoder = crew(rig, "heavy", "light")
    for _ in range(200):
        rig.admit("heavy")
        rig.admit("light")
    order = decode_one_by_one(rig, decoder, 120)
    assert 85 <= order.count("heavy") <= 95
    longest = max(len(run) for run in "".join("h" if name == "heavy" else "L" for name in order).split("L"))
    assert longest <= 6


def test_an_idle_model_saves_up_no_share():
    rig = Rig(plan("busy"), plan("idle"))
    _, decoder = crew(rig, "busy", "idle")
    for _ in range(400):
        rig.admit("busy")
    decode_one_by_one(rig, decoder, 150)
    rig.decoded_order.clear()
    for _ in range(100):
        rig.admit("idle")
    order = decode_one_by_one(rig, decoder, 60)
    assert order.count("busy") >= 25


def test_jobs_of_a_dead_worker_are_worked_on_again():
    rig = Rig(plan())
    infer, decoder = crew(rig)
    jobs = [rig.admit() for _ in range(3)]
    rig.step()
    decoder = rig.replace(decoder)
    rig.step()
    while decoder.leases:
        rig.finish(decoder)
        rig.step()
    assert infer.leases
    rig.replace(infer)
    rig.run_dry()
    assert rig.answered == dict.fromkeys(jobs, 1)
    rig.check_drained()


@pytest.mark.parametrize("stage", ["decode", "infer", "postprocess"])
def test_a_job_that_kills_two_workers_is_poison(stage):
    rig = Rig(plan())
    for name in ("decode", "infer", "postprocess"):
        rig.worker(name, "m" if name == "infer" else "")
    job = rig.admit()
    for _ in range(2):
        step_until(rig, stage, job)
        holder = next(worker for worker in rig.workers.values() if job in flat(rig.jobs_of(worker)))
        rig.replace(holder)
    assert codes(rig) == {job: "POISON"}
    rig.run_dry()
    rig.check_drained()


@pytest.mark.parametrize("stage", ["decode", "infer", "postprocess"])
def test_poison_takes_nobody_with_it(stage):
    rig = Rig(plan(max_batch=4, rows=32))
    for name in ("decode", "infer", "postprocess"):
        rig.worker(name, "m" if name == "infer" else "")
    jobs = [rig.admit() for _ in range(12)]
    poison = jobs[1]
    for _ in range(500):
        rig.step()
        for worker in list(rig.workers.values()):
            if not worker.leases:
                continue
            if worker.stage == stage and poison in rig.jobs_of(worker)[0]:  # it works on its first lease
                rig.replace(worker)
            else:
                rig.finish(worker)
    assert codes(rig) == {poison: "POISON"}
    assert rig.answered == dict.fromkeys(set(jobs) - {poison}, 1)
    rig.check_drained()


def test_poison_is_found_behind_work_that_was_done_but_not_reported():
    rig = Rig(plan(rows=32))
    for name in ("decode", "infer", "postprocess"):
        rig.worker(name, "m" if name == "infer" else "")
    jobs = [rig.admit() for _ in range(12)]
    poison = jobs[1]
    for _ in range(500):
        rig.step()
        for worker in list(rig.workers.values()):
            if worker.stage == "decode" and poison in flat(rig.jobs_of(worker)[:2]):
                rig.replace(worker)  # the report of the lease before goes with it
            elif worker.leases:
                rig.finish(worker)
    assert codes(rig) == {poison: "POISON"}
    rig.check_drained()


def flat(lists: list[list[int]]) -> list[int]:
    return [job for jobs in lists for job in jobs]


def step_until(rig: Rig, stage: str, job: int) -> None:
    """Let everybody work until a worker of that stage holds the job."""
    for _ in range(100):
        rig.step()
        for worker in list(rig.workers.values()):
            if worker.stage == stage and job in flat(rig.jobs_of(worker)):
                return
        for worker in list(rig.workers.values()):
            if worker.leases:
                rig.finish(worker)
    raise AssertionError(f"job {job} never came to {stage}")


def test_a_worker_that_does_not_return_is_killed_once_and_its_job_saved():
    rig = Rig(plan(), stage_limit=5.0)
    _, decoder = crew(rig)
    job = rig.admit(timeout=60)
    rig.step()
    rig.pass_time(4.9)
    assert not rig.kills
    timer = rig.core.next_timer()
    assert timer is not None
    rig.now = timer
    rig.step()
    rig.pass_time(1)
    assert rig.kills == [decoder.name]
    rig.replace(decoder)
    rig.run_dry()
    assert rig.answered == {job: 1}


def test_a_worker_that_overstays_a_deadline_is_killed_soon_after_it():
    rig = Rig(plan(), stage_limit=30.0)
    _, decoder = crew(rig)
    rig.admit(timeout=2.0)
    rig.step()
    rig.pass_time(2.0)
    assert not rig.kills
    rig.pass_time(0.5)
    assert rig.kills == [decoder.name]


def test_a_hung_worker_is_killed_also_where_every_look_at_it_comes_late():
    """A machine that is busy all the time excuses what it takes, and no more."""
    rig = Rig(plan(), stage_limit=5.0)
    _, decoder = crew(rig)
    rig.admit(timeout=60)
    rig.step()
    began = rig.now
    while not rig.kills and rig.now < began + 60:
        timer = rig.core.next_timer()
        assert timer is not None
        rig.now = timer + 0.5
        rig.step()
    assert rig.kills == [decoder.name]
    assert rig.now - began > 5.0


def test_reports_of_a_dead_worker_change_nothing():
    rig = Rig(plan())
    infer, decoder = crew(rig)
    job = rig.admit()
    rig.step()
    stale = decoder.leases[0]
    rig.replace(decoder)
    rig.step()
    ghost = FakeWorker("ghost", "decode", leases=[stale])
    rig.finish(ghost)
    rig.step()
    assert not infer.leases
    rig.run_dry()
    assert rig.answered == {job: 1}
    rig.check_drained()


def test_after_a_restart_nothing_is_handed_out_before_all_living_workers_announced_themselves():
    rig = Rig(plan())
    rig.core.expect(["decode-1", "infer-9"], rig.now)
    rig.admit()
    decoder = rig.worker("decode")
    assert decoder.name == "decode-1"
    rig.step()
    assert not decoder.leases
    rig.core.worker_down(b"infer-9", rig.now)  # dead and reaped: it writes nowhere any more
    rig.step()
    assert decoder.leases


def test_a_worker_that_announced_itself_first_is_not_waited_for():
    rig = Rig(plan())
    decoder = rig.worker("decode")
    rig.core.expect([decoder.name], rig.now)
    assert not rig.core.awaited


def test_a_hung_worker_does_not_keep_a_new_dispatcher_waiting_for_ever():
    rig = Rig(plan(), stage_limit=5.0)
    rig.core.expect(["infer-9"], rig.now)
    rig.step()
    rig.pass_time(6)
    assert rig.kills == ["infer-9"]


def test_a_wait_that_lost_its_rows_does_not_spin():
    rig = Rig(plan(max_batch=4, delay=0.01))
    infer, decoder = crew(rig)
    rig.core.worker_ready(infer.name.encode(), WorkerReady("infer", "m", {1: 0.01, 4: 0.011}))
    job, upstream = rig.admit(), rig.admit()
    rig.step()
    rig.finish(decoder, 0.001)
    rig.step()
    assert not infer.leases  # it waits for the second
    rig.core.cancel(job)
    rig.core.cancel(upstream)
    rig.finish(decoder)
    rig.pass_time(0.1)
    timer = rig.core.next_timer()
    assert timer is None or timer > rig.now


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


def backlogged(rig: Rig, seconds: float) -> None:
    """A model with twenty jobs of priority 1 in its queue that has taken so many seconds for each job for a while."""
    infer, decoder = crew(rig)
    for _ in range(int(4.0 / seconds)):
        while rig.core.leasing.models["m"].queued < 20:
            rig.admit(priority=1)
        rig.step()
        while decoder.leases:
            rig.finish(decoder)
            rig.step()
        rig.pass_time(seconds * len(rig.jobs_of(infer)[0]))
        rig.finish(infer, seconds * len(rig.jobs_of(infer)[0]))
        rig.step()
        for worker in rig.workers.values():
            if worker.stage == "postprocess" and worker.leases:
                rig.finish(worker)
    while rig.core.leasing.models["m"].queued < 20:
        rig.admit(priority=1)


def test_a_job_that_would_only_miss_its_deadline_is_refused_at_once():
    rig = Rig(plan())
    backlogged(rig, 0.1)
    served = rig.core.leasing.models["m"]
    wait = served.jobs / served.progress.best(rig.now)
    hopeless, patient = rig.admit(timeout=0.9 * wait), rig.admit(timeout=2000.0)
    urgent = rig.admit(timeout=0.9 * wait, priority=5)
    assert codes(rig) == {hopeless: "RESOURCE_UNAVAILABLE"}
    assert "would miss its deadline" in rig.refused[hopeless].text
    assert {patient, urgent} <= set(rig.core.ledger.jobs)


def test_an_outage_is_no_pace():
    rig = Rig(plan())
    backlogged(rig, 0.1)
    before = rig.core.leasing.models["m"].progress.best(rig.now)
    decoder = next(worker for worker in rig.workers.values() if worker.stage == "decode")
    infer = next(worker for worker in rig.workers.values() if worker.stage == "infer")
    rig.replace(decoder)
    rig.stand_still(5.0)
    while infer.leases:
        rig.finish(infer, 5.0)
        rig.step()
    assert rig.core.leasing.models["m"].progress.best(rig.now) >= before * 0.99


def test_nothing_is_refused_for_its_deadline_while_the_queue_is_short():
    rig = Rig(plan())
    backlogged(rig, 0.1)
    rig.run_dry()
    job = rig.admit(timeout=0.05)
    assert job not in rig.refused


def taking_a_second(rig: Rig) -> tuple[FakeWorker, FakeWorker]:
    """A crew whose batches are known to take a second each."""
    decoder = rig.worker("decode")
    rig.worker("postprocess")
    return rig.worker("infer", "m", {1: 1.0, 2: 1.0}), decoder


def decode_all(rig: Rig, decoder: FakeWorker) -> None:
    """Everything that can be decoded now is."""
    while decoder.leases:
        rig.finish(decoder)
        rig.step()


def test_what_would_be_late_is_passed_over_but_not_dropped():
    rig = Rig(plan(max_batch=2, rows=8, outputs=2))
    infer, decoder = taking_a_second(rig)
    first = [rig.admit() for _ in range(2)]
    rig.step()
    decode_all(rig, decoder)
    assert rig.jobs_of(infer) == [first]
    late, fine = rig.admit(timeout=1.0), [rig.admit(timeout=30.0) for _ in range(4)]
    rig.step()
    decode_all(rig, decoder)
    assert rig.jobs_of(infer) == [first, fine[:2]]
    assert late in rig.core.ledger.jobs
    rig.run_dry(0.5)
    assert codes(rig) == {late: "DEADLINE_EXCEEDED"}
    assert late not in rig.inferred
    assert {*first, *fine} <= set(rig.answered)
    rig.check_drained()


def test_what_seems_late_has_its_turn_where_nobody_else_waits():
    rig = Rig(plan(max_batch=2, rows=8, outputs=2))
    infer, decoder = taking_a_second(rig)
    late = rig.admit(timeout=0.5)
    rig.step()
    decode_all(rig, decoder)
    assert rig.jobs_of(infer) == [[late]]
    rig.run_dry()
    assert late in rig.answered


def test_a_row_that_became_late_is_given_to_others_and_the_job_waits_on():
    rig = Rig(plan(max_batch=2, rows=4, outputs=3))
    infer, decoder = taking_a_second(rig)
    first = [rig.admit() for _ in range(4)]  # both batches that an instance may hold
    rig.step()
    decode_all(rig, decoder)
    assert rig.jobs_of(infer) == [first[:2], first[2:]]
    rig.finish(infer, 1.0)
    served = rig.core.leasing.models["m"]
    aging = rig.admit(timeout=3.0)
    rig.step()
    decode_all(rig, decoder)
    assert list(served.ready.values()) == [rig.core.ledger.jobs[aging]]
    rig.pass_time(2.0)
    fresh = [rig.admit(timeout=30.0) for _ in range(2)]
    rig.step()
    decode_all(rig, decoder)
    assert [sorted(jobs) for jobs in rig.jobs_of(infer)] == [first[2:], fresh]
    assert rig.core.ledger.jobs[aging].state == JobState.QUEUED
    rig.finish(infer, 0.01)  # it was quicker than usual: there is time after all
    rig.finish(infer, 0.01)
    rig.run_dry()
    assert aging in rig.answered
    rig.check_drained()


def test_answers_of_a_postprocessor_that_died_are_doubtful_and_may_be_asked_for_again():
    rig = Rig(plan())
    crew(rig)
    job = rig.admit()
    rig.run_dry()
    worker = next(worker for worker in rig.workers.values() if worker.stage == "postprocess")
    rig.replace(worker)
    assert rig.doubtful == {job}
    rig.core.admit(rig.admitted[job], rig.now)
    rig.run_dry()
    assert rig.answered == {job: 2}
    rig.check_drained()
