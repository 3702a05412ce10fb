"""Faults under load against a real server: what died or hung is replaced, and every job is accounted for.

The short forms of what benchmarks/chaos.py does for as long as one likes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.chaos_support.faults import HANG, Fault, Saboteur, processes
from benchmarks.chaos_support.loads import LibraryLoad, WireLoad, drive
from benchmarks.chaos_support.payloads import Payloads, Verdict, write_identity_model
from benchmarks.chaos_support.settle import drain
from benchmarks.chaos_support.tally import Tally
from parallel_infer import Client
from parallel_infer.errors import DeadlineExceeded
from parallel_infer.tools.local_server import LocalServer, local_server
from tests.engine.serving import eventually

SIZE = 2048
INJECTED = Path(__file__).resolve().parents[2] / "benchmarks" / "chaos_support" / "injected"
SETTINGS = {"RESTART_BUDGET": "100000", "STAGE_LIMIT_MS": "1500", "LOG_LEVEL": "error"}
_SEEDS = itertools.count(1)


def well(client: Client) -> bool:
    """Whether every process of the server is up."""
    return all(process["state"] == "up" for process in client.status()["processes"].values())


@pytest.fixture
def payloads() -> Payloads:
    """Others for each test: what two workers died with in one test is refused at the door in the next."""
    return Payloads(SIZE, next(_SEEDS))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    """A server of a model that returns what it gets; SIGUSR1 makes its processes hang."""
    model = tmp_path_factory.mktemp("identity") / "identity.onnx"
    write_identity_model(model, SIZE)
    options = ("--model", f"identity={model}", "--provider", "cpu", "--decode-workers", "2", "--threads", "1")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(f"PARALLEL_INFER_{name}", value)
        patch.setenv("PYTHONPATH", str(INJECTED))
        with local_server(*options, "--postprocess-workers", "1", "--instances", "1") as server:
            yield server


def storm(
    served: LocalServer,
    payloads: Payloads,
    kinds: tuple[str, ...],
    faults: int,
    load: LibraryLoad | WireLoad,
    in_flight: int = 32,
) -> Tally:
    """Jobs without a pause until so many processes were killed; then every job that is left has to end."""
    tally = Tally()
    with Saboteur(served, kinds, Fault.KILL, (0.2, 0.6), seed=1, most=faults) as saboteur:
        drive(
            load,
            payloads,
            tally,
            lambda: len(saboteur.incidents) < faults,
            in_flight,
            lambda outcome: saboteur.answered(outcome.sent),
        )
    load.close()
    tally.leaked = drain(served)
    return tally


@pytest.mark.parametrize(("kinds", "faults"), [(("decode",), 10), (("infer",), 10), (("postprocess",), 10)])
def test_no_kill_of_a_worker_loses_a_job_or_leaks_a_slot(served, payloads, kinds, faults):
    tally = storm(served, payloads, kinds, faults, WireLoad(served.address, 60.0))
    assert tally.answers > 0
    assert not tally.broken(frozenset({"POISON"}))


def test_no_kill_loses_a_job_that_one_worker_hands_on_to_another(served, payloads):
    tally = storm(served, payloads, ("infer", "postprocess"), 4, WireLoad(served.address, 60.0), in_flight=1)
    assert tally.answers > 0
    assert not tally.broken(frozenset())


def test_no_kill_of_the_dispatcher_costs_an_answer(served, payloads):
    tally = storm(served, payloads, ("dispatcher",), 6, WireLoad(served.address, 60.0))
    assert tally.answers > 0
    assert not tally.broken(frozenset())


def test_whoever_is_killed_each_job_gets_one_reply(served, payloads):
    tally = storm(
        served,
        payloads,
        ("decode", "infer", "postprocess", "dispatcher", "gateway"),
        8,
        LibraryLoad(served.address, 60),
    )
    assert tally.answers > 0
    assert not tally.broken(frozenset({"POISON"}))


def test_jobs_that_are_not_on_a_killed_worker_see_no_failure(served, payloads):
    """One of two decode workers dies, again and again; nobody gets an error, since no job is hit twice."""
    with Client(served.address, timeout=60.0) as client:
        for _ in range(3):
            eventually(lambda: well(client))
            victim = processes(served)["decode-0"]
            futures = [client.submit("identity", {"x": payloads.make(job)}) for job in range(40)]
            os.kill(victim, signal.SIGKILL)
            for job, future in enumerate(futures):
                assert payloads.judge(job, future.result(60).tensors["y"]) is Verdict.RIGHT
            eventually(lambda victim=victim: processes(served).get("decode-0", victim) != victim)


@pytest.mark.parametrize("stage", ["decode", "infer", "postprocess"])
@pytest.mark.parametrize("how", [signal.SIGSTOP, HANG], ids=["stopped", "holds the GIL"])
def test_a_hung_worker_is_replaced_and_its_client_has_a_reply_first(served, payloads, stage, how):
    place = {"decode": "decode-0", "infer": "infer-identity-0", "postprocess": "postprocess-0"}[stage]
    with Client(served.address, timeout=60.0) as client:
        eventually(lambda: well(client))
        hung = processes(served)[place]
        os.kill(hung, how)
        futures = [client.submit("identity", {"x": payloads.make(job)}, timeout=0.5) for job in range(16)]
        outcomes = [future.exception(60) for future in futures]
        assert all(outcome is None or isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
        if stage == "decode":  # there is another one; make sure that this one gets work, too
            client.infer_many("identity", [{"x": payloads.make(job)} for job in range(300)], errors="return")
        else:
            assert any(isinstance(outcome, DeadlineExceeded) for outcome in outcomes)
            assert processes(served)[place] == hung, "it was replaced before the deadline of what it held"
        eventually(lambda: processes(served).get(place, hung) != hung)
        answer = client.infer("identity", {"x": payloads.make(7)})
        assert payloads.judge(7, answer.tensors["y"]) is Verdict.RIGHT
    assert not drain(served)


def test_what_expires_in_the_queue_is_answered_on_a_timer_and_never_inferred(served, payloads):
    with Client(served.address, timeout=60.0) as client:
        eventually(lambda: well(client))
        client.infer("identity", {"x": payloads.make(1)})
        decoders = [pid for place, pid in processes(served).items() if place.startswith("decode")]
        before = client.status()["models"]["identity"]
        for process in decoders:
            os.kill(process, signal.SIGSTOP)
        try:
            futures = [client.submit("identity", {"x": payloads.make(job)}, timeout=0.5) for job in range(40)]
            assert {type(future.exception(60)) for future in futures} == {DeadlineExceeded}
            after = client.status()["models"]["identity"]
        finally:
            for process in decoders:
                with contextlib.suppress(ProcessLookupError):  # it counted as hung
                    os.kill(process, signal.SIGCONT)
        assert after["expired"] - before["expired"] == 40
        assert after["batched_rows"] == before["batched_rows"]
        assert not drain(served)
        assert client.status()["models"]["identity"]["batched_rows"] == before["batched_rows"]


def test_a_client_that_does_not_read_holds_up_nobody(served, payloads):
    """Thousands of replies wait for one client; another is served all the while."""
    deaf = WireLoad(served.address, 60.0)
    sending = threading.Event()

    def flood() -> None:
        for number in range(1, 1500):
            deaf.send(number, payloads.make(number))
            sending.set()

    thread = threading.Thread(target=flood)
    thread.start()
    sending.wait(10)
    with Client(served.address, timeout=60.0) as client:
        rows = [{"x": payloads.make(job)} for job in range(200)]
        for job, answer in enumerate(client.infer_many("identity", rows)):
            assert payloads.judge(job, answer.tensors["y"]) is Verdict.RIGHT
        thread.join()
    deaf.close()
    deadline = time.monotonic() + 30
    while drain(served) and time.monotonic() < deadline:
        pass
    assert not drain(served)
