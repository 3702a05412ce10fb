"""The registry's core: who is there, who went, who fell silent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.fleet.members import BEAT, FORGOTTEN, SETTLED, Members

A, B = "tcp://10.0.0.1:1", "tcp://10.0.0.2:1"


def test_beats_tell_who_is_there_and_only_news_is_a_new_version() -> None:
    members = Members(0.0)
    members.beat("one", A, 0.0)
    members.beat("two", B, 0.0)
    version = members.version
    members.beat("one", A, BEAT)
    assert (members.addresses(), members.version) == ([A, B], version)
    members.leave("one")
    assert (members.addresses(), members.version) == ([B], version + 1)
    members.leave("one")
    assert members.version == version + 1
    members.leave("two")
    assert members.is_empty


def test_a_server_that_was_started_anew_takes_the_place_of_the_old_one() -> None:
    members = Members(0.0)
    members.beat("one", A, 0.0)
    members.beat("one", B, 1.0)  # another port
    assert members.addresses() == [B]
    members.beat("another", B, 2.0)  # another replica that got the same port
    assert members.addresses() == [B]
    members.leave("one")  # a late farewell of the replica before takes nobody's place
    assert members.addresses() == [B]


def test_the_silent_are_forgotten_after_long() -> None:
    members = Members(0.0)
    members.beat("one", A, 0.0)
    members.beat("two", B, FORGOTTEN)
    members.forget_silent(FORGOTTEN)
    assert members.addresses() == [A, B]
    members.forget_silent(FORGOTTEN + 0.1)
    assert members.addresses() == [B]


def test_a_new_registry_says_nothing_before_everybody_had_time_to_say_that_they_are_there() -> None:
    members = Members(100.0)
    assert members.settles_in(100.0) == SETTLED > 2 * BEAT
    assert members.settles_in(100.0 + SETTLED) == 0.0


names = st.sampled_from(["one", "two", "three"])
events = st.one_of(st.tuples(names, st.sampled_from([A, B])), names)


@given(st.lists(events))
def test_versions_change_with_the_addresses_and_no_address_is_there_twice(schedule: list[object]) -> None:
    members, now = Members(0.0), 0.0
    for event in schedule:
        before, version, now = members.addresses(), members.version, now + 0.1
        if isinstance(event, tuple):
            members.beat(*event, now)
        else:
            members.leave(str(event))
        assert len(set(members.addresses())) == len(members.addresses())
        assert members.addresses() == before or members.version > version
