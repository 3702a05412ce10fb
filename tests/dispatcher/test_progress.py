"""What the dispatcher thinks of its pace: the best of the last seconds, moved by no single event."""

from __future__ import annotations

import bisect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.dispatcher.estimate import learned
from parallel_infer.dispatcher.job_queue import Waiting
from parallel_infer.dispatcher.jobs import Job
from parallel_infer.dispatcher.progress import MEMORY, Progress
from parallel_infer.dispatcher.watchdog import STEP, Watchdog
from parallel_infer.ipc.messages import Admit, AnswerFormat, PayloadKind, SlotRef


def works(progress: Progress, seconds: float, rate: float, start: float) -> float:
    """Batches of two at a steady pace while others wait; when the last one is done."""
    now = start
    while now < start + seconds:
        progress.ran(2, True, now)
        now += 2 / rate
    return now


def test_the_pace_is_what_was_done_while_others_waited():
    progress = Progress()
    now = works(progress, 3.0, 20.0, 100.0)
    assert progress.best(now) == pytest.approx(20.0)


def test_a_start_says_nothing():
    progress = Progress()
    now = works(progress, 1.8, 20.0, 100.0)
    assert progress.best(now) == 0.0


def test_quiet_times_are_no_pace():
    progress = Progress()
    for second in range(100):
        progress.ran(1, False, 100.0 + second)
    assert progress.best(200.0) == 0.0
    now = works(progress, 3.0, 20.0, 201.0)
    assert progress.best(now) == pytest.approx(20.0)


@pytest.mark.parametrize("stall", [0.5, 2.0, 6.0])
def test_a_stall_does_not_move_it(stall):
    progress = Progress()
    now = works(progress, 3.0, 20.0, 100.0)
    now = works(progress, 0.7, 20.0, now + stall)
    assert progress.best(now) == pytest.approx(20.0)


def test_what_is_older_than_what_happened_since_is_forgotten():
    progress = Progress()
    now = works(progress, 5.0, 20.0, 100.0)
    assert progress.best(now + MEMORY + 1.0) == 0.0
    now = works(progress, MEMORY + 1.0, 5.0, now)
    assert progress.best(now) == pytest.approx(5.0)


def test_a_death_is_no_pace():
    progress = Progress()
    now = works(progress, 3.0, 20.0, 100.0)
    progress.restart()
    assert progress.best(works(progress, 0.3, 20.0, now + 3.0)) == pytest.approx(20.0)


def test_one_observation_moves_a_usual_time_by_little():
    assert learned(0.0, 40.0) == 40.0
    assert learned(0.05, 40.0) == pytest.approx(0.06)
    assert learned(0.05, 0.0) == 0.05


def test_a_usual_time_follows_what_goes_on():
    usual = 0.05
    for _ in range(30):
        usual = learned(usual, 0.5)
    assert usual == pytest.approx(0.5, rel=0.1)


def test_a_disturbed_first_observation_is_found_out():
    usual = learned(0.0, 40.0)
    for _ in range(20):
        usual = learned(usual, 0.05)
    assert usual < 0.1


def job(number: int, priority: int, deadline: float) -> Job:
    ref = SlotRef("in", number, 1, 1, 1)
    kind, form = PayloadKind.PICTURE, AnswerFormat.ARRAYS
    return Job(Admit(number, "m", ref, kind, (), b"\x80", form, 0.0, deadline, priority, ""), None)  # type: ignore[arg-type]


_JOBS = st.lists(st.tuples(st.integers(-1, 1), st.integers(1, 6)), max_size=30)


@given(_JOBS, st.integers(-1, 1), st.integers(1, 6), st.integers(0, 7), st.data())
def test_a_queue_answers_as_a_search_would(wanted, priority, deadline, start, data):
    queue, model = Waiting(), []
    for number, (other, until) in enumerate(wanted):
        one = job(number, other, float(until))
        queue.add(one)
        bisect.insort(model, (-other, float(until), number, one))
    for one in data.draw(st.lists(st.sampled_from(model), unique_by=lambda entry: entry[2])) if model else []:
        queue.remove(one[3])
        model.remove(one)
    assert len(queue) == len(model)
    assert queue.head is (model[0][3] if model else None)
    fitting = [entry[3] for entry in model if entry[1] >= start]
    assert queue.first(float(start)) is (fitting[0] if fitting else None)
    before = [
        entry
        for entry in model
        if entry[:2] <= (-priority, float(deadline)) and (-entry[0] > priority or entry[1] >= start)
    ]
    assert queue.before(priority, float(deadline), float(start)) == len(before)
    top = [entry for entry in model if entry[0] == model[0][0]]
    assert queue.last is (max(top, key=lambda entry: (entry[1], entry[2]))[3] if top else None)


def test_a_watchdog_knows_when_it_slept_itself():
    watchdog = Watchdog()
    assert watchdog.due is None
    assert not watchdog.lost(1000.0)
    watchdog.look(100.0, watched=True)
    assert watchdog.due == 100.0 + STEP
    assert not watchdog.lost(100.0 + STEP + 0.2)
    assert watchdog.lost(103.0) == 3.0 - STEP
    watchdog.look(103.0, watched=False)
    assert not watchdog.lost(200.0)
