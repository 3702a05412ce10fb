"""Whom the dispatcher takes first, by priority, deadline, share and source, and whom it refuses as too late."""

from __future__ import annotations

from parallel_infer.dispatcher.jobs import JobState
from parallel_infer.ipc.messages import SlotFate
from tests.dispatcher.core_rig import FakeWorker, Rig, codes, crew, plan


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
