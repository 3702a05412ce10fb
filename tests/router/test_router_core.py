"""The router's core: who gets a job, and what becomes of it when members are lost, stop, or say that they cannot."""

import pytest

from parallel_infer import protocol
from parallel_infer.router.core import Limits
from parallel_infer.router.membership import Patience
from tests.router.simulated_fleet import Fleet


def test_jobs_go_to_the_member_with_the_fewest_under_way():
    fleet = Fleet()
    quick, slow = fleet.add(1, seconds=0.01)[0], fleet.add(1, seconds=0.04)[0]
    for _ in range(200):
        fleet.infer()
        fleet.run(0.009)
    fleet.run(2.0)
    assert fleet.codes() == {"answered": 200}
    assert quick.done > 3 * slow.done > 0


def test_equals_take_turns():
    fleet = Fleet()
    servers = fleet.add(4)
    for _ in range(40):
        fleet.infer()
        fleet.run(0.05)
    assert [server.done for server in servers] == [10] * 4


def test_a_job_goes_where_its_model_is():
    fleet = Fleet()
    fleet.add(3)
    (other,) = fleet.add(1, models=("other",))
    for _ in range(5):
        fleet.infer("other")
    fleet.run(1.0)
    assert fleet.codes() == {"answered": 5}
    assert other.done == 5


def test_a_fan_goes_to_a_member_that_has_all_of_its_models():
    fleet = Fleet()
    fleet.add(2, models=("a",))
    (both,) = fleet.add(1, models=("a", "b"))
    both.models = ("a", "b", "a+b", "b + a")  # what a server takes besides its models
    fleet.infer("a+b")
    fleet.infer("b + a")
    fleet.run(4.0)
    assert fleet.codes() == {"answered": 2}
    refused = fleet.infer("a+c")
    assert refused.failure is not None
    assert refused.code == "UNKNOWN_MODEL"
    assert "One member" in refused.failure.message


def test_what_was_loaded_may_be_asked_for_at_once():
    fleet = Fleet()
    fleet.add(2)
    fleet.run(0.2)
    loaded = fleet.ask(protocol.LoadChain, name="new", steps="m")
    for _ in range(1000):
        fleet.run(0.0005)
        if loaded.replies:
            break
    assert sorted(loaded.found) == ["members", "name"]
    job = fleet.infer("new")
    fleet.run(0.5)
    assert job.code == "answered"


def test_the_file_of_a_model_is_where_the_model_is():
    fleet = Fleet()
    without, having = fleet.add(2)
    having.models = ("m", "m@file")
    for _ in range(4):
        fleet.infer("m@file")
    fleet.run(1.0)
    assert fleet.codes() == {"answered": 4}
    assert without.done == 0


def test_a_model_that_nobody_has_is_refused_at_once_and_named():
    fleet = Fleet()
    fleet.add(2, models=("m", "n"))
    fleet.run(4.0)
    wrong = fleet.infer("wrong")
    assert wrong.code == "UNKNOWN_MODEL"
    assert wrong.failure is not None
    assert "'wrong'" in wrong.failure.message
    assert "m, n" in wrong.failure.message


@pytest.mark.parametrize("end", ["kill", "freeze"])
def test_what_a_lost_member_had_goes_to_another(end: str):
    fleet = Fleet()
    lost, _ = fleet.add(2, seconds=0.05)
    jobs = [fleet.infer() for _ in range(20)]
    fleet.run(0.12)
    if end == "kill":
        lost.kill()
    else:
        lost.frozen = True
    fleet.run(4.0)
    assert [job.code for job in jobs] == ["answered"] * 20
    status = fleet.ask(protocol.Status)
    fleet.run(1.0)
    assert status.found["members"][lost.address]["state"] != "up"
    assert status.found["members"][lost.address]["sent_elsewhere"] > 0


def test_late_replies_of_a_member_that_was_given_up_are_dropped():
    fleet = Fleet()
    silent, _ = fleet.add(2, seconds=0.05)
    for _ in range(20):
        fleet.infer()
    fleet.run(0.01)
    silent.frozen = True
    fleet.run(2.0)
    silent.thaw()  # Request.answer fails on a second reply
    fleet.run(5.0)
    assert fleet.codes() == {"answered": 20}
    assert silent.done > 0


