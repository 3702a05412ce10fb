"""Rings: where slots lie, who may use which, and that a late message does no harm."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.model_spec import TensorSpec
from parallel_infer.shm.ring import Ring, RingSpec, Slots, batch_view, byte_ring, gather_into
from parallel_infer.shm.segment import RunMark


@pytest.fixture
def mark() -> Iterator[RunMark]:
    mark = RunMark()
    yield mark
    mark.remove()


tensors = st.builds(
    TensorSpec,
    st.uuids().map(str),
    st.sampled_from(["uint8", "float32", "int64", "float16", "bool"]),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
)


@given(st.integers(1, 20), st.lists(tensors, min_size=1, max_size=4))
def test_tensors_of_a_ring_lie_one_after_the_other_and_inside(slots, specs):
    spec = RingSpec("r", slots, tuple(specs))
    ends = [0]
    for tensor, offset in zip(spec.tensors, spec.offsets, strict=True):
        assert offset % 4096 == 0
        assert offset >= ends[-1]
        ends.append(offset + tensor.size * slots)
    assert ends[-1] <= spec.size


def test_a_ring_is_the_same_for_all_who_map_it(mark):
    spec = RingSpec(mark.segment_name("r"), 5, (TensorSpec("a", "uint8", (3, 7)), TensorSpec("b", "float32", (2,))))
    owner = Ring.create(spec)
    other = Ring.attach(spec)
    for slot in range(5):
        owner.arrays["a"][slot] = slot
        other.arrays["b"][slot] = -slot
    assert other.arrays["a"].shape == (5, 3, 7)
    assert [int(array.max()) for array in other.arrays["a"]] == list(range(5))
    assert owner.arrays["b"].tolist() == [[-slot] * 2 for slot in range(5)]
    kept = other.arrays["a"][4]
    other.close()
    owner.close()
    owner.unlink()
    assert kept.sum() == 4 * 21


def test_a_ring_of_nothing_can_still_be_made(mark):
    spec = RingSpec(mark.segment_name("r"), 2, (TensorSpec("empty", "float32", (0,)), TensorSpec("x", "uint8", (4,))))
    ring = Ring.create(spec)
    assert ring.arrays["empty"].shape == (2, 0)
    ring.arrays["x"][:] = 1
    ring.close()


def test_byte_rings_hold_payloads(mark):
    ring = Ring.create(byte_ring(mark.segment_name("r"), 3, 1000))
    ring.arrays["bytes"][2, :5] = np.frombuffer(b"hello", np.uint8)
    assert ring.arrays["bytes"].shape == (3, 1000)
    assert ring.arrays["bytes"][2, :5].tobytes() == b"hello"
    ring.close()


@given(st.integers(1, 8), st.data())
def test_slots_agree_with_a_simple_model(count, data):
    """Claims and releases, right ones, late ones and invented ones, against a dictionary."""
    slots, claimed, past = Slots(count), dict[int, int](), list[tuple[int, int]]()
    for _ in range(data.draw(st.integers(0, 60))):
        event = data.draw(st.sampled_from(["claim", "release", "again"]))
        if event == "claim":
            index = slots.claim()
            if len(claimed) == count:
                assert index is None
                continue
            assert index is not None
            assert index not in claimed
            generation = slots.generation(index)
            assert (index, generation) not in past
            claimed[index] = generation
            past.append((index, generation))
        elif event == "release" and claimed:
            index = data.draw(st.sampled_from(sorted(claimed)))
            assert slots.release(index, claimed.pop(index))
        elif event == "again" and past:
            index, generation = data.draw(st.sampled_from(past))
            if claimed.get(index) != generation:
                assert not slots.release(index, generation)
        assert slots.free == count - len(claimed)


def test_slots_are_claimed_in_ring_order():
    slots = Slots(4)
    assert [slots.claim() for _ in range(5)] == [0, 1, 2, 3, None]
    slots.release(1, 1)
    slots.release(0, 1)
    assert [slots.claim(), slots.claim(), slots.claim()] == [0, 1, None]


def test_a_late_release_does_not_free_what_is_in_use_again():
    slots = Slots(1)
    assert slots.claim() == 0
    first = slots.generation(0)
    assert slots.release(0, first)
    assert not slots.release(0, first)
    slots.claim()
    assert not slots.release(0, first)
    assert slots.free == 0


def test_neighbouring_rows_are_a_view_and_others_are_not():
    array = np.arange(40).reshape(10, 4)
    view = batch_view(array, (3, 4, 5))
    assert view is not None
    assert np.shares_memory(view, array)
    np.testing.assert_array_equal(view, array[3:6])
    for rows in [(3, 5), (5, 4, 3), (9, 0), (2, 2)]:
        assert batch_view(array, rows) is None
    single = batch_view(array, (9,))
    assert single is not None
    assert single.shape == (1, 4)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_gathered_rows_are_in_the_order_asked_for(rows):
    array = np.arange(40, dtype=np.float32).reshape(10, 4)
    batch = np.full((6, 4), -1, np.float32)
    gather_into(array, tuple(rows), batch)
    np.testing.assert_array_equal(batch[: len(rows)], array[rows])
    assert (batch[len(rows) :] == -1).all()
