"""How long a server under faults could have answered anything, from looks at its status."""

from __future__ import annotations

import pytest

from benchmarks.chaos_support.faults import goes_all_the_way, up_together

UP, DOWN = {"state": "up"}, {"state": "starting"}


def test_the_time_in_which_jobs_could_go_all_the_way_is_that_between_prompt_looks_that_found_all_up() -> None:
    looks = [(0.0, True), (0.1, True), (0.2, False), (0.3, True), (0.4, True), (0.5, True), (2.5, True), (2.6, True)]
    together, longest, whole = up_together(looks)
    assert (together, longest, whole) == (pytest.approx(0.4), pytest.approx(0.2), pytest.approx(2.6))
    assert up_together([]) == (0.0, 0.0, 0.0)


def test_jobs_go_all_the_way_while_one_process_of_each_stage_and_model_is_up() -> None:
    others = {"gateway": UP, "dispatcher": UP, "decode-0": DOWN, "decode-1": UP, "infer-a-0": UP}
    assert goes_all_the_way({**others, "infer-b-0": UP})
    assert not goes_all_the_way({**others, "infer-b-0": DOWN})
    assert not goes_all_the_way({})