def test_with_most_lost_1_nothing_is_sent_again():
    fleet = Fleet(Limits(most_lost=1))
    lost, _ = fleet.add(2, seconds=0.05)
    for _ in range(10):
        fleet.infer()
    fleet.run(0.01)
    lost.kill()
    fleet.run(2.0)
    assert fleet.codes() == {"answered": 5, "POISON": 5}
    poisoned = next(request.failure for request in fleet.requests if request.failure)
    assert "most_lost" in poisoned.message
    assert lost.address in poisoned.message


def test_a_job_that_kills_its_members_is_poison():
    fleet = Fleet()
    servers = fleet.add(5, seconds=0.05)
    deadly = fleet.infer(timeout=30.0)
    for _ in range(400):
        for server in servers:
            if server.jobs:
                server.kill()
        fleet.run(0.01)
    assert deadly.code == "POISON"
    assert sum(not server.alive for server in servers) == 3


def test_where_nobody_is_there_a_job_waits_for_a_member():
    fleet = Fleet()
    (only,) = fleet.add(1)
    only.kill()
    fleet.run(0.5)
    job = fleet.infer(timeout=20.0)
    fleet.run(5.0)
    assert job.code == ""
    only.start()
    fleet.run(3.0)
    assert job.code == "answered"


def test_a_job_that_waited_in_vain_is_told_why_at_its_deadline():
    fleet = Fleet()
    (only,) = fleet.add(1)
    only.kill()
    fleet.run(0.5)
    started, job = fleet.now, fleet.infer(timeout=2.0)
    fleet.run(3.0)
    assert job.code == "SERVER_UNAVAILABLE"
    assert job.failure is not None
    assert only.address in job.failure.message
    assert "nobody listens" in job.failure.message
    assert 2.0 <= job.at - started < 2.1


def test_the_deadline_is_the_members_word_and_else_the_routers():
    fleet = Fleet(patience=Patience(stuck=0.0))
    fleet.add(1)[0].hangs = True
    started, job = fleet.now, fleet.infer(timeout=1.0)
    fleet.run(2.0)
    assert job.code == "DEADLINE_EXCEEDED"
    assert 1.0 <= job.at - started < 1.2


def test_a_job_is_sent_again_with_the_time_that_it_has_left():
    fleet = Fleet()
    lost, other = fleet.add(2, seconds=5.0)
    job = fleet.infer(timeout=10.0)
    fleet.run(2.0)
    first, second = (lost, other) if lost.jobs else (other, lost)
    first.kill()
    fleet.run(0.1)
    (again,) = (request for request in second.asked if isinstance(request, protocol.Infer))
    assert again.timeout is not None
    assert 7.8 < again.timeout < 8.1
    fleet.run(6.0)
    assert job.code == "answered"


@pytest.mark.parametrize("code", ["SERVER_UNAVAILABLE", "WORKER_LOST", "RESOURCE_UNAVAILABLE"])
def test_a_member_that_cannot_leaves_the_job_to_another(code: str):
    fleet = Fleet()
    refusing, _ = fleet.add(2)
    refusing.error = protocol.Error(id=0, code=code, message="not now")
    for _ in range(10):
        fleet.infer()
    fleet.run(1.0)
    assert fleet.codes() == {"answered": 10}


def test_no_room_anywhere_is_told_after_two_members():
    fleet = Fleet()
    servers = fleet.add(4)
    for server in servers:
        server.error = protocol.Error(id=0, code="RESOURCE_UNAVAILABLE", message="full", retry_after=0.3)
    job = fleet.infer()
    fleet.run(0.1)
    assert job.code == "RESOURCE_UNAVAILABLE"
    assert job.failure is not None
    assert job.failure.retry_after == 0.3
    assert sum(isinstance(request, protocol.Infer) for server in servers for request in server.asked) == 2


def test_workers_that_are_lost_everywhere_are_told_at_once():
    fleet = Fleet()
    for server in fleet.add(2):
        server.error = protocol.Error(id=0, code="WORKER_LOST", message="they keep dying")
    job = fleet.infer(timeout=60.0)
    fleet.run(0.1)
    assert job.code == "WORKER_LOST"


