"""A name that is there twice in one object of a JSON text is found, whatever stands around it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallel_infer.json_keys import twice

Names = st.one_of(st.sampled_from(["a", "b", "", '"', "\\", "a" * 150, '\\":{', "}", "é"]), st.text(max_size=4))
Leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), Names)
# An object is a list of pairs, so that it may have a name twice.
Objects = st.recursive(
    Leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.lists(st.tuples(Names, inner), max_size=4).map(tuple)),
    max_leaves=12,
)


def written(value: Any, gap: str) -> str:
    if isinstance(value, tuple):
        return "{" + ",".join(f"{json.dumps(name)}{gap}:{gap}{written(each, gap)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + f",{gap}".join(written(each, gap) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def names_twice(value: Any) -> set[str]:
    inner = [each for _, each in value] if isinstance(value, tuple) else value if isinstance(value, list) else []
    names = [name for name, _ in value] if isinstance(value, tuple) else []
    return {name for name in names if names.count(name) > 1}.union(*map(names_twice, inner))


@given(value=Objects, gap=st.sampled_from(["", " ", "\n\t"]))
def test_a_name_that_is_twice_in_one_object_is_found_and_no_other(value: Any, gap: str) -> None:
    text = written(value, gap).encode(errors="surrogatepass")
    found, wanted = twice(text), names_twice(value)
    assert found in wanted if wanted else found is None
    assert twice(memoryview(b"  " + text)[2:]) == found


@pytest.mark.parametrize("text", [b'{"a": 1, "\\u0061": 2}', b'{"x": {"a": "}"}, "b": [{"a": 1, "a": "{"}]}'])
def test_it_is_the_same_name_however_it_is_written(text: bytes) -> None:
    assert twice(text) == "a"
