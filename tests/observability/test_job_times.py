from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.observe.histogram import BOUNDS, PARTS, JobTimes, all_counts, difference, merged, percentile


def counted(*seconds: float) -> JobTimes:
    """Jobs that spent as long in every part."""
    times = JobTimes()
    for each in seconds:
        times.add((each,) * len(PARTS))
    return times


@given(st.lists(st.floats(-0.001, 300), max_size=300))
def test_every_job_is_in_one_bucket_whose_bounds_it_keeps(seconds: list[float]) -> None:
    status = counted(*seconds).status()

    for part in PARTS:
        counts = status[part]["counts"]
        assert sum(counts) == len(seconds)
        assert status[part]["seconds"] == pytest.approx(sum(seconds))
        for place, bound in enumerate(BOUNDS):
            assert sum(counts[: place + 1]) == sum(1 for each in seconds if each <= bound)


def test_looking_changes_nothing() -> None:
    times = counted(*[0.01] * 200)

    assert times.status() == times.status()


def test_percentiles_are_within_a_bucket_of_the_truth() -> None:
    chance = random.Random(1)
    seconds = sorted(chance.lognormvariate(-4, 1) for _ in range(5000))
    counts = all_counts(counted(*seconds).status(), "total")

    for share in (0.01, 0.5, 0.9, 0.99):
        assert percentile(counts, share) == pytest.approx(seconds[int(share * 5000)], rel=0.1)


@pytest.mark.parametrize(("counts", "expected"), [([], 0.0), ([0, 0], 0.0), ([0] * len(BOUNDS) + [3], BOUNDS[-1])])
def test_percentiles_of_nothing_and_of_what_has_no_bound(counts: list[int], expected: float) -> None:
    assert percentile(counts, 0.5) == expected


def test_between_two_looks_there_is_what_was_added() -> None:
    times = counted(0.01, 0.02)
    before = all_counts(times.status(), "decode")
    times.add((0.5,) * len(PARTS))
    after = all_counts(times.status(), "decode")

    assert sum(difference(after, before)) == 1
    assert percentile(difference(after, before), 0.5) == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize(("newer", "older"), [([1], [5]), ([1], [0, 2]), ([3, 0, 1], [3, 1])])
def test_a_server_that_counts_anew_is_noticed(newer: list[int], older: list[int]) -> None:
    assert difference(newer, older) == newer


def test_merged_buckets_say_the_same_at_fewer_bounds() -> None:
    counts = all_counts(counted(0.00001, 0.0003, 0.0003, 2.0, 500.0).status(), "total")
    found = dict(merged(counts))

    assert len(found) == 21
    assert found[BOUNDS[0]] == 1
    assert found[BOUNDS[8]] == 3  # 0.4 ms
    assert found[BOUNDS[-1]] == 4  # the one beyond all bounds is left out
