"""The batching policy: when to start, with how many, and when waiting pays. Time is an argument."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.dispatcher.policy import Situation, Start, Wait
from stages.batch import AutoBatch

LINEAR = {1: 0.010, 2: 0.020, 4: 0.040, 8: 0.080}  # batching gains nothing
SLOW = {1: 0.100, 2: 0.200, 4: 0.400, 8: 0.800}  # nor what stands around a run
USUAL = {1: 0.0105, 2: 0.0201, 4: 0.0395, 8: 0.0815}  # two are nearly as good as four, which are best
FLAT = {1: 0.010, 2: 0.010, 4: 0.011, 8: 0.012}  # a batch costs what one costs


def policy(
    times: dict[int, float] | None = None,
    *,
    max_batch: int = 8,
    preferred: int = 0,
    fixed: int = 0,
    delay: float = 0.01,
) -> AutoBatch:
    made = AutoBatch(max_batch=max_batch, preferred=preferred, fixed=fixed, max_delay=delay)
    made.learn(times or {}, {})
    return made


def now(
    ready: int,
    *,
    upstream: int = 0,
    idle: int = 1,
    spare: int = 0,
    waited: float = 0.0,
    next_row: float = 0.001,
    slack: float = 100.0,
    free_cores: float = math.inf,
    load: float = 0.0,
) -> Situation:
    return Situation(ready, upstream, idle, spare, waited, next_row, slack, free_cores, load)


situations = st.builds(
    Situation,
    ready=st.integers(1, 40),
    upstream=st.integers(0, 40),
    idle=st.integers(0, 4),
    spare=st.integers(0, 4),
    waited=st.floats(0, 0.05),
    next_row=st.floats(0, 0.05),
    slack=st.floats(-0.1, 1.0),
    free_cores=st.sampled_from([-2, 0, 1, 3, math.inf]),
    load=st.floats(0, 2),
)
policies = st.builds(
    policy,
    st.sampled_from([{}, LINEAR, FLAT, {1: 0.01}]),
    max_batch=st.integers(1, 16),
    preferred=st.integers(0, 8),
    fixed=st.sampled_from([0, 0, 0, 1, 4]),
    delay=st.sampled_from([0.0, 0.002, 0.02]),
)


@given(policies, situations)
def test_decisions_are_always_sound(batching, situation):
    decision = batching.decide(situation)
    if isinstance(decision, Start):
        assert situation.idle or situation.spare
        assert 1 <= decision.size <= min(situation.ready, batching.max_batch)
    elif situation.idle:
        longest = batching.max_delay
        if situation.load > 0.7 and batching.max_delay:  # the cores are full: for as long as a batch takes
            longest = max(longest, batching.expected(situation.ready + 1))
        assert 0 <= decision.seconds <= max(0.0, longest - situation.waited)
        assert situation.upstream, "an idle instance waits though nothing is coming"
        assert situation.waited < longest
        assert situation.slack > 0


@given(policies, situations)
def test_a_wait_ends(batching, situation):
    decision = batching.decide(situation)
    if isinstance(decision, Wait) and decision.seconds != math.inf:
        later = situation._replace(
            waited=situation.waited + decision.seconds + 1e-6, slack=situation.slack - decision.seconds
        )
        assert isinstance(batching.decide(later), Start)


@pytest.mark.parametrize("times", [{}, LINEAR, FLAT])
def test_an_idle_instance_starts_at_once_when_nothing_is_coming(times):
    assert policy(times).decide(now(1)) == Start(1)


@pytest.mark.parametrize("times", [{}, FLAT])
def test_it_waits_for_what_is_coming_where_a_larger_batch_pays(times):
    decision = policy(times, delay=0.01).decide(now(1, upstream=3, waited=0.004))
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(0.006)


def test_it_does_not_wait_where_a_larger_batch_gains_nothing():
    assert policy(LINEAR).decide(now(1, upstream=3)) == Start(1)


def test_it_does_not_wait_longer_for_a_row_than_the_row_saves():
    assert isinstance(policy(FLAT).decide(now(1, upstream=3, next_row=0.009)), Wait)
    assert policy(FLAT).decide(now(1, upstream=3, next_row=0.011)) == Start(1)


def test_it_waits_for_at_most_max_queue_delay():
    assert policy(FLAT, delay=0.01).decide(now(3, upstream=3, waited=0.01)) == Start(3)
    assert policy(FLAT, delay=0.0).decide(now(3, upstream=3)) == Start(3)


@pytest.mark.parametrize("slack", [0.0, 0.01, 0.02])
def test_it_does_not_wait_where_a_deadline_would_be_missed(slack):
    assert policy(FLAT, delay=0.01).decide(now(1, upstream=3, slack=slack)) == Start(1)


def test_a_full_batch_starts_at_once():
    assert policy(FLAT).decide(now(8, upstream=9)) == Start(8)
    assert policy(FLAT).decide(now(30, upstream=9)) == Start(8)


def test_a_preferred_batch_starts_at_once_and_is_not_exceeded():
    batching = policy(FLAT, preferred=3)
    assert isinstance(batching.decide(now(2, upstream=9)), Wait)
    assert batching.decide(now(3, upstream=9)) == Start(3)
    assert batching.decide(now(7, upstream=9)) == Start(3)
    assert batching.target == 3


def test_a_preferred_size_above_the_largest_batch_means_the_largest():
    assert policy(FLAT, max_batch=4, preferred=9).target == 4


def test_ready_rows_are_split_over_idle_instances_before_they_are_stacked():
    batching = policy(FLAT)
    assert batching.decide(now(8, idle=2)) == Start(4)
    assert batching.decide(now(3, idle=2)) == Start(2)
    assert batching.decide(now(2, idle=4)) == Start(1)
    assert batching.decide(now(1, idle=2, upstream=5)) == Start(1)  # the other instance can take what comes


def test_a_fixed_batch_takes_what_is_ready_up_to_its_size():
    batching = policy({4: 0.02}, fixed=4)
    assert batching.target == 4
    assert batching.decide(now(9)) == Start(4)
    assert batching.decide(now(2)) == Start(2)
    assert isinstance(batching.decide(now(2, upstream=2)), Wait)


def test_a_fixed_batch_is_not_split():
    assert policy({4: 0.02}, fixed=4).decide(now(4, idle=2)) == Start(4)


def test_busy_instances_get_a_second_batch_only_when_it_is_worth_having():
    batching = policy(FLAT)
    assert batching.decide(now(7, idle=0, spare=1)) == Wait(math.inf)
    assert batching.decide(now(8, idle=0, spare=1)) == Start(8)
    assert batching.decide(now(20, idle=0, spare=0)) == Wait(math.inf)


def test_learned_times_set_the_batch_size_worth_having():
    assert policy(LINEAR).target == 1
    assert policy(FLAT).target == 8
    assert policy({1: 0.010, 2: 0.011, 4: 0.022, 8: 0.044}).target == 2
    assert policy().target == 8


def test_the_target_follows_what_is_observed_later():
    batching = policy(FLAT)
    for _ in range(60):
        for size, seconds in LINEAR.items():
            batching.observe(size, seconds, 0.0)
    assert batching.target == 1
    for _ in range(60):
        for size, seconds in FLAT.items():
            batching.observe(size, seconds, 0.0)
    assert batching.target == 8


def test_processor_time_tells_what_a_size_is_worth_where_runs_wait_for_a_core():
    batching = policy(SOME)
    batching.learn(SOME, SOME)
    for _ in range(60):
        batching.observe(1, 0.010, 0.010)  # got its core at once
        batching.observe(4, 0.090, 0.034)  # had to wait
    assert batching.target == 4
    assert batching.expected(4) == pytest.approx(0.09, rel=0.01)


def test_expected_times_are_learned_and_interpolated():
    batching = policy({2: 0.02, 6: 0.04})
    assert batching.expected(2) == 0.02
    assert batching.expected(4) == pytest.approx(0.03)
    assert batching.expected(12) == pytest.approx(0.08)
    assert 0.01 <= batching.expected(1) <= 0.02
    assert policy().expected(3) == 0.0


FULL = {"free_cores": 0, "load": 1.0}
SOME = {1: 0.010, 2: 0.018, 4: 0.034, 8: 0.066}  # each row 8 ms, each batch 2 ms more


def test_an_idle_instance_waits_for_a_fuller_batch_where_no_core_is_free():
    decision = policy(SOME, delay=0.002).decide(now(2, upstream=6, idle=2, waited=0.006, next_row=0.005, **FULL))
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(0.026 - 0.006)  # until a batch of one row more would have run


def test_a_core_is_waited_for_no_longer_than_a_batch_takes():
    assert policy(SOME).decide(now(2, upstream=6, idle=2, waited=0.027, **FULL)) == Start(2)


def test_ready_rows_are_stacked_where_no_core_is_free_for_a_second_instance():
    assert policy(SOME).target == 4
    assert policy(SOME).decide(now(4, upstream=6, idle=2, **FULL)) == Start(4)


@pytest.mark.parametrize(
    "situation",
    [
        now(1, upstream=0, idle=2, **FULL),
        now(1, upstream=3, idle=2, free_cores=0, load=0.5),
        now(1, upstream=3, idle=2, free_cores=1, load=1.0),
        now(1, upstream=30, idle=2),
        now(1, upstream=3, idle=2, slack=0.02, **FULL),
    ],
    ids=["nothing is coming", "the cores were not full lately", "a core is free", "on another device", "a deadline"],
)
def test_an_idle_instance_starts_at_once(situation):
    assert policy(SOME).decide(situation) == Start(1)


def test_a_long_queue_means_full_cores_even_while_one_is_free_for_a_moment():
    assert isinstance(policy(SOME).decide(now(1, upstream=8, idle=2, free_cores=1, load=0.9)), Wait)


def test_full_cores_change_nothing_where_batching_gains_nothing():
    assert policy(SLOW).decide(now(3, upstream=20, idle=2, **FULL)) == Start(1)


def test_with_a_backlog_on_full_cores_the_batch_that_costs_least_is_filled():
    batching = policy(USUAL)
    assert batching.decide(now(4, upstream=8, idle=1, **FULL)) == Start(4)
    assert batching.decide(now(4, idle=1)) == Start(2)
    assert isinstance(batching.decide(now(2, upstream=8, idle=1, **FULL)), Wait)
    assert batching.decide(now(2, upstream=4, idle=1, **FULL)) == Start(2)


def test_a_deadline_that_a_larger_batch_would_miss_keeps_it_small():
    late = now(8, upstream=8, idle=1, slack=0.03, **FULL)
    assert policy(USUAL).decide(late) == Start(2)
    assert policy(USUAL).decide(late._replace(slack=0.05)) == Start(4)


def test_with_a_backlog_a_batch_in_advance_is_as_large():
    batching = policy(USUAL)
    assert batching.decide(now(4, upstream=8, idle=0, spare=1, **FULL)) == Start(4)
    assert batching.decide(now(3, upstream=8, idle=0, spare=1, **FULL)) == Wait(math.inf)
    assert batching.decide(now(3, idle=0, spare=1)) == Start(2)


def test_sizes_that_ran_rarely_are_tried_soon_and_the_others_now_and_then_where_many_wait():
    batching = policy(SLOW)
    many = now(1, upstream=20, idle=2, **FULL)
    _run(batching, 1, 7)
    assert batching.decide(many) == Start(1)
    _run(batching, 1, 1)
    assert isinstance(batching.decide(many), Wait)
    assert batching.decide(many._replace(upstream=3)) == Start(1)
    assert batching.decide(many._replace(load=0.0)) == Start(1)
    for size in (2, 4, 8):
        _run(batching, size, 3)
    _run(batching, 1, 63)
    assert batching.decide(many) == Start(1)
    _run(batching, 1, 1)
    assert isinstance(batching.decide(many), Wait)
    _run(batching, 2, 1)
    assert batching.decide(many) == Start(1)


def test_of_the_first_runs_of_a_size_the_shortest_counts():
    batching = policy({1: 0.1, 8: 0.8})
    for seconds in (0.9, 0.4, 0.7):
        batching.observe(4, seconds, 0.0)
    assert batching.expected(4) == 0.4
    batching.observe(4, 0.5, 0.0)
    batching.observe(4, 0.5, 0.0)
    assert batching.expected(4) == pytest.approx(0.42)


def _run(batching: AutoBatch, size: int, times: int) -> None:
    for _ in range(times):
        batching.observe(size, SLOW[size], 0.0)


def test_a_delay_of_zero_waits_for_nothing():
    assert policy(SOME, delay=0.0).decide(now(1, upstream=20, idle=2, **FULL)) == Start(1)
