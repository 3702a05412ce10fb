"""What is chosen from measurements: never what only noise made better."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.trial.verdict import WORTH, Unusable, Verdict, compare, measurements


def of(rates: dict[str, list[float]], turns: list[str] | None = None) -> Callable[[str], list[float]]:
    """One model, whose rates are given for each setting, round by round."""
    left = {key: list(values) for key, values in rates.items()}

    def measure(key: str) -> list[float]:
        if turns is not None:
            turns.append(key)
        return [left[key].pop(0)]

    return measure


def test_a_clear_winner_is_chosen_and_its_rates_are_the_middle_ones() -> None:
    verdict = compare("default", ["a", "b"], of({"default": [100, 90, 110], "a": [120, 80, 130], "b": [50] * 3}))
    assert verdict == Verdict("a", {"default": [100], "a": [120], "b": [50]}, {})
    assert verdict.total("a") == 120


def test_a_little_more_or_one_good_round_is_not_enough() -> None:
    assert compare("default", ["a"], of({"default": [100] * 3, "a": [104] * 3})).chosen == "default"
    assert compare("default", ["a"], of({"default": [100] * 3, "a": [200, 99, 99]})).chosen == "default"


def test_after_a_look_at_all_only_the_best_go_on_in_turns() -> None:
    turns: list[str] = []
    rates = {"default": 10.0, "a": 1.0, "b": 20.0, "c": 15.0, "d": 2.0}
    compare("default", ["a", "b", "c", "d"], of({key: [rate] * 3 for key, rate in rates.items()}, turns))
    assert turns == ["default", "a", "b", "c", "d", "c", "b", "default", "default", "b", "c"]
    assert len(turns) == measurements(4)


def test_each_model_counts_as_much_however_fast_it_is() -> None:
    """Ten times as slow for one of two models is not made good by a tenth more of a fast one."""
    rates = {"default": [1000.0, 10.0], "a": [1100.0, 1.0], "b": [900.0, 20.0]}
    assert compare("default", ["a", "b"], lambda key: rates[key]).chosen == "b"


def test_what_does_not_run_is_named_and_not_tried_again() -> None:
    def measure(key: str) -> list[float]:
        if key == "broken":
            raise Unusable("out of memory")
        return [1.0]

    verdict = compare("default", ["broken", "a"], measure)
    assert (verdict.chosen, verdict.unusable) == ("default", {"broken": "out of memory"})
    with pytest.raises(Unusable):
        compare("broken", ["a"], measure)


@given(st.lists(st.floats(0.97, 1.03), min_size=30, max_size=30), st.lists(st.floats(0.2, 1.9), max_size=6))
def test_noise_alone_changes_nothing_and_a_real_gain_is_never_missed(noise: list[float], speeds: list[float]) -> None:
    """Noise of 3 % either way: what is chosen is hardly slower than the default, and what is much faster wins."""
    measured = iter(noise * 2)
    speeds = [1.0, *speeds]
    verdict = compare(0, list(range(1, len(speeds))), lambda key: [100 * speeds[key] * next(measured)])
    assert speeds[verdict.chosen] >= WORTH * 0.97 / 1.03 - 1e-9
    if max(speeds) > WORTH * 1.07:
        assert speeds[verdict.chosen] * 1.07 >= max(speeds)
