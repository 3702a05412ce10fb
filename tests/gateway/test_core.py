"""The gateway's core without sockets and processes: who gets which reply, and when a slot is free again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from parallel_infer import protocol
from parallel_infer.ipc.messages import (
    Admit,
    AnswersInDoubt,
    CancelJob,
    GatewayUp,
    JobError,
    Listening,
    ModelClosed,
    Overdue,
    Refused,
    SlotFate,
    Started,
)
from parallel_infer.shm.ring import Ring, byte_ring
from tests.gateway.core_rig import ADDRESS, LARGE, SMALL, TIMEOUT, Rig

HELD, FREE = SlotFate.HELD, SlotFate.FREE


# --- jobs -------------------------------------------------------------------------------------------------------------


def test_an_answer_goes_to_who_asked_and_frees_the_slot(rig: Rig) -> None:
    first, second = rig.infer(b"a"), rig.infer(b"b", timeout=2.0, priority=3)
    one, two = rig.told(Admit)
    assert (one.deadline - rig.now, two.deadline - rig.now, two.priority) == (TIMEOUT, 2.0, 3)
    rig.answer(two.job, b"two")
    assert (first.replies, second.answers) == (0, [b"two"])
    rig.answer(one.job, b"one")
    rig.answer(one.job, b"once more")  # the same batch, run again by a worker that took over
    assert first.answers == [b"one"]
    rig.check_drained()


@pytest.mark.parametrize("slot", [FREE, HELD])
def test_the_slot_of_a_refused_job_is_kept_for_as_long_as_a_worker_may_read_it(rig: Rig, slot: SlotFate) -> None:
    request = rig.infer()
    job = rig.admitted().job
    rig.refuse(job, slot=slot)
    assert request.code == "BAD_INPUT"
    assert rig.core.own_status()["held"] == (slot == HELD)
    rig.release(job)
    rig.check_drained()


def test_a_worker_may_fail_a_job(rig: Rig) -> None:
    request = rig.infer()
    rig.take(JobError(rig.admitted().job, "INTERNAL", "no answer"))
    assert request.code == "INTERNAL"
    rig.check_drained()


def test_the_deadline_is_kept_where_the_dispatcher_does_not_keep_it(rig: Rig) -> None:
    request = rig.infer(timeout=1.0)
    job = rig.admitted().job
    rig.pass_time(1.0)
    assert request.replies == 0
    rig.pass_time(0.1)
    assert request.code == "DEADLINE_EXCEEDED"
    assert rig.told(Overdue) == [Overdue(job)]
    rig.answer(job)  # too late
    rig.check_drained()


def test_a_new_dispatcher_is_told_what_was_cancelled_before_it(rig: Rig) -> None:
    request = rig.infer(id=8)
    admit = rig.admitted()
    rig.ask(protocol.Cancel, job=8)
    assert rig.told(CancelJob) == [CancelJob(admit.job)]  # lost with whom it was sent to
    rig.new_dispatcher()
    rig.outbox.flush()
    assert rig.outbox.sent[-2:] == [admit, CancelJob(admit.job)]
    rig.refuse(admit.job, "DROPPED")
    assert request.code == "DROPPED"
    rig.check_drained()


def test_a_job_is_cancelled_before_it_is_sent_or_by_the_dispatcher(rig: Rig) -> None:
    request = rig.infer(id=7)
    rig.ask(protocol.Cancel, job=7)
    assert request.code == "DROPPED"
    assert rig.told(Admit) == []
    request = rig.infer(id=8)
    job = rig.admitted().job
    rig.ask(protocol.Cancel, b"b", job=8)  # of somebody else
    rig.ask(protocol.Cancel, job=7)  # answered already
    assert rig.told(CancelJob) == []
    rig.ask(protocol.Cancel, job=8)
    assert rig.told(CancelJob) == [CancelJob(job)]
    assert request.replies == 0
    rig.refuse(job, "DROPPED")
    rig.check_drained()


def test_a_request_that_is_sent_twice_is_one_job(rig: Rig) -> None:
    request = rig.infer(id=7)
    again = rig.infer(id=7)
    rig.answer(rig.admitted().job)
    assert (request.replies, again.replies) == (1, 0)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "none"}, "UNKNOWN_MODEL"),
        ({"payload": None}, "BAD_INPUT"),
        ({"payload": b""}, "BAD_INPUT"),
        ({"payload": bytes(LARGE + 1)}, "BAD_INPUT"),
        ({"kind": "frame"}, "BAD_INPUT"),
        ({"slot": protocol.LentSlot(1, 0, 1)}, "BAD_INPUT"),
        ({"slot": protocol.LentSlot(1, 0, LARGE + 1)}, "BAD_INPUT"),
    ],
)
def test_what_cannot_be_admitted_gets_its_error_at_once(rig: Rig, fields: dict[str, Any], code: str) -> None:
    assert rig.infer(**fields).code == code
    assert rig.told(Admit) == []
    rig.check_drained()


def test_a_closed_model_is_unknown(rig: Rig) -> None:
    rig.take(ModelClosed("m"))
    assert rig.infer().code == "UNKNOWN_MODEL"


def test_without_a_free_slot_of_any_size_that_fits_a_job_is_refused(rig: Rig) -> None:
    assert [rig.infer().replies for _ in range(6)] == [0] * 6  # four small slots, two large ones
    assert rig.infer().code == "RESOURCE_UNAVAILABLE"
    assert rig.core.own_status()["counts"]["rejected"] == 1
    rig.answer(rig.told(Admit)[0].job)
    assert rig.infer(payload=bytes(LARGE)).code == "RESOURCE_UNAVAILABLE"
    assert rig.infer().replies == 0


def test_no_client_takes_more_than_its_part_of_a_queue(rig: Rig) -> None:
    rig.open_model("m", queue_size=4)
    rig.infer(b"b")
    assert [rig.infer(b"a").replies for _ in range(2)] == [0, 0]
    refused = rig.infer(b"a")
    assert refused.code == "RESOURCE_UNAVAILABLE"
    assert "option queue_size" in refused.errors[0].message
    for admit in rig.told(Admit):
        rig.answer(admit.job)
    rig.pass_time(2.0)  # nobody else wants anything any more
    assert [rig.infer(b"a").replies for _ in range(4)] == [0] * 4


def test_while_a_queue_is_full_a_client_with_jobs_in_it_is_refused_from_the_header(rig: Rig) -> None:
    first = rig.infer()
    job = rig.admitted().job
    refused = rig.infer()
    rig.take(Refused(rig.admitted().job, "RESOURCE_UNAVAILABLE", "it is full", FREE, "queue_full", 0.25))
    assert (refused.errors[0].reason, refused.errors[0].retry_after) == ("queue_full", 0.25)
    rig.pass_time(0.1)
    error = rig.infer().errors[0]
    assert (error.code, error.message, error.reason) == ("RESOURCE_UNAVAILABLE", "it is full", "queue_full")
    assert error.retry_after == pytest.approx(0.15)
    assert rig.told(Admit) == []
    other = rig.infer(b"b")  # who has none there may try
    rig.answer(rig.admitted().job)
    assert other.answers
    rig.pass_time(0.15)
    rig.infer()
    rig.answer(rig.admitted().job)
    rig.answer(job)
    assert first.answers
    rig.check_drained()


def test_a_refusal_for_a_deadline_refuses_nobody_else(rig: Rig) -> None:
    rig.infer()
    job = rig.admitted().job
    rig.infer(timeout=0.5)
    rig.take(Refused(rig.admitted().job, "RESOURCE_UNAVAILABLE", "too late", FREE, "", 0.25))
    rig.infer()
    rig.answer(rig.admitted().job)
    rig.answer(job)
    rig.check_drained()


def test_a_frame_replaces_those_of_its_own_client_and_source_only(rig: Rig) -> None:
    for client in (b"a", b"b"):
        rig.infer(client, source="door", drop="latest")
    rig.infer(b"a", source="door")
    sources = [admit.source for admit in rig.told(Admit)]
    assert sources[0] != sources[1]
    assert sources[2] == ""


def attached(grant: dict[str, Any], *payloads: bytes) -> list[protocol.LentSlot]:
    """The slots of a lent ring, with payloads in them."""
    ring = Ring.attach(byte_ring(grant["segment"], grant["slots"], grant["size"]))
    for index, payload in enumerate(payloads):
        ring.arrays["bytes"][index, : len(payload)] = np.frombuffer(payload, np.uint8)
    ring.close()
    return [protocol.LentSlot(grant["ring"], index, len(payload)) for index, payload in enumerate(payloads)]


def test_a_picture_that_killed_workers_is_not_admitted_again(rig: Rig) -> None:
    poison, copy, good = rig.infer(payload=b"bad!"), rig.infer(payload=b"bad!"), rig.infer(payload=b"good")
    first, second, third = rig.told(Admit)
    rig.refuse(first.job, "POISON")
    assert (poison.code, copy.code, good.replies) == ("POISON", "POISON", 0)
    assert rig.told(CancelJob) == [CancelJob(second.job, held=True)]
    rig.release(second.job)
    assert rig.infer(payload=b"bad!").code == "POISON"
    assert rig.told(Admit) == []
    rig.answer(third.job)
    rig.check_drained()


@pytest.mark.parametrize("door", [True, False])
def test_a_lent_picture_that_killed_workers_is_known_where_nobody_changes_it(rig: Rig, door: bool) -> None:
    ring = rig.ask(protocol.Lend, slots=3, size=4, is_door=door).results[0]
    slots = attached(ring, b"bad!", b"bad!", b"good")
    poison, copy, good = (rig.infer(payload=None, slot=slot, is_door=door) for slot in slots)
    first, second, third = rig.told(Admit)
    rig.refuse(first.job, "POISON")
    assert (poison.code, copy.replies, good.replies) == ("POISON", int(door), 0)
    again = rig.infer(payload=None, slot=slots[0], is_door=door)
    assert [error.code for error in again.errors] == ["POISON"] * door  # others may have written something else there
    for admit in [*([] if door else [second, *rig.told(Admit)]), third]:
        rig.answer(admit.job)
    if door:
        rig.release(second.job)
    rig.check_drained()


# --- a dispatcher or a worker that dies -------------------------------------------------------------------------------


def test_a_new_dispatcher_gets_every_job_that_has_no_reply(rig: Rig) -> None:
    late, open_ = rig.infer(timeout=1.0), rig.infer(timeout=100.0)
    status = rig.ask(protocol.Status)
    admit = rig.told(Admit)[1]
    rig.pass_time(2.0)
    assert (late.code, rig.core.own_status()["held"]) == ("DEADLINE_EXCEEDED", 1)
    rig.told(object)
    rig.new_dispatcher()
    assert rig.told(object) == [GatewayUp(2), admit]
    assert status.code == "SERVER_UNAVAILABLE"
    assert rig.core.own_status()["held"] == 0  # nobody works on what an earlier dispatcher gave out
    rig.answer(admit.job)
    assert open_.code == ""
    rig.check_drained()
    assert rig.supervisor.told == [Started(), Listening((ADDRESS,))]  # it is up, once; then it lets clients in


def test_answers_that_may_have_died_with_their_worker_are_asked_for_again(rig: Rig) -> None:
    rig.infer()
    request = rig.infer()
    first, second = rig.told(Admit)
    rig.answer(first.job)
    rig.take(AnswersInDoubt((first.job, second.job)))
    assert rig.told(Admit) == [second]
    rig.answer(second.job)  # it was alive; the second run may still read the payload
    assert request.answers == [b"answer"]
    assert rig.told(CancelJob) == [CancelJob(second.job, held=True)]
    assert rig.core.own_status()["held"] == 1
    rig.release(second.job)
    rig.check_drained()


# --- lent rings -------------------------------------------------------------------------------------------------------


def test_a_lent_slot_is_its_clients_alone_and_is_taken_back_when_it_is_not_used(rig: Rig) -> None:
    (lent,) = rig.ask(protocol.Lend, slots=2, size=SMALL).results
    ring = lent["ring"]
    assert rig.ask(protocol.Lend, is_local=False, slots=1, size=1).code == "BAD_INPUT"
    too_large = rig.ask(protocol.Lend, slots=1, size=LARGE + 1).errors[0]
    assert (too_large.code, "option max_payload_mb" in too_large.message) == ("BAD_INPUT", True)
    assert rig.ask(protocol.Lend, b"b", slots=7, size=SMALL).code == "RESOURCE_UNAVAILABLE"
    rig.infer(payload=None, slot=protocol.LentSlot(ring, 1, 100))
    admit = rig.admitted()
    assert (admit.ref.ring, admit.ref.index, admit.ref.size) == (lent["segment"], 1, 100)
    rig.answer(admit.job)
    assert rig.infer(b"b", None, slot=protocol.LentSlot(ring, 1, 100)).errors[0].reason == "unknown_ring"
    rig.pass_time(lent["ttl"] - 1)
    assert rig.ask(protocol.Lend, ring=ring).results == [{"ring": ring, "ttl": lent["ttl"]}]
    rig.pass_time(lent["ttl"] - 1)
    assert rig.core.own_status()["lent_bytes"] == 2 * SMALL
    rig.pass_time(2.0)
    assert rig.core.own_status()["lent_bytes"] == 0
    assert rig.ask(protocol.GiveBack, ring=ring).errors[0].reason == "unknown_ring"
    rig.check_drained()


# --- everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_everybody_gets_one_reply_and_every_slot_comes_back(seed: int) -> None:
    rig, chance = Rig(), random.Random(seed)
    try:
        inside: dict[int, Admit] = {}
        for _ in range(300):
            _step(rig, inside, chance)
        rig.new_dispatcher()
        for admit in rig.told(Admit):
            rig.answer(admit.job)
            rig.release(admit.job)  # of a second run
        rig.check_drained()
    finally:
        rig.close()


def _step(rig: Rig, inside: dict[int, Admit], chance: random.Random) -> None:
    """Something that may happen."""
    inside |= {admit.job: admit for admit in rig.told(Admit)}
    action, job = chance.randrange(9), chance.choice([*inside, 0])
    if action < 3:
        size, client = chance.choice([10, SMALL + 1]), chance.choice([b"a", b"b", b"c"])
        rig.infer(client, chance.randbytes(size), timeout=chance.choice([0.5, 5.0, 50.0]))
    elif action == 3:
        rig.answer(job)
    elif action == 4:
        rig.refuse(job, slot=chance.choice([FREE, HELD]))
    elif action == 5:
        rig.release(job)
    elif action == 6:
        rig.pass_time(chance.random())
    elif action == 7:
        rig.take(AnswersInDoubt(tuple(chance.sample(sorted(inside), min(3, len(inside))))))
    elif not chance.randrange(10):
        rig.new_dispatcher()
