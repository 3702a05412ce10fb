"""Deadlines: nothing fires early, nothing is forgotten, nothing fires twice."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.deadlines import RESOLUTION, Deadlines

TINY = 1e-9  # seconds; what adding floating-point numbers costs
moments = st.floats(0, 1e6)


@given(st.lists(moments, max_size=30), st.lists(moments, max_size=10))
def test_items_fire_once_not_early_and_not_late(deadlines, looks):
    watch: Deadlines[int] = Deadlines()
    for number, deadline in enumerate(deadlines):
        watch.add(number, deadline, number)
    fired: set[int] = set()
    for now in [*sorted(looks), math.inf]:
        expired = watch.expired(now)
        assert len(expired) == len(set(expired))
        assert not fired & set(expired)
        fired |= set(expired)
        for number, deadline in enumerate(deadlines):
            if number in fired:
                assert deadline <= now + TINY
            else:
                assert deadline > now - RESOLUTION - TINY
    assert fired == set(range(len(deadlines)))
    assert watch.next() is None


@given(st.lists(moments, min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_discarded_items_never_fire_and_the_timer_is_that_of_the_rest(deadlines, discarded):
    watch: Deadlines[int] = Deadlines()
    for number, deadline in enumerate(deadlines):
        watch.add(number, deadline, number)
    for number in discarded:
        if number < len(deadlines):
            watch.discard(number, deadlines[number])
            watch.discard(number, deadlines[number])
    left = {number: deadline for number, deadline in enumerate(deadlines) if number not in discarded}
    timer = watch.next()
    if left:
        assert timer is not None
        assert min(left.values()) - TINY <= timer <= min(left.values()) + RESOLUTION + TINY
        assert watch.expired(timer)
    else:
        assert timer is None
    assert set(watch.expired(math.inf)) <= left.keys()


def test_discarding_what_was_never_there_is_harmless():
    watch: Deadlines[str] = Deadlines()
    watch.discard(1, 5.0)
    watch.add(2, 5.0, "b")
    watch.discard(1, 5.0)
    assert watch.expired(5.01) == ["b"]
    watch.discard(2, 5.0)
