"""Headers of any bytes: a request, or a BadInput, and nothing else."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import OPENINGS, SAMPLES, read, spoilt

GOOD = [msgspec.msgpack.encode(sample) for sample in SAMPLES.values()]


@pytest.mark.parametrize("name", SAMPLES)
def test_a_good_header_is_read_and_most_spoilt_ones_are_not(name):
    header, chance = msgspec.msgpack.encode(SAMPLES[name]), random.Random(3)
    assert read(header) == "read"
    outcomes = [read(spoilt(header, chance)) for _ in range(2000)]
    assert outcomes.count("refused") > 1000


@given(st.binary(max_size=300))
def test_any_bytes(header):
    assert read(header) in ("read", "refused")


@given(st.sampled_from(GOOD), st.integers(0, 200), st.sampled_from([*OPENINGS, b""]), st.integers(0, 50))
@settings(max_examples=200)
def test_something_long_or_deep_in_the_middle(header, at, opening, left_out):
    assert read(header[:at] + opening + header[at + left_out :]) in ("read", "refused")


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(
    ["v", "id", "type", "model", "kind", "tensors", "slot", "timeout", "priority", "options", "ring"]
)


@given(st.dictionaries(FIELDS, ANYTHING), st.sampled_from(list(SAMPLES.values())))
@settings(max_examples=200)
def test_fields_of_wrong_types(changes, sample):
    header = msgspec.msgpack.decode(msgspec.msgpack.encode(sample)) | changes
    assert read(msgspec.msgpack.encode(header)) in ("read", "refused")
