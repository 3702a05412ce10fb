"""The dispatcher when workers die or hang, jobs kill them, and it is a new one itself. No clock, no socket."""

from __future__ import annotations

import pytest

from parallel_infer.ipc.messages import WorkerReady
from tests.dispatcher.core_rig import FakeWorker, Rig, codes, crew, plan


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


def test_whoever_was_begun_may_have_killed_an_instance_and_runs_alone_next():
    rig = Rig(plan(max_batch=4, preferred=4, rows=32), at_once=2)
    infer, decoder = crew(rig)
    jobs = [rig.admit() for _ in range(12)]
    while len(infer.leases) < 2:
        rig.step()
        if decoder.leases:
            rig.finish(decoder)
    poison = jobs[5]  # in the second batch
    assert [poison in batch for batch in rig.jobs_of(infer)] == [False, True]
    kills = 0
    for _ in range(200):
        rig.step()
        for worker in list(rig.workers.values()):
            begun = rig.jobs_of(worker)[:2] if worker.stage == "infer" else []
            if poison in flat(begun):
                if kills:
                    assert begun == [[poison]]
                rig.replace(worker)
                kills += 1
            elif worker.leases:
                rig.finish(worker)
    assert kills == 2
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
