from __future__ import annotations

import time

import pytest

from parallel_infer.gateway.counters import MOST_SOURCES, OTHERS, Tally


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_frames_are_counted_by_source_and_end(clock: Clock) -> None:
    tally = Tally(clock)
    tally.frame_answered("door", clock.now - 0.25)
    tally.failed("m", "door", "DROPPED")
    tally.failed("m", "door", "DROPPED")
    tally.failed("m", "door", "BAD_INPUT")
    clock.now += 1

    counts = tally.sources()["door"]
    assert counts.pop("client") is None  # nobody has reported
    assert counts == {"answered": 1, "dropped": 2, "failed": 1, "age": 1.25}
    assert tally.models()["m"]["ends"] == {"DROPPED": 2, "BAD_INPUT": 1}


def test_the_newest_answered_frame_gives_the_age(clock: Clock) -> None:
    tally = Tally(clock)
    tally.frame_answered("door", clock.now - 1)
    tally.frame_answered("door", clock.now - 3)  # overtaken on its way

    assert tally.sources()["door"]["age"] == 1


def test_a_source_without_an_answer_has_no_age(clock: Clock) -> None:
    tally = Tally(clock)
    tally.failed("m", "door", "DROPPED")

    assert tally.sources()["door"]["age"] is None


def test_pictures_of_no_source_are_none(clock: Clock) -> None:
    tally = Tally(clock)
    tally.failed("m", "", "DROPPED")

    assert tally.sources() == {}


def test_clients_that_make_up_names_take_no_room(clock: Clock) -> None:
    tally = Tally(clock)
    for number in range(10 * MOST_SOURCES):
        clock.now += 0.01
        tally.failed("m", f"source {number}", "DROPPED")
    found = tally.sources()

    assert len(found) == MOST_SOURCES + 1
    assert sum(source["dropped"] for source in found.values()) == 10 * MOST_SOURCES
    assert found[OTHERS]["dropped"] == 9 * MOST_SOURCES


def test_a_quiet_source_gives_its_place_to_a_new_one_and_no_count_is_lost(clock: Clock) -> None:
    tally = Tally(clock)
    for number in range(MOST_SOURCES):
        tally.frame_answered(f"old {number}", clock.now)
    clock.now += 61
    tally.frame_answered("new", clock.now)
    found = tally.sources()

    assert "new" in found
    assert len(found) == MOST_SOURCES + 1
    assert sum(source["answered"] for source in found.values()) == MOST_SOURCES + 1


def test_sources_are_told_without_their_passwords(clock: Clock) -> None:
    tally = Tally(clock)
    for password in ("hunter2", "hunter3"):
        tally.failed("m", f"rtsp://admin:{password}@cam/1", "BAD_INPUT")
    assert set(tally.sources()) == {"rtsp://***@cam/1", "rtsp://***@cam/1 (2)"}