def test_a_server_that_restarts_a_part_is_asked_again():
    fleet = Fleet()
    (only,) = fleet.add(1)
    only.error = protocol.Error(id=0, code="SERVER_UNAVAILABLE", message="the server was restarting")
    job = fleet.infer()
    fleet.run(0.6)
    assert job.code == ""
    only.error = None
    fleet.run(1.0)
    assert job.code == "answered"


@pytest.mark.parametrize("code", ["BAD_INPUT", "INTERNAL", "POISON", "MADE_UP_LATER"])
def test_what_is_the_jobs_own_fault_is_passed_on(code: str):
    fleet = Fleet()
    for server in fleet.add(2):
        server.error = protocol.Error(id=0, code=code, message="wrong", reason="why")
    job = fleet.infer()
    fleet.run(0.1)
    assert job.code == code
    assert job.failure is not None
    assert (job.failure.message, job.failure.reason) == ("wrong", "why")


def test_a_member_that_lost_a_model_is_believed_and_others_are_asked():
    fleet = Fleet()
    changed, other = fleet.add(2)
    changed.models = ("n",)
    jobs = [fleet.infer() for _ in range(4)]
    fleet.run(0.5)
    assert [job.code for job in jobs] == ["answered"] * 4
    assert other.done == 4


def test_a_member_of_another_version_of_the_protocol_is_named_and_passed_over():
    fleet = Fleet()
    (newer, other) = fleet.add(2)
    newer.greeting_error = protocol.Error(id=0, code="BAD_INPUT", message="this server speaks version 2")
    newer.kill()  # and comes back as another one
    newer.start()
    fleet.run(3.0)
    jobs = [fleet.infer() for _ in range(4)]
    status = fleet.ask(protocol.Status)
    fleet.run(0.5)
    assert [job.code for job in jobs] == ["answered"] * 4
    assert (newer.done, other.done) == (0, 4)
    found = status.found["members"][newer.address]
    assert "does not speak version 1 of the protocol; it said: this server speaks version 2" in found["problem"]


def test_a_model_that_was_loaded_at_a_member_is_found():
    fleet = Fleet()
    (member,) = fleet.add(1)
    member.models = ("m", "new")
    fleet.run(2.0)
    job = fleet.infer("new")
    fleet.run(0.5)
    assert job.code == "answered"


def test_a_member_that_leaves_the_list_answers_what_it_has_and_gets_nothing_new():
    fleet = Fleet()
    leaving, _ = fleet.add(2, seconds=0.1)
    jobs = [fleet.infer() for _ in range(10)]
    fleet.run(0.05)
    fleet.list(without=(leaving,))
    jobs += [fleet.infer() for _ in range(10)]
    fleet.run(4.0)
    assert [job.code for job in jobs] == ["answered"] * 20
    assert leaving.done == 5
    assert not leaving.routes()
    status = fleet.ask(protocol.Status)
    fleet.run(0.1)
    assert leaving.address not in status.found["members"]


def test_a_server_that_stops_loses_nothing_and_comes_back():
    fleet = Fleet(Limits(most_lost=1))
    stopping, _ = fleet.add(2, seconds=0.05)
    jobs = [fleet.infer() for _ in range(10)]
    fleet.run(0.01)
    stopping.say_stopping()
    fleet.run(0.05)
    jobs += [fleet.infer() for _ in range(10)]
    stopping.stop()
    fleet.run(3.0)
    assert [job.code for job in jobs] == ["answered"] * 20  # a stop is no loss: most_lost does not count it
    stopping.start()
    fleet.run(3.0)
    before = stopping.done
    for _ in range(10):
        fleet.infer()
    fleet.run(1.0)
    assert stopping.done > before


def test_a_member_that_finishes_nothing_is_passed_over_until_it_is_ready():
    fleet = Fleet(patience=Patience(stuck=2.0))
    stuck, _ = fleet.add(2)
    stuck.hangs, stuck.ready = True, False
    jobs = [fleet.infer(timeout=20.0) for _ in range(10)]
    fleet.run(4.0)
    assert [job.code for job in jobs] == ["answered"] * 10
    status = fleet.ask(protocol.Status)
    fleet.run(0.1)
    assert status.found["members"][stuck.address]["state"] == "stuck"
    assert "stuck_ms" in status.found["members"][stuck.address]["problem"]
    stuck.hangs, stuck.ready = False, True
    fleet.run(3.0)
    done = stuck.done
    for _ in range(10):
        fleet.infer()
    fleet.run(1.0)
    assert stuck.done > done


