"""The queue under streams, `infer_many` and live video, and the pause after a refusal: no sockets, no clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.client.in_flight_queue import Entry, InFlightQueue, Pause, take
from parallel_infer.errors import Dropped, InferError

DONE = InferError("done")


def filled(limit: int, count: int) -> tuple[InFlightQueue[Entry], list[Entry]]:
    """A queue whose entries all wait."""
    queue: InFlightQueue[Entry] = InFlightQueue(limit)
    entries = [Entry() for _ in range(count)]
    for entry in entries:
        queue.add(entry)
        queue.wait(entry)
    return queue, entries


def test_no_more_than_the_limit_is_in_flight():
    queue, entries = filled(2, 3)

    assert [queue.next_waiting() for _ in range(3)] == [*entries[:2], None]
    assert (queue.in_flight, queue.waiting, queue.has_room) == (2, 1, False)

    queue.end()
    assert queue.next_waiting() is entries[2]


def test_outcomes_are_handed_on_in_the_order_of_being_added():
    queue, (first, second) = filled(2, 2)
    second.outcome = DONE
    assert queue.pop_done() is None

    first.outcome = DONE
    assert [queue.pop_done(), queue.pop_done(), queue.pop_done()] == [first, second, None]
    assert queue.empty


def test_what_was_refused_goes_before_what_was_added_later():
    queue, entries = filled(3, 5)
    started = [queue.next_waiting() for _ in range(3)]
    assert started == entries[:3]
    for entry in (entries[0], entries[2]):  # both are refused, one after the other
        queue.end()
        queue.wait(entry)

    assert [queue.next_waiting(), queue.next_waiting()] == [entries[0], entries[2]]


def test_a_newer_frame_drops_the_one_that_waits_and_nothing_that_was_sent():
    queue: InFlightQueue[Entry] = InFlightQueue(1)
    sent, older, newer = Entry(), Entry(), Entry()
    take(queue, sent)
    assert queue.next_waiting() is sent
    for entry in (older, newer):
        take(queue, entry)

    assert isinstance(older.outcome, Dropped)
    assert sent.outcome is newer.outcome is None
    assert list(queue) == [sent, older, newer]  # its place in the order it keeps


def test_only_the_newest_go_on_waiting():
    queue, entries = filled(1, 4)
    assert list(queue.keep_newest(3)) == entries[:1]
    assert list(queue.keep_newest(3)) == []
    assert queue.next_waiting() is entries[1]


def test_a_cleared_queue_is_empty_and_has_room():
    queue, _ = filled(1, 2)
    queue.next_waiting()
    queue.clear()
    assert (queue.empty, queue.waiting, queue.has_room) == (True, 0, True)


@given(st.lists(st.sampled_from(["add", "start", "refuse", "finish", "pop"]), max_size=60), st.integers(1, 4))
def test_any_sequence_hands_on_everything_once_and_in_order(actions, limit):
    queue: InFlightQueue[Entry] = InFlightQueue(limit)
    flying: list[Entry] = []
    added, popped = 0, []
    for action in [*actions, *(["start", "finish"] * len(actions)), *(["pop"] * len(actions))]:
        if action == "add":
            entry = Entry()
            queue.add(entry)
            queue.wait(entry)
            added += 1
        elif action == "start" and (started := queue.next_waiting()) is not None:
            flying.append(started)
        elif action == "pop" and (done := queue.pop_done()) is not None:
            popped.append(done.number)
        elif action in ("refuse", "finish") and flying:
            entry = flying.pop()
            queue.end()
            if action == "refuse":
                queue.wait(entry)
            else:
                entry.outcome = DONE
        assert queue.in_flight == len(flying) <= limit
    assert popped == list(range(added))
    assert queue.empty


def test_pauses_double_up_to_a_tenth_of_a_second_and_begin_anew():
    pause, lengths, now = Pause(), [], 100.0
    for _ in range(8):
        pause.begin(now)
        lengths.append(round(pause.end - now, 3))
        now = pause.end
    assert lengths == [0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.1, 0.1]

    pause.reset()
    pause.begin(now)
    assert round(pause.end - now, 3) == 0.002


def test_a_pause_is_as_long_as_the_server_said_and_never_long():
    pause = Pause()
    pause.begin(100.0, 0.25)
    assert pause.end == 100.25
    pause.begin(101.0, 1e9)
    assert pause.end == 102.0


def test_one_pause_counts_for_all_that_were_refused_together():
    pause = Pause()
    pause.begin(100.0)
    pause.begin(100.001)
    assert pause.end == 100.002
