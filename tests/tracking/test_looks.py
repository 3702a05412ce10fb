"""Objects of which it is known what they look like: they keep their numbers where boxes alone would confuse them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.tracking.byte_track import NONE, ByteTrack, Seen

FPS = 25.0
WIDTH, HEIGHT = 50, 100
RED, BLUE = np.array([0.8, 0.6, 0.0]), np.array([0.0, -0.6, 0.8])


def box(x, y=100.0):
    return (x, y, x + WIDTH, y + HEIGHT)


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def numbers(film, looks=True, keep=1.0):
    """The numbers of the objects, by name, of each frame; a frame is a map from name to (box, looks)."""
    tracker, found = ByteTrack(0.25, keep), []
    for at, frame in enumerate(film):
        count = len(frame)
        boxes = np.array([one for one, _ in frame.values()], np.float32).reshape(count, 4)
        vectors = unit(np.array([look for _, look in frame.values()], np.float64).reshape(count, -1)) if count else None
        seen = Seen(
            boxes, np.full(count, 0.9, np.float32), np.zeros(count, np.int64), vectors if looks and count else None
        )
        found.append(dict(zip(frame, tracker.update(seen, at / FPS).tolist(), strict=True)))
    return found


def turning_back(hidden):
    """Two that meet and go back to where they came from; the one behind is seen partly, or not at all meanwhile."""
    for at in range(60):
        way = 4 * at if at < 30 else 4 * (60 - at)
        red, blue = 100 + way, 340 - way
        shared = max(0.0, 1 - abs(red - blue) / WIDTH)
        frame = {"blue": (box(blue, 104), BLUE)}
        if not hidden or shared < 0.4:
            frame["red"] = (box(red), RED * (1 - 0.6 * shared) + BLUE * 0.6 * shared)
        yield frame


@pytest.mark.parametrize("hidden", [False, True], ids=["in sight", "hidden"])
def test_two_that_meet_and_turn_back_keep_their_numbers(hidden):
    with_looks = numbers(turning_back(hidden))
    assert with_looks[-1] == with_looks[5]
    assert {number for frame in with_looks for number in frame.values()} == {NONE, 1, 2}
    alone = numbers(turning_back(hidden), looks=False)
    assert alone[-1] == {name: 3 - number for name, number in alone[5].items()}  # swapped


def behind_something(returns):
    """One that goes behind something for 20 frames, and comes out where it went in, or on the other side."""
    for at in range(70):
        x = 4 * at if at < 25 else 96 - 4 * (at - 45) if returns else 4 * at
        yield {} if 25 <= at < 45 else {"red": (box(x), RED)}


def test_who_was_hidden_and_comes_back_the_other_way_keeps_its_number():
    assert numbers(behind_something(returns=True))[-1] == {"red": 1}
    assert numbers(behind_something(returns=True), looks=False)[-1] == {"red": 2}
    assert numbers(behind_something(returns=False))[-1] == {"red": 1}


def test_a_stranger_where_somebody_was_hidden_is_somebody_else():
    film = [
        {"red": (box(4 * at), RED)} if at < 25 else {} if at < 35 else {"blue": (box(90), BLUE)} for at in range(45)
    ]
    assert numbers(film)[-1] == {"blue": 2}


def test_nobody_is_known_again_by_looks_from_too_far_away():
    film = [{"red": (box(0), RED)} if at < 10 else {} if at < 12 else {"red": (box(1500), RED)} for at in range(20)]
    assert numbers(film)[-1] == {"red": 2}


def crowd(count, frames, distinct, seed):
    """Walkers among whom those in front hide others; one detection in ten is missing."""
    random = np.random.default_rng(seed)
    same = random.standard_normal(8)
    looks = unit(same * (1 - distinct) + distinct * random.standard_normal((count, 8)))
    room = np.array([900, 400])
    place, speed = random.uniform((0, 0), room, (count, 2)), random.uniform(-6, 6, (count, 2))
    for _ in range(frames):
        place += speed
        speed += random.normal(0, 0.3, (count, 2))
        speed[(place < 0) | (place > room)] *= -1
        offset = place[None] - place[:, None]
        hidden = ((np.abs(offset[..., 0]) < 20) & (offset[..., 1] > 0) & (offset[..., 1] < 30)).any(1)
        seen = np.flatnonzero(~hidden & (random.random(count) > 0.1))
        noise = unit(looks + 0.05 * random.standard_normal(looks.shape))
        yield {at: (box(*(place[at] + random.normal(0, 1, 2))), noise[at]) for at in seen.tolist()}


def changes(found):
    """How often somebody has another number than before."""
    last, count = {}, 0
    for frame in found:
        for name, number in frame.items():
            if number != NONE:
                count += last.setdefault(name, number) != number
                last[name] = number
    return count


@pytest.mark.parametrize(("distinct", "most"), [(0.0, 1.1), (1.0, 0.4)], ids=["all look alike", "everybody is himself"])
def test_in_a_crowd_fewer_change_their_numbers_and_never_more_to_speak_of(distinct, most):
    films = [list(crowd(12, 150, distinct, seed)) for seed in range(3)]
    alone = sum(changes(numbers(film, looks=False)) for film in films)
    assert alone > 10
    assert sum(changes(numbers(film)) for film in films) <= most * alone


def test_vectors_of_another_model_say_nothing_of_those_before():
    tracker = ByteTrack(0.25, 1.0)
    found = []
    for at in range(6):
        looks = unit(np.ones((1, 3))) if at < 3 else unit(-np.ones((1, 5)))
        seen = Seen(np.array([box(4 * at)]), np.array([0.9]), np.array([0]), looks)
        found.append(tracker.update(seen, at / FPS).tolist())
    assert found[1:] == [[1]] * 5


@given(
    st.lists(
        st.lists(
            st.tuples(*[st.integers(0, 100)] * 4, st.floats(0, 1), st.integers(0, 1), st.integers(0, 3)), max_size=5
        )
    )
)
def test_whatever_it_looks_like_no_number_is_given_twice_in_a_frame_or_to_two_classes(frames):
    directions = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [np.nan, np.nan]])
    tracker, kinds = ByteTrack(0.25, 1.0), {}
    for at, objects in enumerate(frames):
        boxes = np.array([(x, y, x + w, y + h) for x, y, w, h, *_ in objects], np.float32).reshape(-1, 4)
        scores, classes = np.array([one[4] for one in objects]), np.array([one[5] for one in objects], np.int64)
        looks = directions[[one[6] for one in objects]] if objects and at % 3 else None
        found = tracker.update(Seen(boxes, scores, classes, looks), at / FPS).tolist()
        given_now = [number for number in found if number != NONE]
        assert len(set(given_now)) == len(given_now)
        assert set(given_now) <= tracker.known
        for number, kind in zip(found, classes.tolist(), strict=True):
            assert number == NONE or kinds.setdefault(number, kind) == kind