def test_kept_jobs_are_bounded_in_number_and_in_bytes():
    fleet = Fleet(Limits(kept_jobs=5))
    fleet.add(1, seconds=1.0)
    jobs = [fleet.infer(timeout=20.0) for _ in range(6)]
    assert jobs[-1].code == "RESOURCE_UNAVAILABLE"
    assert jobs[-1].failure is not None
    assert "kept_jobs" in jobs[-1].failure.message
    fleet.run(10.0)
    assert [job.code for job in jobs[:5]] == ["answered"] * 5
    assert fleet.infer().code == ""  # there is room again
    fleet = Fleet(Limits(kept_bytes=100_000))
    fleet.add(1, seconds=1.0)
    jobs = [fleet.infer(size=40_000) for _ in range(3)]
    assert [job.code for job in jobs] == ["", "", "RESOURCE_UNAVAILABLE"]
    assert jobs[-1].failure is not None
    assert "kept_mb" in jobs[-1].failure.message


def test_a_payload_goes_to_a_member_that_takes_it():
    fleet = Fleet()
    small, large = fleet.add(2)
    small.max_payload = 1000
    small.kill()
    fleet.run(0.1)
    small.start()
    fleet.run(3.0)
    jobs = [fleet.infer(size=2000) for _ in range(6)]
    fleet.run(1.0)
    assert [job.code for job in jobs] == ["answered"] * 6
    assert large.done == 6
    large.kill()
    fleet.run(0.1)
    refused = fleet.infer(size=2000)
    assert refused.code == "BAD_INPUT"
    assert refused.failure is not None
    assert "max_payload_mb" in refused.failure.message


def test_a_cancelled_job_is_dropped_and_goes_nowhere_else():
    fleet = Fleet()
    first, second = fleet.add(2, seconds=0.5)
    job = fleet.infer()
    fleet.run(0.01)
    fleet.core.request(protocol.Cancel(id=99, job=job.number), job)
    fleet.run(0.1)
    assert job.code == "DROPPED"
    for server in (first, second):
        server.frozen = True
    job = fleet.infer()
    fleet.core.request(protocol.Cancel(id=99, job=job.number), job)
    fleet.run(3.0)
    assert job.code == "DROPPED"  # its member is lost, and it is not sent to the other
    waiting = fleet.infer(timeout=30.0)
    fleet.core.request(protocol.Cancel(id=99, job=waiting.number), waiting)
    assert waiting.code == "DROPPED"


def test_the_same_request_twice_is_one_job():
    fleet = Fleet()
    fleet.add(1, seconds=0.1)
    job = fleet.infer()
    fleet.core.request(protocol.Infer(id=job.number, model="m"), job, job.payload)
    fleet.run(1.0)
    assert job.replies == 1


def test_newer_frames_go_where_the_older_ones_are_and_streams_of_two_clients_stay_apart():
    fleet = Fleet()
    servers = fleet.add(4, seconds=0.5)
    for _ in range(3):
        fleet.infer(client=b"one", source="camera", drop="latest")
        fleet.infer(client=b"two", source="camera", drop="latest")
    fleet.run(0.1)
    seen = [{r.source for r in server.asked if isinstance(r, protocol.Infer)} for server in servers]
    names = [name for found in seen for name in found]
    assert sorted(len(found) for found in seen) == [0, 0, 1, 1]
    assert len(set(names)) == 2
    assert "camera" in names


def test_a_thousand_members_with_fifty_killed_at_once():
    fleet = Fleet()
    servers = fleet.add(1000, seconds=0.05)
    for _ in range(3000):
        fleet.infer()
    fleet.run(0.02)
    for server in servers[::20]:
        server.kill()
    fleet.run(5.0)
    assert fleet.codes() == {"answered": 3000}
    shares = [server.done for server in servers if server.alive]
    assert max(shares) <= 10
    assert sum(share > 0 for share in shares) > 900
