"""How much is decoded ahead: as much as the instances will need soon, and then in groups. The rest waits in order."""

from __future__ import annotations

from parallel_infer.dispatcher.model_queue import GROUP
from parallel_infer.ipc.messages import DecodeLease
from tests.dispatcher.core_rig import FakeWorker, Rig, plan

RUN, DECODE = 0.02, 0.001  # seconds


def leases(worker: FakeWorker) -> list[DecodeLease]:
    return [lease for lease in worker.leases if isinstance(lease, DecodeLease)]


def stocked(queue_size: int = 1000) -> tuple[Rig, FakeWorker, FakeWorker]:
    """A server whose one instance is busy and has rows for long enough, a decode worker at rest, and jobs that wait."""
    rig = Rig(plan(rows=64, preferred=1, queue_size=queue_size))
    decoder, instance = rig.worker("decode"), rig.worker("infer", "m", {1: RUN})
    for _ in range(40):
        rig.admit()
    rig.step()
    while decoder.leases:
        rig.finish(decoder, DECODE)
        rig.step()
    return rig, decoder, instance


def test_what_no_instance_will_need_soon_waits_in_the_queue():
    rig, _, instance = stocked()
    served = rig.core.leasing.models["m"]
    assert len(instance.leases) == 2
    assert 1 <= len(served.ready) <= 2 * GROUP
    assert served.queued == 40 - 2 - len(served.ready)


def test_a_group_is_decoded_in_one_go_once_rows_run_short():
    rig, decoder, instance = stocked()
    while not decoder.leases:
        rig.finish(instance, RUN)
        rig.step()
    group = leases(decoder)
    assert len(group) == GROUP
    assert all(lease.patient for lease in group)


def test_an_urgent_job_is_decoded_before_those_that_wait():
    rig, decoder, instance = stocked()
    urgent = rig.admit(priority=1)
    rig.step()
    assert not decoder.leases
    before = len(rig.decoded_order)
    while not decoder.leases:
        rig.finish(instance, RUN)
        rig.step()
    rig.finish(decoder, DECODE)
    assert rig.decoded_order[before] == urgent


def test_nothing_is_held_back_while_an_instance_waits():
    rig = Rig(plan(rows=64, preferred=1))
    decoder = rig.worker("decode")
    rig.worker("infer", "m", {1: RUN})
    rig.admit()
    rig.step()
    assert [lease.patient for lease in leases(decoder)] == [False]


def test_a_full_queue_moves_on_while_there_are_rows():
    rig, decoder, _ = stocked(queue_size=10)
    served = rig.core.leasing.models["m"]
    while served.queued < 9:
        rig.admit()
    rig.step()
    assert not decoder.leases
    rig.admit()
    rig.step()
    assert decoder.leases


def test_a_decode_worker_that_dies_with_a_group_costs_nobody_an_answer():
    rig, decoder, instance = stocked()
    while not decoder.leases:
        rig.finish(instance, RUN)
        rig.step()
    rig.worker("postprocess")
    rig.replace(decoder)
    rig.run_dry()
    assert not rig.refused
    assert len(rig.answered) == 40
    rig.check_drained()
