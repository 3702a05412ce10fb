"""Which objects are the same from frame to frame, for boxes whose way is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.tracking.byte_track import NONE, ByteTrack, Seen, overlaps

FPS = 25.0
PERSON, DOG = 0, 1


def seen(*objects):
    """Objects as (box, score, class)."""
    boxes = np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4)
    scores, classes = (np.array([one[at] for one in objects]) for at in (1, 2))
    return Seen(boxes, scores.astype(np.float32), classes.astype(np.int64))


def walker(number, speed, score=0.9, kind=PERSON, start=10.0, y=100.0):
    """A box of 50 x 100 that goes `speed` pixels a frame."""
    return (start + speed * number, y, start + 50 + speed * number, y + 100), score, kind


def numbers(tracker, frames, at, fps=FPS):
    """The numbers of the objects of each of `frames`."""
    return [tracker.update(seen(*at(frame)), frame / fps).tolist() for frame in frames]


def tracker(start=0.25, keep=1.0):
    return ByteTrack(start, keep)


@pytest.mark.parametrize("speed", [0, 5, 20, -20])
def test_an_object_has_one_number_from_its_second_frame_on(speed):
    found = numbers(tracker(), range(60), lambda frame: [walker(frame, speed, start=1300)])
    assert found == [[NONE], *[[1]] * 59]


@pytest.mark.parametrize("frames", [[*range(20), *range(35, 60)], [frame for frame in range(90) if frame % 7 < 4]])
def test_dropped_frames_are_time_that_passed(frames):
    found = numbers(tracker(), frames, lambda frame: [walker(frame, 10)])
    assert found[1:] == [[1]] * (len(frames) - 1)


@pytest.mark.parametrize("fps", [2.0, 5.0, 60.0])
def test_any_frame_rate(fps):
    found = numbers(tracker(), range(40), lambda frame: [walker(frame, 300 / max(fps, 15.0))], fps)
    assert found[1:] == [[1]] * 39


def test_two_that_pass_each_other_keep_their_numbers():
    found = numbers(tracker(), range(60), lambda frame: [walker(frame, 5), walker(frame, -5, start=310, y=110.0)])
    assert found[1:] == [[1, 2]] * 59


def test_an_object_that_comes_back_in_time_is_known_and_a_later_one_is_another():
    def hidden(first, last):
        return lambda frame: [] if first <= frame < last else [walker(frame, 5)]

    assert numbers(tracker(), range(60), hidden(20, 40))[-1] == [1]
    assert numbers(tracker(keep=0.5), range(60), hidden(20, 40))[-1] == [2]


def test_what_is_unsure_continues_and_never_begins():
    found = numbers(tracker(), range(40), lambda frame: [walker(frame, 5, 0.9 if frame < 20 else 0.12)])
    assert found[1:] == [[1]] * 39
    assert numbers(tracker(), range(40), lambda frame: [walker(frame, 5, 0.2)]) == [[NONE]] * 40


def test_what_is_seen_once_gets_no_number():
    found = numbers(tracker(), range(20), lambda frame: [walker(frame, 5)] if frame in (3, 10, 11) else [])
    assert [found[frame] for frame in (3, 10, 11)] == [[NONE], [NONE], [1]]


def test_only_objects_of_one_class_are_the_same():
    both = numbers(tracker(), range(20), lambda frame: [walker(frame, 5), walker(frame, 5, kind=DOG)])
    assert both[1:] == [[1, 2]] * 19
    other = numbers(tracker(), range(20), lambda frame: [walker(frame, 5, kind=PERSON if frame < 10 else DOG)])
    assert other[9:12] == [[1], [NONE], [2]]


def test_numbers_are_never_given_again():
    followed = tracker()
    assert numbers(followed, range(3), lambda frame: [walker(frame, 5)])[-1] == [1]
    followed.restart()
    assert followed.known == set()
    assert numbers(followed, range(3, 6), lambda frame: [walker(frame, 5)]) == [[NONE], [2], [2]]
    assert followed.known == {2}


def test_a_picture_at_rest_keeps_everything_for_ever():
    followed = tracker()
    numbers(followed, range(10), lambda frame: [walker(frame, 5), walker(frame, 0, start=900)])
    assert followed.update(seen(walker(10, 5)), 10 / FPS).tolist() == [1]  # one is hidden when the picture stands still
    for frame in range(11, 2000):
        followed.rest(frame / FPS)
    assert followed.update(seen(walker(10, 5), walker(0, 0, start=900)), 80.0).tolist() == [1, 2]


def test_a_clock_that_stands_or_goes_back_does_no_harm():
    followed = tracker()
    found = [
        followed.update(seen(walker(n, 5)), seconds).tolist() for n, seconds in enumerate([5.0, 5.0, 4.0, 5.1, 5.0])
    ]
    assert found == [[NONE], *[[1]] * 4]


@given(st.lists(st.lists(st.tuples(*[st.integers(0, 100)] * 4, st.floats(0, 1), st.integers(0, 2)), max_size=6)))
def test_whatever_is_seen_no_number_is_given_twice_in_a_frame_or_to_two_classes(frames):
    followed, kinds, highest = tracker(), {}, 0
    for at, objects in enumerate(frames):
        shown = seen(*(((x, y, x + w, y + h), score, kind) for x, y, w, h, score, kind in objects))
        found = followed.update(shown, at / FPS)
        given_now = [number for number in found.tolist() if number != NONE]
        assert len(set(given_now)) == len(given_now)
        assert set(given_now) <= followed.known
        for number, kind in zip(found.tolist(), shown.classes.tolist(), strict=True):
            assert number == NONE or kinds.setdefault(number, kind) == kind
        new = [number for number in given_now if number > highest]
        assert all(number >= 1 for number in given_now)
        highest = max([highest, *new])


def test_overlap_is_the_shared_part_of_both():
    first, second = (
        np.array([[0, 0, 10, 10], [0, 0, 0, 0]]),
        np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10]]),
    )
    assert overlaps(first, second) == pytest.approx(np.array([[1 / 3, 0, 1], [0, 0, 0]]))
