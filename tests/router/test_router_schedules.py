"""Any schedule of jobs, deaths, silences, stops and members that come and go: each request has one reply in time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parallel_infer import protocol
from parallel_infer.router.core import Limits
from parallel_infer.router.membership import Patience
from tests.router.simulated_fleet import Fleet

TIMEOUT = 4.0  # seconds of each job
GRACE = 0.15  # seconds after its deadline that a reply may come
EXPECTED = {"answered", "DEADLINE_EXCEEDED", "SERVER_UNAVAILABLE", "RESOURCE_UNAVAILABLE", "POISON", "DROPPED"}
DONE = ("kill", "start", "freeze", "thaw", "hang", "unhang", "stopping", "stop")
STEPS = st.one_of(
    st.tuples(st.just("jobs"), st.integers(1, 20)),
    st.tuples(
        st.sampled_from(["kill", "start", "freeze", "thaw", "hang", "unhang", "stopping", "stop"]), st.integers(0, 5)
    ),
    st.tuples(st.sampled_from(["unlist", "list"]), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
    st.tuples(st.just("wait"), st.sampled_from([0.0003, 0.01, 0.3, 1.1, 3.0])),
)


class Schedule:
    """A fleet of six, and what is done to it."""

    def __init__(self, most_lost: int = 1000) -> None:
        self.fleet = Fleet(Limits(most_lost=most_lost, kept_jobs=60), Patience(silence=1.0, stuck=1.5))
        self.servers = self.fleet.add(6, seconds=0.03)
        self.unlisted: set[int] = set()
        self.deadlines: list[float] = []

    def do(self, action: str, value: Any) -> None:
        if action == "jobs":
            for _ in range(value):
                self.fleet.infer(timeout=TIMEOUT)
                self.deadlines.append(self.fleet.now + TIMEOUT)
            return
        if action == "wait":
            self.fleet.run(value)
            return
        if action == "cancel":
            self._cancel(value)
            return
        server = self.servers[value]
        if action in ("list", "unlist"):
            (self.unlisted.discard if action == "list" else self.unlisted.add)(value)
            self.fleet.list(without=tuple(self.servers[number] for number in self.unlisted))
        elif action == "start" and not server.alive:
            server.start()
        elif action == "freeze":
            server.frozen = True
        elif action in ("hang", "unhang"):
            server.hangs = action == "hang"
            server.ready = not server.hangs
        elif server.alive and action in ("kill", "thaw", "stop"):
            getattr(server, action)()
        elif server.alive and action == "stopping":
            server.say_stopping()

    def _cancel(self, number: int) -> None:

        if number < len(self.fleet.requests):
            request = self.fleet.requests[number]
            self.fleet.core.request(protocol.Cancel(id=10_000 + number, job=request.number), request)

    def heal(self) -> None:
        for number, server in enumerate(self.servers):
            server.hangs, server.ready = False, True
            self.do("list", number)
            self.do("start", number)
            self.do("thaw", number)


def check(steps: list[tuple[str, Any]]) -> None:
    """Whatever happens, each request has one reply by its deadline; and once all is well, jobs are answered."""
    schedule = Schedule()
    for action, value in steps:
        schedule.do(action, value)
    schedule.fleet.run(TIMEOUT + 1.0)
    for request, deadline in zip(schedule.fleet.requests, schedule.deadlines, strict=True):
        assert request.code in EXPECTED - {"POISON"}, request  # `Request` itself refuses a second reply
        assert request.at <= deadline + GRACE
    assert len(schedule.fleet.core.jobs) == 0
    assert schedule.fleet.core.jobs.bytes == 0
    schedule.heal()
    schedule.fleet.run(12.0)
    after = [schedule.fleet.infer(timeout=TIMEOUT) for _ in range(12)]
    schedule.fleet.run(TIMEOUT + 1.0)
    assert [request.code for request in after] == ["answered"] * 12


@settings(max_examples=60)
@given(steps=st.lists(STEPS, max_size=40))
def test_every_request_has_one_reply_by_its_deadline(steps: list[tuple[str, Any]]) -> None:
    check(steps)


@pytest.mark.slow
@settings(max_examples=3000)
@given(steps=st.lists(STEPS, min_size=15, max_size=60))
def test_every_request_has_one_reply_in_long_schedules(steps: list[tuple[str, Any]]) -> None:
    check(steps)


@settings(max_examples=30)
@given(steps=st.lists(STEPS, max_size=30), most=st.integers(1, 3))
def test_no_job_meets_more_lost_members_than_it_may(steps: list[tuple[str, Any]], most: int) -> None:
    schedule = Schedule(most_lost=most)
    for action, value in steps:
        schedule.do(action, value)
    schedule.fleet.run(TIMEOUT + 1.0)
    assert set(schedule.fleet.codes()) <= EXPECTED
    assert len(schedule.fleet.core.jobs) == 0
