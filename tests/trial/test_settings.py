"""What is worth a try on so many cores, for one model and for several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.trial.settings import Choice, Setting, default_mix, fitting, larger_batches, mix_text, splits


def choice(
    instances: int, threads: int, *, batch: int = 8, gpus: int = 0, given: str = "", most_batch: int = 4096
) -> Choice:
    open_fields = [name not in given for name in ("instances", "threads", "batch")]
    return Choice(Setting(instances, threads, batch), *open_fields, gpus, most_batch)


def pairs(mixes: list[tuple[Setting, ...]]) -> set[tuple[int, int]]:
    return {(setting.instances, setting.threads) for (setting,) in mixes}


def test_two_cores_are_split_in_every_way() -> None:
    assert pairs(splits([choice(2, 1)], 2)) == {(1, 2), (2, 2), (1, 1)}


def test_sixteen_cores_are_split_by_powers_of_two_the_nearest_first() -> None:
    found = splits([choice(4, 4)], 16)
    assert pairs(found) == {(1, 16), (2, 8), (8, 2), (16, 1), (1, 15), (2, 16)}
    assert pairs(found[:2]) == {(2, 8), (8, 2)}


@pytest.mark.parametrize(
    ("given", "found"),
    [("instances", {(2, 2)}), ("threads", {(1, 1)}), ("instances threads", set())],
)
def test_what_was_given_is_not_changed(given: str, found: set[tuple[int, int]]) -> None:
    assert pairs(splits([choice(2, 1, given=given)], 2)) == found


def test_on_a_gpu_more_instances_are_tried_and_no_threads() -> None:
    assert pairs(splits([choice(1, 16, gpus=1)], 16)) == {(2, 16)}
    assert pairs(splits([choice(2, 8, gpus=2)], 16)) == {(4, 8)}
    assert splits([choice(1, 16, gpus=1, given="instances")], 16) == []


def test_models_on_a_gpu_and_on_the_cores_are_changed_one_kind_at_a_time() -> None:
    found = splits([choice(1, 2, gpus=1), choice(2, 1)], 2)
    assert all((gpu == Setting(1, 2, 8)) != (core == Setting(2, 1, 8)) for gpu, core in found)


counts = st.integers(1, 64)


@given(st.lists(st.builds(choice, counts, counts, gpus=st.integers(0, 4)), min_size=1, max_size=4), st.integers(1, 500))
def test_there_are_few_other_settings_and_they_are_within_the_bounds(models: list[Choice], cores: int) -> None:
    found = splits(models, cores)
    assert len(set(found)) == len(found) <= 8
    assert default_mix(models) not in found
    for mix in found:
        for setting, model in zip(mix, models, strict=True):
            assert setting.max_batch == model.default.max_batch
            assert 1 <= setting.threads <= 256
            assert 1 <= setting.instances <= 64


def test_batches_grow_where_the_largest_is_the_best_and_as_far_as_answers_are_right() -> None:
    models = [choice(1, 1), choice(1, 1, given="batch"), choice(1, 1, most_batch=12)]
    mix = default_mix(models)
    assert [[s.max_batch for s in found] for found in larger_batches(mix, models, [8, 8, 8])] == [
        [16, 8, 12],
        [32, 8, 12],
    ]
    assert larger_batches(mix, models, [4, 8, 1]) == []


def test_what_does_not_fit_into_memory_beside_the_default_is_left_out() -> None:
    """Sessions are told apart by their threads and shared by settings: nearer ones go first."""
    default, near, far = ((Setting(*numbers, 8),) for numbers in ((2, 1), (1, 1), (2, 2)))
    other = (Setting(1, 2, 8),)
    assert fitting(default, [near, far, other], [10], 20) == [near]
    assert fitting(default, [near, far, other], [10], 39) == [near, other]
    assert fitting(default, [near, far, other], [10], 40) == [near, far, other]


def test_settings_in_words() -> None:
    assert mix_text((Setting(2, 1, 8), Setting(1, 2, 4))) == "2 x 1, batch 8 and 1 x 2, batch 4"
